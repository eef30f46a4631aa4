"""A rendered picture as a file, written a few rows at a time.

png and jpg are plain pictures: image viewers open them, and OpenSlide's Python package opens them
with Pillow's help. tiff is a slide of its own, a tiled pyramid that OpenSlide itself opens, with
the µm per pixel that the picture has: what any viewer of slides shows beside the slide.

Each says where it lies on the slide, in JSON as those of `napari_wsi_heatmap.exports.png`: the
text of a PNG, the comment of a JPEG, the description of a TIFF.

Memory bound: `BAND` rows of the picture. A JPEG needs 4 bytes for each pixel on disk while it is
written, a TIFF one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports.overlaytiff import OPTIONS, TILE, resolution
from napari_wsi_heatmap.exports.png import KEY
from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.mil.pngfile import write_png

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.mil.picture import Picture
    from napari_wsi_heatmap.slides.base import Rgb

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
QUALITY = 95
"""Of a JPEG: colours stay those of the map to a few grey levels."""
JPEG_SIDE = 65_500
"""px that a JPEG has at most."""
LARGE = 1 << 31
"""Bytes of pixels above which a TIFF is a BigTIFF."""
INCH = 25_400
"""µm."""
LARGEST_DPI = 65_535
"""That a JPEG can state."""


def save_picture(picture: Picture, path: Path) -> Path:
    """Write a picture; what was there is replaced once all of it is written.

    Parameters
    ----------
    picture : Picture
    path : Path
        Its ending says the format: one of `ENDINGS`.

    Raises
    ------
    ExportError
        If the ending is another one, or a JPEG cannot be so large.
    StoreFullError
        If it cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ExportError(
            f"no picture is written as {ending or 'a file without an ending'}",
            path,
            f"choose one of {', '.join(ENDINGS)}",
        )
    with written_at_once(path) as part:
        if ending == ".png":
            write_png(picture, part, KEY, about(picture))
        elif ending in (".jpg", ".jpeg"):
            _write_jpeg(picture, part)
        else:
            _write_tiff(picture, part)
    return path


def about(picture: Picture) -> dict[str, Any]:
    """What a file says of itself."""
    return {"software": f"{KEY} {__version__}", **picture.placement}


def _write_jpeg(picture: Picture, path: Path) -> None:
    from PIL import Image

    height, width = picture.shape
    if max(picture.shape) > JPEG_SIDE:
        raise ExportError(
            f"a JPEG cannot have {width} x {height} px",
            do="save as tiff, or choose a coarser level (a larger vis_level) or custom_downsample",
        )
    with tempfile.TemporaryFile(dir=path.parent) as scratch:
        # Pillow reads four bytes a pixel from a file in place, where three it would copy.
        pixels = np.memmap(scratch, np.uint8, "w+", shape=(height, width, 4))
        for top, rows in picture.bands():
            pixels[top : top + len(rows), :, :3] = rows
        image = Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)
        comment = json.dumps(about(picture)).encode()
        options = {"quality": QUALITY, "subsampling": 0, "comment": comment} | _dpi(picture)
        image.save(path, "JPEG", **options)
        del image, pixels


def _dpi(picture: Picture) -> dict[str, Any]:
    if picture.mpp is None:
        return {}
    y, x = (INCH / side for side in picture.mpp)
    return {"dpi": (x, y)} if max(y, x) < LARGEST_DPI else {}


def _write_tiff(picture: Picture, path: Path) -> None:
    from tifffile import TiffWriter

    options = OPTIONS | {"software": f"{KEY} {__version__}", "dtype": np.uint8}
    size = picture.shape[0] * picture.shape[1] * 4
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as scratch,
        TiffWriter(path, bigtiff=size > LARGE) as file,
    ):
        levels = _Levels(picture.shape, Path(scratch))
        for level, shape in enumerate(levels.shapes):
            tiles = _tiles(levels.first(picture) if level == 0 else levels.later(level))
            file.write(
                tiles,
                shape=(*shape, 3),
                description=None if level else json.dumps(about(picture)),
                subfiletype=int(level > 0),
                **options,
                **resolution(picture.mpp, 2**level),
            )


class _Levels:
    """A pyramid whose coarser levels lie on disk while the finer ones are written.

    Parameters
    ----------
    shape : (int, int)
    folder : Path
    """

    def __init__(self, shape: tuple[int, int], folder: Path) -> None:
        self.shapes = [shape]
        while max(self.shapes[-1]) > TILE:
            self.shapes.append((-(-self.shapes[-1][0] // 2), -(-self.shapes[-1][1] // 2)))
        self._coarse = [
            np.memmap(folder / str(level), np.uint8, "w+", shape=(*shape, 3))
            for level, shape in enumerate(self.shapes[1:])
        ]

    def first(self, picture: Picture) -> Iterator[Rgb]:
        """Yield rows of the picture, as many as a tile has, and keep their half."""
        for top, rows in picture.bands(TILE):
            self._keep(1, top, rows)
            yield rows

    def later(self, level: int) -> Iterator[Rgb]:
        """Yield rows of a coarser level, and keep their half."""
        for top in range(0, self.shapes[level][0], TILE):
            rows = np.asarray(self._coarse[level - 1][top : top + TILE])
            self._keep(level + 1, top, rows)
            yield rows

    def _keep(self, level: int, top: int, rows: Rgb) -> None:
        from PIL import Image

        if level < len(self.shapes):
            half = np.asarray(Image.fromarray(rows).reduce(2))
            self._coarse[level - 1][top // 2 : top // 2 + len(half)] = half


def _tiles(bands: Iterator[Rgb]) -> Iterator[Rgb]:
    """Cut bands into tiles; those at the far borders are filled up."""
    for rows in bands:
        for left in range(0, rows.shape[1], TILE):
            part = rows[:, left : left + TILE]
            missing = [(0, TILE - n) for n in part.shape[:2]]
            yield np.pad(part, (*missing, (0, 0)), "edge")
