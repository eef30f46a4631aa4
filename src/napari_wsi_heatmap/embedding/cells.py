"""Windows as cells of a picture: what is known of each window, where it lies on the slide.

Windows of a grid are a cell each, also of a dense map. Those of a list lie on the cells of its
display map; where windows overlap a cell is that of the window whose centre is nearest. Nothing
is averaged: what is painted may be labels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.listmap import ListFrame


@dataclass(frozen=True)
class WindowCells:
    """Where windows are painted; cell i has its centre at ``offset + i * scale``."""

    offset: tuple[float, float]
    """(y, x) of the centre of cell (0, 0), level-0 pixels."""
    scale: tuple[float, float]
    """(y, x) level-0 pixels from one cell to the next."""
    windows: NDArray[np.int32]
    """(My, Mx) flat index of the window of each cell, -1 where there is none."""
    lattice: tuple[int, ...]
    """(Y, X) of a grid, (N,) of a list."""

    def paint(self, values: NDArray[Any], nothing: Any = np.nan) -> NDArray[Any]:
        """Lay values of windows on the cells.

        Parameters
        ----------
        values : (Y, X, …) or (N, …)
        nothing : scalar
            Where there is no window.

        Returns
        -------
        (My, Mx, …)
        """
        flat = values.reshape(-1, *values.shape[len(self.lattice) :])
        painted = np.full((*self.windows.shape, *flat.shape[1:]), nothing, values.dtype)
        there = self.windows >= 0
        painted[there] = flat[self.windows[there]]
        return painted

    def window_at(self, y: float, x: float) -> int | None:
        """Flat index of the window that a place is painted as; level-0 pixels."""
        place = (np.array([y, x]) - self.offset) / self.scale
        row, col = np.rint(place).astype(np.int64).tolist()
        height, width = self.windows.shape
        if not (0 <= row < height and 0 <= col < width):
            return None
        window = int(self.windows[row, col])
        return None if window < 0 else window


def cells_of(heatmap: Heatmap) -> WindowCells:
    """Where the windows of a heatmap are painted."""
    if heatmap.state.ndim == 1:
        return _of_list(heatmap, cast("ListFrame", heatmap.frame))
    spec, shape = heatmap.grid.spec, heatmap.grid.shape
    down, (height, width) = spec.downsample, spec.footprint_level0
    windows = np.arange(heatmap.grid.size, dtype=np.int32).reshape(shape)
    scale = spec.stride[0] * down[0], spec.stride[1] * down[1]
    return WindowCells(((height - 1) / 2, (width - 1) / 2), scale, windows, shape)


def _of_list(heatmap: Heatmap, frame: ListFrame) -> WindowCells:
    windows = np.full(frame.shape[1:], -1, np.int32)
    nearest = np.full(frame.shape[1:], np.inf, np.float32)
    done = np.flatnonzero(state_of(np.array(heatmap.state)) == DONE)
    centres, side = heatmap.centres[done], _cells_along(frame)
    first = np.rint((centres - frame.offset) / frame.scale - (side - 1) / 2).astype(np.int64)
    for step in itertools.product(*map(range, side.tolist())):
        cell = first + step
        away = np.square(frame.offset + cell * np.asarray(frame.scale) - centres).sum(1)
        _take(windows, nearest, done, cell, away)
    return WindowCells(frame.offset, frame.scale, windows, heatmap.state.shape)


def _cells_along(frame: ListFrame) -> NDArray[np.int64]:
    """(down, across) cells of a window."""
    if frame.on_lattice:
        return np.ones(2, np.int64)
    sides = np.asarray(frame.grid.spec.footprint_level0) / frame.scale
    return np.maximum(1, np.rint(sides)).astype(np.int64)


def _take(windows: Any, nearest: Any, done: Any, cell: Any, away: Any) -> None:
    """Give a cell to each window, where none that is nearer has it."""
    inside = ((cell >= 0) & (cell < windows.shape)).all(1)
    # Of several assignments to one cell the last counts: the nearest, and of these the first.
    order = np.lexsort((-done, -away))
    order = order[inside[order]]
    rows, cols = cell[order].T
    nearer = away[order] < nearest[rows, cols]
    rows, cols, order = rows[nearer], cols[nearer], order[nearer]
    windows[rows, cols], nearest[rows, cols] = done[order], away[order]
