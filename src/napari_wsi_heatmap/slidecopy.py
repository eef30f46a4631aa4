"""A level of a slide, or a part of it, copied to OME-Zarr: for programs that read nothing else.

The copy is an OME-Zarr 0.5 image (3, H, W) uint8 with halved levels, placed in µm where its pixels
lay on the slide. It opens as a slide here, and in every viewer that knows OME-Zarr.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap.errors import ExportError, GridError
from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.levels import half_shape, halve
from napari_wsi_heatmap.ome import UNIT
from napari_wsi_heatmap.shrink import blocks
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import Slide

if TYPE_CHECKING:
    from collections.abc import Callable

    Roi = tuple[float, float, float, float]

CHUNK = 1024
"""px: side of a chunk, of which each is a file; it is read and written at once."""
SMALLEST = 1024
"""px: the longer side of the coarsest level is not larger."""
COLOURS = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


class _Part(NamedTuple):
    """A box of a level."""

    level: int
    y: int
    x: int
    height: int
    width: int

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the copy's levels."""
        shapes = [(self.height, self.width)]
        while max(shapes[-1]) > SMALLEST:
            shapes.append(half_shape(shapes[-1]))
        return shapes


def copy_slide(
    slide: str | os.PathLike[str] | Slide,
    path: str | os.PathLike[str],
    *,
    level: int = 0,
    roi: Roi | None = None,
) -> Path:
    """Write a level of a slide, or a part of it, as OME-Zarr.

    Parameters
    ----------
    slide : path or Slide
    path : path-like
        A folder that is not there yet. It appears when it is whole.
    level : int
        That is copied; the first of the copy.
    roi : (y0, x0, y1, x1), optional
        Level-0 pixels; whole pixels of the level that touch it are copied.

    Returns
    -------
    Path

    Raises
    ------
    SlideError
        If the slide cannot be read.
    GridError
        If there is no such level, or nothing of the slide in the region.
    ExportError
        If there is something at `path`; StoreFullError if it cannot be written.

    Notes
    -----
    Memory bound: about 100 MB a core, whatever the slide's size.
    """
    target = Path(path)
    if target.exists():
        raise ExportError("there is something", target, "choose another name, or remove it first")
    opened = slide if isinstance(slide, Slide) else open_slide(slide)
    try:
        part = _part(opened, level, roi)
        with written_at_once(target, folder=True) as folder:
            _write(opened, part, folder)
    finally:
        if opened is not slide:
            opened.close()
    return target


def _part(slide: Slide, level: int, roi: Roi | None) -> _Part:
    if not 0 <= level < len(slide.levels):
        raise GridError(f"no level {level}", slide.name, f"there are 0 to {len(slide.levels) - 1}")
    shape, down = slide.levels[level].shape, slide.levels[level].downsample
    if roi is None:
        return _Part(level, 0, 0, *shape)
    first = [max(0, int(np.floor(roi[axis] / down[axis]))) for axis in (0, 1)]
    end = [min(shape[axis], int(np.ceil(roi[axis + 2] / down[axis]))) for axis in (0, 1)]
    if end[0] <= first[0] or end[1] <= first[1]:
        raise GridError(f"nothing of the slide lies in {roi}", slide.name, "give (y0, x0, y1, x1)")
    return _Part(level, first[0], first[1], end[0] - first[0], end[1] - first[1])


def _write(slide: Slide, part: _Part, folder: Path) -> None:
    import zarr

    group = zarr.open_group(str(folder), mode="a", zarr_format=3)
    arrays = [_array(group, str(number), shape) for number, shape in enumerate(part.shapes)]
    group.attrs["ome"] = _described(slide, part)

    def stored(y: int, x: int, height: int, width: int) -> Any:
        return slide.read_region(part.level, part.y + y, part.x + x, height, width)

    _fill(arrays[0], stored)
    for finer, array in itertools.pairwise(arrays):
        _fill(array, _halved(finer))


def _array(group: Any, name: str, shape: tuple[int, int]) -> Any:
    return group.create_array(
        name,
        shape=(3, *shape),
        dtype=np.uint8,
        chunks=(3, min(CHUNK, shape[0]), min(CHUNK, shape[1])),
        dimension_names=["c", "y", "x"],
    )


def _fill(array: Any, read: Callable[[int, int, int, int], Any]) -> None:
    """Write an array chunk by chunk, several at a time."""

    def copy(box: tuple[int, int, int, int]) -> None:
        y, x, height, width = box
        array[:, y : y + height, x : x + width] = np.moveaxis(read(*box), 2, 0)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for row in range(0, array.shape[1], CHUNK):
            height = min(CHUNK, array.shape[1] - row)
            boxes = [(row + y, x, h, w) for y, x, h, w in blocks(height, array.shape[2], CHUNK)]
            list(threads.map(copy, boxes))


def _halved(finer: Any) -> Callable[[int, int, int, int], Any]:
    """Reader of an array at half its size."""

    def read(y: int, x: int, height: int, width: int) -> Any:
        pixels = finer[:, 2 * y : 2 * (y + height), 2 * x : 2 * (x + width)]
        return halve(np.moveaxis(pixels, 0, 2))

    return read


def _described(slide: Slide, part: _Part) -> dict[str, Any]:
    space = {"type": "space"} if slide.mpp is None else {"type": "space", "unit": UNIT}
    axes = [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}]
    datasets = [
        {"path": str(number), "coordinateTransformations": _placing(slide, part, 2**number)}
        for number in range(len(part.shapes))
    ]
    channels = [
        {"label": name, "color": colour, "active": True,
         "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for name, colour in COLOURS
    ]  # fmt: skip
    return {
        "version": "0.5",
        "multiscales": [{"name": Path(slide.name).stem, "axes": axes, "datasets": datasets}],
        "omero": {"channels": channels},
    }


def _placing(slide: Slide, part: _Part, factor: int) -> list[dict[str, Any]]:
    """Scale and place of the first pixel's centre; level-0 pixel (0, 0) has its centre at 0."""
    unit, down = slide.mpp or (1.0, 1.0), slide.levels[part.level].downsample
    scale = [factor * d * u for d, u in zip(down, unit, strict=True)]
    place = [
        (start * d + (factor * d - 1) / 2) * u
        for start, d, u in zip((part.y, part.x), down, unit, strict=True)
    ]
    return [
        {"type": "scale", "scale": [1.0, *scale]},
        {"type": "translation", "translation": [0.0, *place]},
    ]
