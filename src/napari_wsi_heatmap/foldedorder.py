"""Which windows of a list next: neighbours together, those that are looked at first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.blocks import REGION_SIDE
from napari_wsi_heatmap.folded import FoldedGrid
from napari_wsi_heatmap.order import GridOrder, Region, region_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.order import Box, Polygon

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]


class FoldedOrder:
    """Hands out the pending windows of a list, those of one square of `REGION_SIDE` px at a time.

    Parameters
    ----------
    grid : FoldedGrid
    pending : (Y, X) bool
    most : int, optional
        Windows in a region at most.
    viewport : (y0, x0, y1, x1), optional
        What somebody looks at, level-0 pixels.
    """

    def __init__(
        self,
        grid: FoldedGrid,
        pending: Mask,
        most: int | None = None,
        viewport: Box | None = None,
    ) -> None:
        self._grid, self._lock = grid, threading.Lock()
        self._parts = _squares(grid, np.flatnonzero(pending), most or max(1, pending.size))
        self._parts.reverse()  # the next one is taken from the end
        if viewport is not None:
            self.look_at(viewport)

    def take(self) -> Region | None:
        """Next region, or None when every pending window was handed out."""
        with self._lock:
            part = self._parts.pop() if self._parts else None
        return None if part is None else region_of(part, self._grid)

    def look_at(self, place: Box | Sequence[Polygon]) -> None:
        """Put first what is nearest to a box, or to what was drawn; level-0 pixels."""
        y, x = _middle(place)
        with self._lock:
            self._parts.sort(key=lambda part: -self._how_far(part, y, x))

    def _how_far(self, part: Index, y: float, x: float) -> float:
        """Squared distance of the middle of some windows from a place."""
        half = np.asarray(self._grid.spec.footprint_level0) / 2
        middle = self._grid.positions(part).mean(0) + half
        return float(((middle - (y, x)) ** 2).sum())


def _squares(grid: FoldedGrid, index: Index, most: int) -> list[Index]:
    """Windows (n,) parted by the square that they begin in, row by row of squares."""
    if not len(index):
        return []
    squares = grid.origins(index) // REGION_SIDE
    order = np.lexsort((index, squares[:, 1], squares[:, 0]))
    breaks = np.flatnonzero(np.diff(squares[order], axis=0).any(1)) + 1
    whole = np.split(index[order], breaks)
    return [part[at : at + most] for part in whole for at in range(0, len(part), most)]


def _middle(place: Any) -> tuple[float, float]:
    if len(place) == 4 and all(np.ndim(side) == 0 for side in place):
        return (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
    y, x = np.concatenate([np.asarray(polygon, np.float64) for polygon in place]).mean(0)
    return float(y), float(x)


def order_of(
    grid: WindowGrid,
    pending: Mask,
    tile: tuple[int, int],
    order: str,
    viewport: Box | None,
    *,
    most: int,
    **options: Any,
) -> GridOrder | FoldedOrder:
    """Order of the pending windows of a grid, or of a list that is folded into one."""
    if isinstance(grid, FoldedGrid):
        return FoldedOrder(grid, pending, most, viewport if order == "viewport" else None)
    return GridOrder(grid, pending, tile, order, viewport, most=most, **options)
