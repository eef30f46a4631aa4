"""`variance2[:T]`: the notebook's two passes, squares of 256 px and then tiles of 64 px in them.

A tile is tissue if the population variance of all its values is above T, and that of the square
around it is as well (JHancox/BioImaging, Notebook_2: `threshold`, both passes). As there, what was
not scanned or lies beyond the slide is black: tiles that hang over its border nearly always pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.tissue import TissueMask
from napari_wsi_heatmap.tissuerules.sums import cell_sums
from napari_wsi_heatmap.tissuerules.variance import Reach, spans_of, varies

if TYPE_CHECKING:
    from threading import Event

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissuerules.sums import Sums

    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

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
    level = 0 if grid is None else grid.spec.level
    shape = [-(-side // SQUARE) for side in slide.levels[level].shape]
    reach = _everywhere if grid is None or wanted is None else _reach(grid, wanted).touches
    mask = np.zeros((shape[0] * PER_SIDE, shape[1] * PER_SIDE), bool)
    for first in range(0, shape[0], ROWS_AT_ONCE):
        rows = slice(first * PER_SIDE, min(first + ROWS_AT_ONCE, shape[0]) * PER_SIDE)
        edges = np.arange(rows.start, rows.stop + 1), np.arange(mask.shape[1] + 1)
        borders = edges[0] * TILE, edges[1] * TILE
        sums = cell_sums(slide, level, borders, reach, align=SQUARE, cancelled=cancelled)
        mask[rows] = _both_passes(sums, threshold)
    down = slide.levels[level].downsample
    record = {"rule": "variance2", "threshold": threshold, "level": level}
    return TissueMask(mask, (down[0] * TILE, down[1] * TILE), record)


def _everywhere(y: int, x: int, height: int, width: int) -> bool:
    return True


def _reach(grid: WindowGrid, wanted: Mask) -> Reach:
    return Reach(spans_of(grid, 0), spans_of(grid, 1), wanted)


def _both_passes(sums: Sums, threshold: float) -> Mask:
    squares = sums.each(_of_squares)
    first = varies(squares, 3 * SQUARE**2, threshold)
    tiles = varies(sums, 3 * TILE**2, threshold)
    return tiles & np.kron(first, np.ones((PER_SIDE, PER_SIDE), bool))


def _of_squares(tiles: Ints) -> Ints:
    """Sums over squares from those over their tiles."""
    height, width = tiles.shape
    parts = tiles.reshape(height // PER_SIDE, PER_SIDE, width // PER_SIDE, PER_SIDE)
    return parts.sum((1, 3))
