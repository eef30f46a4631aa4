"""`variance[:T]`: a window is tissue if the values of its pixels vary by more than T.

The population variance of all values, channels taken together, strictly above the threshold
(JHancox/BioImaging, Notebook_2). Only pixels that were scanned count: a border is no structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.tissue import TissueMask
from napari_wsi_heatmap.tissuerules.given import VARIANCE
from napari_wsi_heatmap.tissuerules.sums import Sums, cell_sums
from napari_wsi_heatmap.tissuerules.values import TissueValues, above

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
    grid = _known(grid)
    tissue = np.zeros(grid.shape, bool)
    for at, values in _variances(slide, grid, wanted, cancelled):
        tissue[at] = above(values, threshold)
    return TissueMask(None, record={"rule": "variance", "threshold": threshold}, windows=tissue)


def variance_values(
    slide: Slide,
    threshold: float,
    grid: WindowGrid | None,
    wanted: Mask | None,
    cancelled: Event | None = None,
) -> TissueValues:
    """Keep the variance of each window; memory bound: 8 bytes a window, and about 100 MB."""
    grid = _known(grid)
    values = np.full(grid.shape, np.nan)
    for at, some in _variances(slide, grid, wanted, cancelled):
        values[at] = some
    return TissueValues("variance", values, threshold, windows=True, automatic=VARIANCE)


def _known(grid: WindowGrid | None) -> WindowGrid:
    if grid is None:
        raise GridError("the tissue rule 'variance' looks at windows", do="give their grid")
    return grid


def _variances(
    slide: Slide, grid: WindowGrid, wanted: Mask | None, cancelled: Event | None
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float64]]]:
    """Variances of windows, some rows at a time, and which these are; NaN if not wanted."""
    wanted = np.ones(grid.shape, bool) if wanted is None else wanted
    for band in _bands(grid):
        if wanted[band].any():
            sums, cols = _of_band(slide, grid, band, wanted, cancelled)
            values = variances(sums, 3 * sums.scanned)
            values[~wanted[band, cols]] = np.nan  # only a part of it may have been read
            yield (band, cols), values


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


def variances(sums: Sums, count: Ints | int) -> NDArray[np.float64]:
    """Population variance of `count` values; infinite where damage is, NaN where nothing is.

    (n Σx² − (Σx)²) / n², divided as whole numbers first: that a variance equals a threshold is
    no matter of rounding.
    """
    n = np.broadcast_to(np.maximum(count, 1), sums.total.shape)
    if n.max(initial=0) <= EXACT:
        whole, rest = np.divmod(n * sums.squares - sums.total**2, n * n)
        values = whole + rest / (n * n)
    else:
        spread = n * sums.squares.astype(float) - sums.total.astype(float) ** 2
        values = spread / n.astype(float) ** 2
    values[sums.scanned == 0] = np.nan
    values[sums.unread > 0] = np.inf
    return values
