"""The slide under a rendering: a canvas of one level, or of a virtual one, read box by box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.canvas import UNREADABLE
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.shrink import LenientRead, level_and_factor, read_shrunk

if TYPE_CHECKING:
    from napari_wsi_heatmap.slides.base import Rgb, Slide

    Box = tuple[int, int, int, int]
    Pair = tuple[float, float]
    Roi = tuple[float, float, float, float]

AUTO = -1
"""The level that stands for a virtual one."""
VIRTUAL = 32
"""Level-0 pixels per pixel of it, at most."""


@dataclass(frozen=True)
class Ground:
    """A canvas on a slide.

    Attributes
    ----------
    slide : Slide
    level : int
        That is read.
    factor : int
        By which it is shrunk further: 1 but for a virtual level.
    corner : (int, int)
        (y, x) of the canvas, px of its own size from the slide's top left.
    shape : (int, int)
        (height, width) of the canvas, px.
    """

    slide: Slide
    level: int
    factor: int
    corner: tuple[int, int]
    shape: tuple[int, int]

    @property
    def downsample(self) -> Pair:
        """(y, x) level-0 pixels per pixel of the canvas."""
        y, x = self.slide.levels[self.level].downsample
        return y * self.factor, x * self.factor

    @property
    def origin(self) -> Pair:
        """(y, x) of the canvas' top-left border, level-0 pixels from the slide's."""
        down = self.downsample
        return self.corner[0] * down[0], self.corner[1] * down[1]

    def read(self, box: Box) -> Rgb:
        """Read a box (top, left, height, width) of the canvas; grey where it cannot be read."""
        top, left = box[0] + self.corner[0], box[1] + self.corner[1]
        read, f = LenientRead(self.slide, UNREADABLE), self.factor
        if f == 1:
            return read(self.level, top, left, *box[2:])[0]
        limit = self.slide.levels[self.level].shape
        far = [
            min((n + size) * f, m) for n, size, m in zip((top, left), box[2:], limit, strict=True)
        ]
        area = top * f, left * f, far[0] - top * f, far[1] - left * f
        return read_shrunk(self.slide, self.level, f, area, read=read)[0]


def lay_ground(slide: Slide, vis_level: int = AUTO, roi: Roi | None = None) -> Ground:
    """Lay a canvas on a slide.

    Parameters
    ----------
    slide : Slide
    vis_level : int
        Level of the slide; -1: the coarsest of at most 32 level-0 pixels a pixel, shrunk further
        by the whole factor that brings it nearest to 32.
    roi : (y0, x0, y1, x1), optional
        Level-0 pixels: only this part.

    Raises
    ------
    ExportError
        If there is no such level, or the part is empty.
    """
    level, factor = _level(slide, vis_level)
    down = [side * factor for side in slide.levels[level].downsample]
    whole = [-(-n // factor) for n in slide.levels[level].shape]
    if roi is None:
        return Ground(slide, level, factor, (0, 0), (whole[0], whole[1]))
    top, left = (int(start * (1 / d)) for start, d in zip(roi[:2], down, strict=True))
    bottom, right = (int(end * (1 / d)) for end, d in zip(roi[2:], down, strict=True))
    if not (0 <= top < bottom and 0 <= left < right and top < whole[0] and left < whole[1]):
        raise ExportError(
            f"the region {tuple(float(side) for side in roi)} (y0, x0, y1, x1) holds no pixel",
            slide.name,
            f"give level-0 pixels within {slide.levels[0].shape}",
        )
    shape = min(bottom, whole[0]) - top, min(right, whole[1]) - left
    return Ground(slide, level, factor, (top, left), shape)


def _level(slide: Slide, vis_level: int) -> tuple[int, int]:
    if vis_level == AUTO:
        return level_and_factor(slide, VIRTUAL)
    if not 0 <= vis_level < len(slide.levels):
        raise ExportError(
            f"no level {vis_level} to draw on",
            slide.name,
            f"choose 0 to {len(slide.levels) - 1}, or -1 for about {VIRTUAL}x",
        )
    return vis_level, 1


def blended(above: Rgb, below: Rgb, alpha: float) -> Rgb:
    """Mix two pictures, `alpha` of the one above, in float32, rounded half to even."""
    one, other = np.float32(alpha), np.float32(1 - alpha)
    mixed = above.astype(np.float32) * one + below.astype(np.float32) * other
    return np.rint(mixed).astype(np.uint8)
