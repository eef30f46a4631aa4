"""`variance2[:T]`: the notebook's two passes, squares of 256 px and then tiles of 64 px in them.

A tile is tissue if the population variance of all its values is above T, and that of the square
around it is as well (JHancox/BioImaging, Notebook_2: `threshold`, both passes). As there, what was
not scanned or lies beyond the slide is black: tiles that hang over its border nearly always pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.tissue import TissueMask
from napari_wsi_heatmap.tissuerules.given import VARIANCE
from napari_wsi_heatmap.tissuerules.sums import cell_sums
from napari_wsi_heatmap.tissuerules.values import TissueValues, above_both
from napari_wsi_heatmap.tissuerules.variance import Reach, spans_of, variances

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide

    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Variances = NDArray[np.float64]

SQUARE, TILE = 256, 64
"""px of the level read."""
PER_SIDE = SQUARE // TILE
ROWS_AT_ONCE = 64
"""Rows of squares whose sums are held at a time."""


def two_pass_mask(
    slide: Slide,
    threshold: float,
    grid: WindowGrid | None,
    wanted: Mask | None,
    cancelled: Event | None = None,
) -> TissueMask:
    """Mask of tiles of 64 px of the level read (level 0 without a grid); damage counts as tissue.

    Notes
    -----
    Memory bound: a byte a tile, and about 100 MB. Every square around a wanted window is read,
    once.
    """
    level = _level(grid)
    shape = _squares(slide, level)
    mask = np.zeros((shape[0] * PER_SIDE, shape[1] * PER_SIDE), bool)
    for rows, tiles, squares in _variances(slide, grid, wanted, cancelled):
        mask[_tiles(rows)] = above_both(tiles, squares, threshold)
    record = {"rule": "variance2", "threshold": threshold, "level": level}
    return TissueMask(mask, _tile_level0(slide, level), record)


def two_pass_values(
    slide: Slide,
    threshold: float,
    grid: WindowGrid | None,
    wanted: Mask | None,
    cancelled: Event | None = None,
) -> TissueValues:
    """Keep the variances of tiles and squares; memory bound: 9 bytes a tile, and about 100 MB.

    Tiles of squares that the first pass rejects are known as well: a lower threshold reads
    nothing again.
    """
    level = _level(grid)
    first = np.full(_squares(slide, level), np.nan)
    values = np.full(np.multiply(first.shape, PER_SIDE), np.nan)
    for rows, tiles, squares in _variances(slide, grid, wanted, cancelled):
        values[_tiles(rows)], first[rows] = tiles, squares
    return TissueValues(
        "variance2",
        values,
        threshold,
        first,
        _tile_level0(slide, level),
        automatic=VARIANCE,
        more={"level": level},
    )


def _variances(
    slide: Slide, grid: WindowGrid | None, wanted: Mask | None, cancelled: Event | None
) -> Iterator[tuple[slice, Variances, Variances]]:
    """Rows of squares, variances of their tiles, and their own; NaN where nothing was read."""
    level = _level(grid)
    shape = _squares(slide, level)
    reach = _everywhere if grid is None or wanted is None else _reach(grid, wanted).touches
    for first in range(0, shape[0], ROWS_AT_ONCE):
        rows = slice(first, min(first + ROWS_AT_ONCE, shape[0]))
        borders = _borders(rows), _borders(slice(0, shape[1]))
        sums = cell_sums(slide, level, borders, reach, align=SQUARE, cancelled=cancelled)
        squares = sums.each(_of_squares)
        yield rows, variances(sums, 3 * TILE**2), variances(squares, 3 * SQUARE**2)


def square_variances(
    slide: Slide, level: int, squares: tuple[int, int, int, int]
) -> tuple[Variances, Variances]:
    """Variances of the tiles (4 Y, 4 X) of some squares, and of the squares (Y, X) themselves.

    Parameters
    ----------
    squares : (first row, last row + 1, first column, last column + 1)
    """
    rows, columns = (_borders(slice(*span)) for span in (squares[:2], squares[2:]))
    sums = cell_sums(slide, level, (rows, columns), _everywhere, align=SQUARE)
    around = sums.each(_of_squares)
    return variances(sums, 3 * TILE**2), variances(around, 3 * SQUARE**2)


def _borders(squares: slice) -> Ints:
    """Borders of the tiles in some squares, pixels."""
    tiles = _tiles(squares)
    return np.arange(tiles.start, tiles.stop + 1) * TILE


def _level(grid: WindowGrid | None) -> int:
    return 0 if grid is None else grid.spec.level


def _squares(slide: Slide, level: int) -> tuple[int, int]:
    """Rows and columns of squares over a level."""
    height, width = slide.levels[level].shape
    return -(-height // SQUARE), -(-width // SQUARE)


def _tiles(squares: slice) -> slice:
    """Rows of tiles in rows of squares."""
    return slice(squares.start * PER_SIDE, squares.stop * PER_SIDE)


def _tile_level0(slide: Slide, level: int) -> tuple[float, float]:
    down = slide.levels[level].downsample
    return down[0] * TILE, down[1] * TILE


def _everywhere(y: int, x: int, height: int, width: int) -> bool:
    return True


def _reach(grid: WindowGrid, wanted: Mask) -> Reach:
    return Reach(spans_of(grid, 0), spans_of(grid, 1), wanted)


def _of_squares(tiles: Ints) -> Ints:
    """Sums over squares from those over their tiles."""
    height, width = tiles.shape
    parts = tiles.reshape(height // PER_SIDE, PER_SIDE, width // PER_SIDE, PER_SIDE)
    return parts.sum((1, 3))
