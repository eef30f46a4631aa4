"""What is shown of a map that is not whole: windows to come look like the nearest one computed.

The sparse pass computes one window of each square of the lattice (see `sparse`). Until the others
come, their cells show its value, so that a slide has a rough map long before it has a whole one.
Of a dense model they show the mean of what it gave that window. Only what is shown is filled in:
the map itself, and what is saved of it, holds computed values alone.

Memory bound: a second map, float32; above `growing.SCRATCH_BYTES` in a scratch file as well.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, final

import numpy as np

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.dense import TILE
from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.growing import empty_values
from napari_wsi_heatmap.sparse import any_in_squares, sparse_step
from napari_wsi_heatmap.states import DONE, FAILED, NOT_FINITE, PENDING, state_of
from napari_wsi_heatmap.tilecache import TileCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.slides.base import Slide

    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Values = NDArray[np.float32]
    States = NDArray[np.uint8]


FEWEST_SQUARES = 16
"""A map of fewer would say nothing."""


class RoughMap:
    """Values to show of a map with one cell a window, while some are pending.

    Parameters
    ----------
    computed : (C, Y, X) float32
        The map itself. Not copied, like `state`: both hold a window before `add` tells of it.
    state : (Y, X) uint8
        Of its windows.
    step : int
        Windows along a square of the sparse pass.

    Attributes
    ----------
    values : (C, Y, X) float32
        A window that is done has its own values, one that is pending those of the first that was
        done in its square, every other one NaN.
    version : int
        Grows with every change; a viewer compares it to know whether to draw.
    """

    def __init__(self, computed: Values, state: States, step: int) -> None:
        self.values = empty_values(computed.shape, "a rough map")
        self.version = 0
        self._computed, self._state, self._step = computed, state, step
        # Squares of finer passes are halves of those of the first, which comes first here.
        self._known = {side: _no_square(state.shape, side) for side in _halvings(step)}
        begun = bool((state_of(state) == DONE).any())
        for first in range(0, len(state) if begun else 0, step):
            self._take_over(slice(first, min(len(state), first + step)))

    def _take_over(self, rows: slice) -> None:
        """Show what an earlier session has computed of a band of squares."""
        band = self._cells(rows, 0)
        self.values[:, band] = self._computed[:, band]
        state = self._state[rows]
        down, across = np.nonzero(_of_use(state))
        for side in self._known:
            mixed = any_in_squares(state_of(state) == PENDING, side)
            at = mixed[down // side, across // side]
            self._spread(side, down[at] + rows.start, across[at])

    def add(self, index: Index) -> None:
        """Show windows (flat indices) that were put on the map; touches their squares only."""
        rows, cols = np.divmod(index, self._state.shape[1])
        state = self._state[rows, cols]
        there = state_of(state) != PENDING  # in a run of several models it may be another's
        self._show(rows[there], cols[there])
        good = _of_use(state)
        for side in self._known:
            # Neighbours are part of a block, soon whole: no need to look for something nearer.
            if side == self._step or _apart(rows // side, cols // side):
                self._spread(side, rows[good], cols[good])
        self.version += 1

    def _spread(self, side: int, rows: Index, cols: Index) -> None:
        """Fill squares that know no value yet with the first of these windows."""
        known = self._known[side]
        new = ~known[rows // side, cols // side]
        rows, cols = rows[new], cols[new]
        _, first = np.unique(rows // side * known.shape[1] + cols // side, return_index=True)
        for i, j in zip(rows[first].tolist(), cols[first].tolist(), strict=True):
            known[i // side, j // side] = True
            self._fill((i // side, j // side), side, self._value(i, j))

    def _fill(self, square: tuple[int, int], side: int, value: Values) -> None:
        """Show a value (C,) in the pending windows of a square."""
        rows, cols = (
            slice(i * side, min(length, (i + 1) * side))
            for i, length in zip(square, self._state.shape, strict=True)
        )
        pending = self._empty(rows, cols, state_of(self._state[rows, cols]) == PENDING)
        cells = self.values[:, self._cells(rows, 0), self._cells(cols, 1)]
        cells[:, pending] = value[:, None]

    def _show(self, rows: Index, cols: Index) -> None:
        """Show windows as they are on the map."""
        self.values[:, rows, cols] = self._computed[:, rows, cols]

    def _value(self, row: int, col: int) -> Values:
        """(C,): what stands for the windows around this one."""
        return self._computed[:, row, col]

    def _cells(self, windows: slice, axis: int) -> slice:
        """Cells of a range of windows along one axis."""
        return windows

    def _empty(self, rows: slice, cols: slice, pending: Mask) -> Mask:
        """Cells of windows that nothing is known of, where (y, x) windows are `pending`."""
        return pending


@final
class DenseRoughMap(RoughMap):
    """Values to show of a map with many cells a window, while some are pending.

    A cell belongs to the last window that begins at or before it, however many lie over it.

    Parameters
    ----------
    computed, state, step
        As for `RoughMap`; (C, My, Mx) cells.
    frame : MapFrame
    """

    def __init__(self, computed: Values, state: States, step: int, frame: MapFrame) -> None:
        self._frame = frame
        self._edges = [
            np.append(first, length)
            for first, length in zip(frame.offsets, frame.shape[1:], strict=True)
        ]
        super().__init__(computed, state, step)

    def _show(self, rows: Index, cols: Index) -> None:
        tiles: set[tuple[int, int]] = set()
        for i, j in zip(rows.tolist(), cols.tolist(), strict=True):
            own = self._cells(slice(i, i + 1), 0), self._cells(slice(j, j + 1), 1)
            self.values[:, *own] = self._computed[:, *own]
            box = self._frame.box(i * self._state.shape[1] + j)
            down, across = (range(part.start // TILE, -(-part.stop // TILE)) for part in box)
            tiles.update(itertools.product(down, across))
        for y, x in tiles:  # a window may complete any tile under it, and so change its neighbours
            tile = np.s_[:, y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
            known = self._computed[tile]
            np.copyto(self.values[tile], known, where=~np.isnan(known))

    def _value(self, row: int, col: int) -> Values:
        output = self._computed[:, *self._frame.box(row * self._state.shape[1] + col)]
        known = ~np.isnan(output)
        total = np.where(known, output, 0).sum((1, 2), dtype=np.float64)
        return (total / np.maximum(1, known.sum((1, 2)))).astype(np.float32)

    def _cells(self, windows: slice, axis: int) -> slice:
        edges = self._edges[axis]
        return slice(int(edges[windows.start]), int(edges[windows.stop]))

    def _empty(self, rows: slice, cols: slice, pending: Mask) -> Mask:
        down, across = (
            np.diff(edges[part.start : part.stop + 1])
            for edges, part in zip(self._edges, (rows, cols), strict=True)
        )
        # Cells of a pending window may be known from those that overlap it.
        known = self._computed[0, self._cells(rows, 0), self._cells(cols, 1)]
        return pending.repeat(down, 0).repeat(across, 1) & np.isnan(known)


def rough_map(slide: Slide, frame: MapFrame, computed: Values, state: States) -> RoughMap | None:
    """Make what is shown of a map that is not whole.

    Returns
    -------
    RoughMap or None
        None for a map so small that it is whole before somebody could make sense of a few
        squares, and where there is no room for a second one.

    Notes
    -----
    Slow on lattices of millions of windows: a fraction of a second.
    """
    planned = np.isin(state_of(state), (PENDING, DONE, FAILED))
    if not planned.any():
        return None
    tile = CachedSlide(slide, TileCache(0)).tile_shape(frame.grid.spec.level)
    step = sparse_step(frame.grid, planned, tile)
    if np.count_nonzero(any_in_squares(planned, step)) < FEWEST_SQUARES:
        return None
    try:
        if frame.dense:
            return DenseRoughMap(computed, state, step, frame)
        return RoughMap(computed, state, step)
    except StoreFullError:  # the map itself will do
        return None


def _of_use(state: States) -> NDArray[np.bool_]:
    """Windows whose values may stand for those around them."""
    return (state_of(state) == DONE) & (state & NOT_FINITE == 0)


def _apart(rows: Index, cols: Index) -> bool:
    """Whether no two of some places are the same."""
    return len(set(zip(rows.tolist(), cols.tolist(), strict=True))) == len(rows)


def _halvings(step: int) -> list[int]:
    """The step, its half, and so on down to 2."""
    return [step >> n for n in range(max(1, step.bit_length() - 1))]


def _no_square(shape: tuple[int, ...], side: int) -> NDArray[np.bool_]:
    """A flag for each square of a lattice (Y, X)."""
    return np.zeros([-(-length // side) for length in shape], bool)
