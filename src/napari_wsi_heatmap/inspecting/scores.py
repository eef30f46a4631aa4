"""Values of the windows that are done, channel by channel, and where one of them stands.

A map may have thousands of channels (features drawn as such): never are all of them copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.listmap import ListHeatmap
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

    Values = NDArray[np.float32]
    Index = NDArray[np.int64]


@dataclass(frozen=True)
class Rank:
    """Where a value stands among those of all windows of a map that are done."""

    place: int
    """1 is the highest; equal values share the better place."""
    of: int
    """Number of windows that have a finite value."""
    percentile: float
    """100 · (mean rank from below) / n: the highest has 100, as CLAM's percentiles have it."""


class Scores:
    """Values of the windows that are done, as they are now.

    Parameters
    ----------
    heatmap : Heatmap
        May grow; of one that did, make new ones.

    Attributes
    ----------
    index : (n,) int64
        Flat indices of the windows, in grid order.
    """

    def __init__(self, heatmap: Heatmap) -> None:
        self._heatmap = heatmap
        self.index: Index = np.flatnonzero(state_of(heatmap.state) == DONE)

    @cached_property
    def _means(self) -> Values:
        """(n, C) means over the cells of each window of a dense map."""
        index, values = self._heatmap.window_values()
        # More windows may be done by now.
        return values[np.searchsorted(index, self.index)]

    def channel(self, channel: int) -> Values:
        """Values (n,) of one output."""
        heatmap = self._heatmap
        if isinstance(heatmap, ListHeatmap):
            return heatmap.listed[self.index, channel]
        if heatmap.frame.dense:
            return self._means[:, channel]
        return heatmap.values[channel].ravel()[self.index]

    def rank(self, value: float, channel: int) -> Rank | None:
        """Where a value stands among those of a channel; None of one that is not finite."""
        if not np.isfinite(value):
            return None
        return rank_among(value, self.channel(channel))


def rank_among(value: float, values: Values) -> Rank:
    """Where a value stands among others (n,), itself one of them; those not finite left out."""
    finite = values[np.isfinite(values)]
    above, equal = int((finite > value).sum()), int((finite == value).sum())
    below = len(finite) - above - equal
    share = (below + (equal + 1) / 2) / len(finite) if len(finite) else np.nan
    return Rank(above + 1, len(finite), 100 * min(1.0, float(share)))


def values_of(heatmap: Heatmap, index: int) -> Values:
    """Values (C,) of a window; of a dense map the means over its cells. NaN if it has none."""
    if isinstance(heatmap, ListHeatmap):
        return np.array(heatmap.listed[index], np.float32)
    if not heatmap.frame.dense:
        row, col = divmod(index, heatmap.grid.shape[1])
        return np.array(heatmap.values[:, row, col], np.float32)
    cells = heatmap.values[:, *heatmap.frame.box(index)]
    finite = np.isfinite(cells)
    with np.errstate(invalid="ignore"):
        return np.where(finite, cells, 0).sum((1, 2)) / finite.sum((1, 2))


def values_at(heatmap: Heatmap, y: float, x: float) -> Values | None:
    """Values (C,) of the cell of the map over a point, level-0 pixels; None beside the map."""
    frame = heatmap.frame
    row, col = (
        int(np.rint((at - first) / step))
        for at, first, step in zip((y, x), frame.offset, frame.scale, strict=True)
    )
    inside = 0 <= row < frame.shape[1] and 0 <= col < frame.shape[2]
    return np.array(heatmap.values[:, row, col], np.float32) if inside else None


def is_list(heatmap: Heatmap) -> bool:
    """Whether its windows lie on no lattice."""
    return isinstance(heatmap.grid, WindowList)
