"""Passes over the whole slide before it is worked off in full: few windows, spread evenly.

The lattice is cut into squares of step x step windows, and a pass takes one window of each that
holds any to compute: of those that touch the fewest tiles of the file the one nearest to the
square's middle, so that it may stand for all of them. What a pass decodes is decoded again when
its neighbours are computed; so the first pass is thin, and finer ones follow only where a model
takes so long that reading again does not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]
    Floats = NDArray[np.float64]

SPARSE_SHARE = 0.05
"""The sparse pass may touch this share of the tiles: what it decodes is decoded again later."""
AGAIN_SHARE = 0.05
"""Share of a run's time that reading again, for all further passes together, may cost."""


def sparse_step(grid: WindowGrid, planned: Mask, tile: tuple[int, int]) -> int:
    """Smallest power of two that makes the sparse pass touch at most 5 % of the planned tiles.

    Parameters
    ----------
    grid : WindowGrid
    planned : (Y, X) bool
        All windows of the run, those of earlier sessions included.
    tile : (int, int)
        (height, width) of a decoded tile, pixels of the level read.

    Returns
    -------
    int
        At least 1; no larger than what still leaves a window.
    """
    most = SPARSE_SHARE * tiles_touched(grid, planned, tile)
    step = 1
    while step < max(grid.shape):
        # Of a whole lattice it is known at once; a mask leaves fewer tiles to a window.
        if _share_of_lattice(grid, tile, step) <= SPARSE_SHARE:
            chosen = one_of_each_square(grid, planned, tile, step)
            if tiles_under(grid, chosen, tile) <= most:
                break
        step *= 2
    return step


def nested_steps(
    grid: WindowGrid,
    pending: Mask,
    tile: tuple[int, int],
    step: int,
    seconds_model_per_window: float,
    seconds_per_tile: float,
) -> tuple[int, ...]:
    """Choose the further passes that are worth it: those that cost under 5 % of the run together.

    Parameters
    ----------
    grid : WindowGrid
    pending : (Y, X) bool
        What the sparse pass has left.
    tile : (int, int)
        As for `sparse_step`.
    step : int
        Of the sparse pass.
    seconds_model_per_window : float
    seconds_per_tile : float
        Of the run, not of a reader: several readers share the tiles.

    Returns
    -------
    tuple of int
        Steps, each half of the one before: (step / 2, step / 4, ...), often none.

    Notes
    -----
    The tiles under a further pass are read once more than without it. Reading and computing
    overlap, so the run lasts as long as the slower of the two.
    """
    if seconds_model_per_window <= 0:
        return ()
    model = int(np.count_nonzero(pending)) * seconds_model_per_window
    reading = tiles_touched(grid, pending, tile) * seconds_per_tile
    steps, left = [], AGAIN_SHARE * max(model, reading)
    while step > 2:
        step //= 2
        chosen = one_of_each_square(grid, pending, tile, step)
        left -= tiles_under(grid, chosen, tile) * seconds_per_tile
        if left < 0:
            break
        steps.append(step)
    return tuple(steps)


def one_of_each_square(
    grid: WindowGrid, pending: Mask, tile: tuple[int, int], step: int, known: Mask | None = None
) -> Index:
    """Flat indices (n,) of one pending window of each square, square by square in raster order.

    Parameters
    ----------
    known : (Y, X) bool, optional
        Windows that were computed before: their squares need none.
    """
    costs = [_costs(grid, tile, step, axis) for axis in (0, 1)]
    rows, cols = (_best_of_each(cost, step) for cost in costs)
    wanted = any_in_squares(pending, step)
    if known is not None:
        wanted &= ~any_in_squares(known, step)
    best = rows[:, None] * grid.shape[1] + cols
    there = pending[np.ix_(rows, cols)]
    # Where the best one is not to be computed, at the border of the tissue, the next best is.
    for i, j in zip(*np.nonzero(wanted & ~there), strict=True):
        square = np.s_[i * step : (i + 1) * step], np.s_[j * step : (j + 1) * step]
        y, x = _cheapest(pending[square], costs[0][square[0]], costs[1][square[1]])
        best[i, j] = (i * step + y) * grid.shape[1] + j * step + x
    return best[wanted]


