"""A picture's pixels laid over a slide: the slide's overview on it, and the cells of a map.

Everything is placed by level-0 positions, so that the two lie on each other to the pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.grid import WindowGrid
from napari_wsi_heatmap.shrink import LenientRead, level_and_factor, read_shrunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Rgb, Slide

    Values = NDArray[np.float32]
    Positions = NDArray[np.float64]
    Pair = tuple[float, float]

UNREADABLE = 160, 160, 160
"""RGB of what cannot be read."""


@dataclass(frozen=True)
class Canvas:
    """Where the pixels of a picture lie on a slide."""

    shape: tuple[int, int]
    """(height, width) of the picture, px."""
    origin: Pair
    """(y, x) of its top-left border, level-0 pixels from the slide's top-left border."""
    scale: Pair
    """(y, x) level-0 pixels per pixel of the picture."""

    def centres(self, axis: int) -> Positions:
        """Level-0 position of the centre of each row (axis 0) or column (1).

        Whole numbers are centres of level-0 pixels.
        """
        pixels: Positions = np.arange(self.shape[axis], dtype=np.float64) + 0.5
        return self.origin[axis] + pixels * self.scale[axis] - 0.5


def lay_canvas(extent: tuple[float, float, float, float], mpp: Pair | None, side: int) -> Canvas:
    """Lay a picture of at most `side` pixels over a part of a slide.

    Parameters
    ----------
    extent : (y, x, height, width)
        Level-0 pixels.
    mpp : (float, float) or None
        (y, x) µm per level-0 pixel; the picture's own pixels are square in µm.
    side : int
        px; a part of less than half of it is enlarged by a whole factor.
    """
    y, x, height, width = extent
    unit = mpp or (1.0, 1.0)
    longest = max(height * unit[0], width * unit[1])
    pixel = longest / side
    if pixel < max(unit):
        pixel = max(unit) / math.ceil(side / 2 * max(unit) / longest)
    scale = pixel / unit[0], pixel / unit[1]
    shape = tuple(max(1, int(n / s + 1e-9)) for n, s in zip((height, width), scale, strict=True))
    return Canvas((shape[0], shape[1]), (float(y), float(x)), scale)


def overview(slide: Slide, canvas: Canvas) -> Rgb:
    """Draw a slide on a canvas; grey where it cannot be read.

    Returns
    -------
    (height, width, 3) uint8

    Notes
    -----
    Reads the coarsest level that is fine enough. Memory bound: that of `read_shrunk`, whose
    result has at most four times the pixels of the canvas, unless its levels lie further apart
    than whole factors can mend.
    """
    from PIL import Image

    level, factor = level_and_factor(slide, min(canvas.scale))
    down = slide.levels[level].downsample
    top, left, height, width = _box(canvas, down, slide.levels[level].shape)
    read = LenientRead(slide, UNREADABLE)
    rgb, _ = read_shrunk(slide, level, factor, (top, left, height, width), read=read)
    corner = [
        (o / d - n) / factor for o, d, n in zip(canvas.origin, down, (top, left), strict=True)
    ]
    far = [
        min(n, c + size * s / d / factor)
        for n, c, size, s, d in zip(
            rgb.shape[:2], corner, canvas.shape, canvas.scale, down, strict=True
        )
    ]
    enlarged = min(canvas.scale) < max(down)
    filter_ = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    picture = Image.fromarray(rgb).resize(
        canvas.shape[::-1], filter_, box=(corner[1], corner[0], far[1], far[0])
    )
    return np.array(picture)


def _box(canvas: Canvas, down: Pair, level_shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels of a level that lie under a canvas."""
    top, left = (
        min(int(o / d), n - 1) for o, d, n in zip(canvas.origin, down, level_shape, strict=True)
    )
    bottom, right = (
        min(math.ceil((o + size * s) / d - 1e-9), n)
        for o, size, s, d, n in zip(
            canvas.origin, canvas.shape, canvas.scale, down, level_shape, strict=True
        )
    )
    return top, left, max(1, bottom - top), max(1, right - left)


def lay_cells(heatmap: Heatmap, channel: int, canvas: Canvas) -> Values:
    """Values of the cells under the pixels of a canvas.

    Returns
    -------
    (height, width) float32
        NaN where there is no cell or no value. Where several cells lie under a pixel, the
        mean of those that have a value.
    """
    values = heatmap.values[channel]
    rows, cols = (_CellAxis.of(heatmap, axis, canvas) for axis in (0, 1))
    values = _joined(values, rows.joined, cols.joined)
    down, across = rows.under(canvas.centres(0)), cols.under(canvas.centres(1))
    laid = values[down][:, across]
    laid[down < 0] = np.nan
    laid[:, across < 0] = np.nan
    return laid


@dataclass(frozen=True)
class _CellAxis:
    """The rows or columns of a map, neighbours joined where a pixel covers several."""

    centres: Positions
    """Level-0 pixels, rising."""
    reach: float
    """Half of a cell's side."""
    joined: int = 1
    """Cells that were made one."""

    @classmethod
    def of(cls, heatmap: Heatmap, axis: int, canvas: Canvas) -> _CellAxis:
        frame = heatmap.frame
        side = frame.scale[axis]
        joined = max(1, int(canvas.scale[axis] / side))
        firsts, centres = slice(None, None, joined), _cell_centres(heatmap, axis)
        # The last of a joined group, or of all.
        lasts = np.minimum(np.arange(len(centres))[firsts] + joined, len(centres)) - 1
        return cls((centres[firsts] + centres[lasts]) / 2, side * joined / 2, joined)

    def under(self, positions: Positions) -> NDArray[np.int64]:
        """Index of the cell under each position, -1 where there is none."""
        nearest = np.searchsorted((self.centres[1:] + self.centres[:-1]) / 2, positions, "right")
        far = np.abs(positions - self.centres[nearest]) > self.reach
        return np.where(far, -1, nearest)


def _cell_centres(heatmap: Heatmap, axis: int) -> Positions:
    """Centres of cells as the windows truly lie: the last may be moved inside (``flush``)."""
    frame = heatmap.frame
    if isinstance(heatmap.grid, WindowGrid) and not frame.dense:
        spans = heatmap.grid.spans_level0[axis]
        return (spans[:, 0] + spans[:, 1] - 1) / 2
    cells = np.arange(frame.shape[1 + axis], dtype=np.float64)
    return frame.offset[axis] + cells * frame.scale[axis]


def _joined(values: Values, down: int, across: int) -> Values:
    """Join cells, `down` x `across` to one: the mean of those that have a value."""
    if (down, across) == (1, 1):
        return values
    there = ~np.isnan(values)
    total = _sums(np.where(there, values, 0), down, across)
    count = _sums(there, down, across)
    with np.errstate(invalid="ignore"):
        mean: Values = (total / count).astype(np.float32)
    return mean


def _sums(values: NDArray[np.generic], down: int, across: int) -> NDArray[np.float64]:
    rows, cols = (
        np.arange(0, n, step) for n, step in zip(values.shape, (down, across), strict=True)
    )
    return np.add.reduceat(np.add.reduceat(values, rows, 0, dtype=np.float64), cols, 1)
