"""`variance[:T]`: a window is tissue if the values of its pixels vary by more than T.

The population variance of all values, channels taken together, strictly above the threshold
(JHancox/BioImaging, Notebook_2). Only pixels that were scanned count: a border is no structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.tissue import TissueMask
from napari_wsi_heatmap.tissuerules.sums import Sums, cell_sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide

    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

CELLS_AT_ONCE = 1 << 20
"""Cells whose sums are held at a time, 32 bytes each and as much again while they are added up."""
EXACT = 1 << 23
"""Values in a window up to which 64 bits hold its sums exactly."""


def variance_mask(
    slide: Slide,
    threshold: float,
    grid: WindowGrid | None,
    wanted: Mask | None,
    cancelled: Event | None = None,
) -> TissueMask:
    """Decide by the variance of each window; damage counts as tissue.

    Notes
    -----
    Memory bound: a byte a window, and about 100 MB. Every pixel under a wanted window is read,
    once (windows of neighbouring bands share a strip).
    """
    if grid is None:
        raise GridError("the tissue rule 'variance' looks at windows", do="give their grid")
    tissue = np.zeros(grid.shape, bool)
    wanted = np.ones(grid.shape, bool) if wanted is None else wanted
    for band in _bands(grid):
        if wanted[band].any():
            sums, cols = _of_band(slide, grid, band, wanted, cancelled)
            tissue[band, cols] = varies(sums, 3 * sums.scanned, threshold)
    return TissueMask(None, record={"rule": "variance", "threshold": threshold}, windows=tissue)


def _of_band(
    slide: Slide, grid: WindowGrid, band: slice, wanted: Mask, cancelled: Event | None
) -> tuple[Sums, slice]:
    """Sums over the windows of some rows, and of which columns these are."""
    across = np.flatnonzero(wanted[band].any(0))
    part = slice(int(across[0]), int(across[-1]) + 1)
    rows, cols = spans_of(grid, 0)[band], spans_of(grid, 1)[part]
    edges = np.unique(rows), np.unique(cols)
    touches = Reach(rows, cols, wanted[band, part]).touches
    cells = cell_sums(slide, grid.spec.level, edges, touches, cancelled=cancelled)
    return cells.each(lambda values: _window_sums(values, edges, rows, cols)), part


def spans_of(grid: WindowGrid, axis: int) -> Ints:
    """First and last border (N, 2) of each row or column of windows, pixels of the level read."""
    start = grid.starts[axis]
    return np.stack([start, start + grid.spec.footprint[axis]], axis=-1)


def _bands(grid: WindowGrid) -> Iterator[slice]:
    """Rows of windows that are worked on together."""
    # Borders of windows cut a row of them into up to four times as many cells.
    rows = max(1, CELLS_AT_ONCE // (4 * grid.shape[1]))
    for first in range(0, grid.shape[0], rows):
        yield slice(first, min(grid.shape[0], first + rows))


class Reach:
    """Which blocks of a level hold a pixel of a wanted window.

    Parameters
    ----------
    rows, cols : (Y, 2), (X, 2) int
        Borders of windows, pixels of the level.
    wanted : (Y, X) bool
    """

    def __init__(self, rows: Ints, cols: Ints, wanted: Mask) -> None:
        self._rows, self._cols, self._wanted = rows, cols, wanted

    def touches(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether a block must be read."""
        rows, cols = _under(self._rows, y, height), _under(self._cols, x, width)
        return bool(self._wanted[rows, cols].any())


def _under(spans: Ints, start: int, size: int) -> slice:
    first = int(np.searchsorted(spans[:, 1], start, "right"))
    return slice(first, int(np.searchsorted(spans[:, 0], start + size, "left")))


def _window_sums(cells: Ints, edges: tuple[Ints, Ints], rows: Ints, cols: Ints) -> Ints:
    """Sums over windows (Y, X) from those over the cells that they are made of."""
    table = np.zeros(np.add(cells.shape, 1), np.int64)
    np.cumsum(np.cumsum(cells, 0), 1, out=table[1:, 1:])
    (top, bottom), (left, right) = (
        np.searchsorted(edge, span).T for edge, span in zip(edges, (rows, cols), strict=True)
    )
    band = table[bottom] - table[top]
    return band[:, right] - band[:, left]


def varies(sums: Sums, count: Ints | int, threshold: float) -> Mask:
    """Whether the population variance of `count` values is above a threshold, or damage is there.

    In whole numbers, n Σx² − (Σx)² > T n²: the border case is no matter of rounding.
    """
    n = np.asarray(count, np.int64)
    if n.max(initial=0) <= EXACT:
        spread = (n * sums.squares - sums.total**2).astype(np.float64)
    else:
        spread = n.astype(float) * sums.squares - sums.total.astype(float) ** 2
    return (spread > threshold * n.astype(float) ** 2) | (sums.unread > 0)