def any_in_squares(mask: Mask, step: int) -> Mask:
    """Whether any window (Y, X) of each square of step x step is marked."""
    down, across = (np.arange(0, side, step) for side in mask.shape)
    return np.logical_or.reduceat(np.logical_or.reduceat(mask, down, 0), across, 1)


def tiles_touched(grid: WindowGrid, chosen: Mask, tile: tuple[int, int]) -> int:
    """Number of tiles that hold a pixel of a chosen window (Y, X).

    Notes
    -----
    Memory bound: eight bytes a window.
    """
    table = np.zeros(np.add(chosen.shape, 1), np.int32)  # windows above and left of a node
    np.cumsum(chosen, 0, dtype=np.int32, out=table[1:, 1:])
    np.cumsum(table, 1, out=table)
    (top, bottom), (left, right) = (
        _windows_over_tiles(starts, side, length)
        for starts, side, length in zip(grid.starts, grid.spec.footprint, tile, strict=True)
    )
    band = table[bottom] - table[top]
    return int(np.count_nonzero(band[:, right] != band[:, left]))


def tiles_under(grid: WindowGrid, index: Index, tile: tuple[int, int]) -> int:
    """Number of tiles that hold a pixel of some windows, given by their flat indices (n,)."""
    if not len(index):
        return 0
    spans = [_tile_spans(grid, tile, axis) for axis in (0, 1)]
    (top, bottom), (left, right) = (
        span[:, at] for span, at in zip(spans, np.divmod(index, grid.shape[1]), strict=True)
    )
    touched = np.zeros((int(spans[0].max()) + 1, int(spans[1].max()) + 1), bool)
    for down, across in np.ndindex(int((bottom - top).max()) + 1, int((right - left).max()) + 1):
        touched[np.minimum(top + down, bottom), np.minimum(left + across, right)] = True
    return int(np.count_nonzero(touched))


def _windows_over_tiles(starts: Index, side: int, tile: int) -> tuple[Index, Index]:
    """First and last + 1 of the windows (n,) along one axis that touch each of its tiles."""
    edges = np.arange(0, int(starts[-1]) + side, tile)
    return np.searchsorted(starts + side, edges, "right"), np.searchsorted(starts, edges + tile)


def _tile_spans(grid: WindowGrid, tile: tuple[int, int], axis: int) -> Index:
    """First and last tile (2, n) under each window along one axis."""
    starts = grid.starts[axis]
    return np.stack([starts, starts + grid.spec.footprint[axis] - 1]) // tile[axis]


def _costs(grid: WindowGrid, tile: tuple[int, int], step: int, axis: int) -> Floats:
    """Cost (n,) of each window along one axis: tiles, then distance from the square's middle.

    The distance decides only between windows that touch equally many.
    """
    first, last = _tile_spans(grid, tile, axis)
    place = np.arange(len(first))
    begin = place // step * step
    middle = (begin + np.minimum(begin + step, len(first)) - 1) / 2
    return last - first + 1 + 1e-3 * ((place - middle) / step) ** 2


def _best_of_each(cost: Floats, step: int) -> Index:
    """Places (m,) of the cheapest of each `step` costs (n,) in a row."""
    padded = np.full((-(-len(cost) // step), step), np.inf)
    padded.ravel()[: len(cost)] = cost
    return padded.argmin(1) + np.arange(len(padded)) * step


def _cheapest(pending: Mask, down: Floats, across: Floats) -> tuple[int, int]:
    """Row and column of the pending window of a square that costs least."""
    cost = np.where(pending, down[:, None] * across, np.inf)
    y, x = divmod(int(np.argmin(cost)), cost.shape[1])
    return y, x


def _share_of_lattice(grid: WindowGrid, tile: tuple[int, int], step: int) -> float:
    """Share of the tiles that a pass touches if every window of the lattice is to be computed."""
    share = 1.0
    for axis in (0, 1):
        spans = _tile_spans(grid, tile, axis)
        best = _best_of_each(_costs(grid, tile, step, axis), step)
        share *= _distinct(spans[:, best]) / _distinct(spans)
    return share


def _distinct(spans: Index) -> int:
    """Number of different tiles in ascending spans (2, n)."""
    first, last = spans
    seen = np.concatenate([[-1], np.maximum.accumulate(last)[:-1]])
    return int(np.maximum(0, last - np.maximum(first, seen + 1) + 1).sum())
