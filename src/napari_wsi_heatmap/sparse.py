"""How thin the first pass over a slide must be so that it costs little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]

SPARSE_SHARE = 0.05
"""The sparse pass may touch this share of the tiles: what it decodes is decoded again later."""


def sparse_step(grid: WindowGrid, pending: Mask, tile: tuple[int, int]) -> int:
    """Smallest power of two whose every n-th window touches at most 5 % of the planned tiles.

    Returns
    -------
    int
        At least 1; no larger than what still leaves a few windows.
    """
    planned = tiles_touched(grid, pending, tile)
    step = 1
    while step < max(grid.shape):
        if tiles_touched(grid, pending, tile, step) <= SPARSE_SHARE * planned:
            break
        step *= 2
    return step


def tiles_touched(grid: WindowGrid, chosen: Mask, tile: tuple[int, int], step: int = 1) -> int:
    """Number of tiles that hold a pixel of a chosen window (Y, X), of every `step`-th only.

    Notes
    -----
    Memory bound: eight bytes a window.
    """
    chosen = chosen[::step, ::step]
    table = np.zeros(np.add(chosen.shape, 1), np.int32)  # windows above and left of a node
    np.cumsum(chosen, 0, dtype=np.int32, out=table[1:, 1:])
    np.cumsum(table, 1, out=table)
    (top, bottom), (left, right) = (
        _windows_over_tiles(starts[::step], side, length)
        for starts, side, length in zip(grid.starts, grid.spec.footprint, tile, strict=True)
    )
    band = table[bottom] - table[top]
    return int(np.count_nonzero(band[:, right] != band[:, left]))


def _windows_over_tiles(starts: Index, side: int, tile: int) -> tuple[Index, Index]:
    """First and last + 1 of the windows (n,) along one axis that touch each of its tiles."""
    edges = np.arange(0, int(starts[-1]) + side, tile)
    return np.searchsorted(starts + side, edges, "right"), np.searchsorted(starts, edges + tile)
