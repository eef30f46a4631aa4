"""Windows of a list, neighbours together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.blocks import REGION_SIDE
from napari_wsi_heatmap.order import Region, region_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]


class ListOrder:
    """Hands out windows of a list, neighbours together: those of one cell of a coarse lattice.

    Parameters
    ----------
    windows : WindowList
    pending : (N,) bool
    """

    def __init__(self, windows: WindowList, pending: Mask) -> None:
        self._lock = threading.Lock()
        self._regions = self._lay_out(windows, np.flatnonzero(pending))

    def take(self) -> Region | None:
        """Next region, or None when every pending window was handed out."""
        with self._lock:
            return next(self._regions, None)

    @staticmethod
    def _lay_out(windows: WindowList, index: Index) -> Iterator[Region]:
        if not len(index):
            return
        cells = windows.origins(index) // REGION_SIDE
        order = np.lexsort((index, cells[:, 1], cells[:, 0]))
        breaks = np.flatnonzero(np.diff(cells[order], axis=0).any(1)) + 1
        for part in np.split(index[order], breaks):
            yield region_of(part, windows)
