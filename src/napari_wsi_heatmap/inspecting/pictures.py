"""Small pictures of windows, wherever they come from: to be recognised, not to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from napari_wsi_heatmap.slides.base import Rgb, Slide

SIDE = 128
"""px of the longer side."""


def window_pictures(
    slide: Slide, positions: ArrayLike, size: tuple[float, float], side: int = SIDE
) -> Iterator[Rgb]:
    """Pictures of windows that no map knows of, such as those of a bag of features.

    Parameters
    ----------
    slide : Slide
    positions : (n, 2)
        Top-left (y, x), level-0 pixels.
    size : (float, float)
        (height, width) of a window, level-0 pixels.
    side : int
        px of a picture's longer side at most.

    Yields
    ------
    (h, w, 3) uint8
        Read from the coarsest level that has as many pixels.

    Raises
    ------
    SlideReadError
        If one cannot be read.
    """
    level = _level_for(slide, max(size) / side)
    down = np.asarray(slide.levels[level].downsample)
    height, width = (max(1, round(s / d)) for s, d in zip(size, down.tolist(), strict=True))
    corners = np.rint(np.asarray(positions, np.float64).reshape(-1, 2) / down).astype(int)
    for y, x in corners.tolist():
        yield fitted(slide.read_region(level, y, x, height, width), side)


def _level_for(slide: Slide, factor: float) -> int:
    fine = [i for i, level in enumerate(slide.levels) if max(level.downsample) <= max(1.0, factor)]
    return fine[-1] if fine else 0


def fitted(pixels: Rgb, side: int = SIDE) -> Rgb:
    """Shrink a picture (h, w, 3) until its longer side has at most `side` px; never enlarge it."""
    from PIL import Image

    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    wanted = max(1, round(factor * width)), max(1, round(factor * height))
    shrunk = Image.fromarray(pixels).resize(wanted, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(shrunk)
