"""Which windows lie over a point of the slide.

Points are level-0 pixels; whole numbers are centres of pixels, as in `Heatmap.centres`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

    Index = NDArray[np.int64]


def windows_at(heatmap: Heatmap, y: float, x: float) -> Index:
    """Flat indices (n,) of the windows that cover a point, in whatever state, in grid order."""
    grid, point = heatmap.grid, np.array((y, x)) + 0.5  # from the border of pixel 0
    if isinstance(grid, WindowList):
        first = grid.positions(np.arange(grid.size))
        inside = (first <= point) & (point < first + grid.spec.footprint_level0)
        return np.flatnonzero(inside.all(1))
    rows, cols = (
        np.flatnonzero((span[:, 0] <= at) & (at < span[:, 1]))
        for span, at in zip(grid.spans_level0, point.tolist(), strict=True)
    )
    return (rows[:, None] * grid.shape[1] + cols).ravel()


def window_meant(heatmap: Heatmap, y: float, x: float) -> tuple[int | None, Index]:
    """The window that somebody means who clicks a point, and all that cover it.

    It is the one whose centre is nearest, which is the one whose cell is drawn there; of those
    that are computed, if any is. Where windows leave gaps, it is that of the cell.

    Returns
    -------
    index : int or None
        None where there is none.
    covering : (n,) int64
    """
    covering = windows_at(heatmap, y, x)
    if not len(covering):
        return _of_cell(heatmap, y, x), covering
    done = covering[state_of(heatmap.state.ravel()[covering]) == DONE]
    candidates = done if len(done) else covering
    # In windows' sides, so that none is nearer for being flatter.
    away = (_centres(heatmap, candidates) - (y, x)) / heatmap.window_size
    return int(candidates[np.argmin((away**2).sum(1))]), covering


def _centres(heatmap: Heatmap, index: Index) -> NDArray[np.float64]:
    return heatmap.grid.positions(index) + (np.asarray(heatmap.window_size) - 1) / 2


def _of_cell(heatmap: Heatmap, y: float, x: float) -> int | None:
    """The window whose cell lies over a point that no window covers."""
    frame, grid = heatmap.frame, heatmap.grid
    # Neither of a dense map nor of a list off any lattice is a cell that of one window.
    if frame.dense or not getattr(frame, "on_lattice", True):
        return None
    index = np.arange(grid.size) if isinstance(grid, WindowList) else _nearest(heatmap, y, x)
    away = np.abs(_centres(heatmap, index) - (y, x))
    over = index[(away <= np.asarray(frame.scale) / 2).all(1)]
    return int(over[0]) if len(over) else None


def _nearest(heatmap: Heatmap, y: float, x: float) -> Index:
    """(1,) the window of a lattice whose centre is nearest."""
    spans = heatmap.grid.spans_level0
    row, col = (
        int(np.argmin(np.abs(span.mean(1) - 0.5 - at)))
        for span, at in zip(spans, (y, x), strict=True)
    )
    return np.array([row * heatmap.grid.shape[1] + col])
