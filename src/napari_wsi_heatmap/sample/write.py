"""Writing the sample slide: a pyramid of JPEG tiles that readers of Aperio's SVS open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.sample.scene import STEPS, Scene, build_scene
from napari_wsi_heatmap.sample.tiles import QUALITY, TILE, Coarse, finest_tiles, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    from numpy.typing import NDArray

SIZE = (9216, 12288)
"""Height and width of the sample slide, px: every level divides them."""

MPP = 0.5
SMALLEST = 1024  # px; the coarsest level is not larger


class SampleCancelledError(HeatmapError):
    """The making of the sample slide was cancelled; nothing of it is left."""


@dataclass(frozen=True)
class Progress:
    """Tells how far the making is, and raises when it was cancelled."""

    report: Callable[[float], object] | None
    cancel: Event | None

    def at(self, fraction: float) -> None:
        """Report how far the making is, 0 to 1; raise SampleCancelledError if it is cancelled."""
        if self.cancel is not None and self.cancel.is_set():
            raise SampleCancelledError("the making of the sample slide was cancelled")
        if self.report is not None:
            self.report(fraction)


def make_sample_slide(
    path: str | Path,
    *,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    progress: Callable[[float], object] | None = None,
    cancel: Event | None = None,
) -> None:
    """Make the sample slide and write it to a file.

    Parameters
    ----------
    path : path-like
        The file to write; one that exists is replaced. While it is being made it is not a
        valid slide: write to a temporary name, or call `sample_slide_path`.
    size : (int, int)
        Height and width in px of 0.5 µm. Tissue, pen mark and blur scale with it, cells do not.
    seed : int
        Another seed makes another slide.
    progress : callable, optional
        Called now and then from this thread with the fraction that is done, 0 to 1.
    cancel : threading.Event, optional
        When set, the making stops within a fraction of a second and the file is removed.

    Raises
    ------
    ValueError
        A size that the levels do not divide.
    SampleCancelledError
        It was cancelled.
    OSError
        The file cannot be written.

    Notes
    -----
    The pixels depend on size, seed and the versions of numpy and scipy, not on the number of
    threads. Memory bound: about 400 MB at the default size, 60 MB of it for each thread.
    """
    levels = level_count(size)
    told = Progress(progress, cancel)
    told.at(0.0)
    steps = iter(range(1, STEPS + 1))
    scene = build_scene(size, seed, lambda: told.at(0.2 * next(steps) / STEPS))
    try:
        _write(str(path), scene, size, levels, told)
        told.at(1.0)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise


def level_count(size: tuple[int, int]) -> int:
    """Return how many levels a slide has, each half the one before.

    Raises
    ------
    ValueError
        The coarsest level would not divide the slide.
    """
    count = 1
    while max(size) >> (count - 1) > SMALLEST:
        count += 1
    step = max(2 ** (count - 1), 16)
    if min(size) < TILE or size[0] % step or size[1] % step:
        raise ValueError(f"size {size} - height and width must be multiples of {step}, >= {TILE}")
    return count


def _write(path: str, scene: Scene, size: tuple[int, int], levels: int, told: Progress) -> None:
    from tifffile import TiffWriter

    coarse = Coarse(size)
    with TiffWriter(path, bigtiff=False) as tiff:
        finest = finest_tiles(scene, size, coarse, lambda done: told.at(0.2 + 0.78 * done))
        _write_level(tiff, finest, size, 0)
        pixels = coarse.from_third(levels - 2)
        _write_thumbnail(tiff, pixels[-1])
        if levels > 1:
            _write_level(tiff, coarse.second(), size, 1)
        for level in range(2, levels):
            told.at(0.98)
            _write_level(tiff, tiles_of(pixels[level - 2]), size, level)


def _write_level(tiff: Any, tiles: Iterator[bytes], size: tuple[int, int], level: int) -> None:
    shape = (size[0] >> level, size[1] >> level)
    per_cm = 1e4 / (MPP * 2**level)
    tiff.write(
        tiles,
        shape=(*shape, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(TILE, TILE),
        compression="jpeg",
        compressionargs={"level": QUALITY},
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        description=_description(size, shape),
        metadata=None,
        software=False,
    )


def _description(size: tuple[int, int], shape: tuple[int, int]) -> str:
    """Return what Aperio's readers expect of a level: its geometry, magnification and mpp."""
    geometry = f"{size[1]}x{size[0]} ({TILE}x{TILE}) JPEG/RGB Q={QUALITY}"
    if shape != size:
        geometry = geometry.replace(" (", f" -> {shape[1]}x{shape[0]} (", 1)
    return (
        f"Aperio compatible sample of napari-wsi-heatmap\r\n{geometry}"
        f"|AppMag = 20|MPP = {MPP}|Title = synthetic H&E"
    )


def _write_thumbnail(tiff: Any, pixels: NDArray[np.uint8]) -> None:
    tiff.write(
        pixels,
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": QUALITY},
        rowsperstrip=pixels.shape[0],
        description="Aperio compatible sample of napari-wsi-heatmap\r\nthumbnail",
        metadata=None,
        software=False,
    )
