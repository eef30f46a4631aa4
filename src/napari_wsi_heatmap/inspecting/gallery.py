"""Windows of a map worth looking at: the highest, the lowest, or some by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.inspecting import WHICH
from napari_wsi_heatmap.inspecting.scores import Scores
from napari_wsi_heatmap.overlay import channel_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

    Index = NDArray[np.int64]


@dataclass(frozen=True)
class Gallery:
    """Windows that were chosen from a map."""

    which: str
    name: str
    """Of the output."""
    index: Index
    """(n,) flat indices, in the order in which they are shown."""
    positions: NDArray[np.float64]
    """(n, 2) top-left (y, x), level-0 pixels."""
    size: tuple[float, float]
    """(height, width) of a window, level-0 pixels."""
    values: NDArray[np.float32]
    """(n,)"""
    places: Index
    """(n,) places among all values of the output: 1 is the highest, equal ones share it."""
    of: int
    """Number of windows that were chosen from."""

    def __len__(self) -> int:
        return len(self.index)


def gallery(
    heatmap: Heatmap,
    n: int = 16,
    which: str = "top",
    seed: int = 0,
    *,
    channel: int | str = 0,
    apart: bool = False,
    scores: Scores | None = None,
) -> Gallery:
    """Choose windows of a map.

    Parameters
    ----------
    heatmap : Heatmap
        A grid, dense (by the mean of a window's cells) or a list; may still grow.
    n : int
        How many; fewer where there are no more.
    which : {"top", "bottom", "random"}
        The highest values first, the lowest first, or by chance. Of equal ones the first in grid
        order.
    seed : int
        Of chance: the same seed chooses the same windows of the same map.
    channel : int or str
        Index or name of the output.
    apart : bool
        Leave out windows that overlap one chosen before: with a small stride the highest ones
        are else all of one place.
    scores : Scores, optional
        Of the heatmap, made before.

    Returns
    -------
    Gallery
        Windows that are done and have a finite value.

    Raises
    ------
    GridError
        If an argument makes no sense; ExportError if there is no such output.
    """
    _check(n, which, seed)
    number = channel_index(heatmap, channel)
    scores = Scores(heatmap) if scores is None else scores
    values = scores.channel(number)
    finite = np.isfinite(values)
    index, values = scores.index[finite], values[finite]
    order = _ordered(values, which, seed)
    positions = heatmap.grid.positions(index)
    chosen = _apart(positions, order, n, heatmap.window_size) if apart else order[:n]
    rising = np.sort(values)
    return Gallery(
        which,
        heatmap.names[number],
        index[chosen],
        positions[chosen],
        heatmap.window_size,
        values[chosen],
        len(rising) - np.searchsorted(rising, values[chosen], "right") + 1,
        len(values),
    )


def _check(n: int, which: str, seed: int) -> None:
    if which not in WHICH:
        raise GridError(f"which is {which!r}", do=f"choose one of {', '.join(WHICH)}")
    for name, number, least in (("n", n, 1), ("seed", seed, 0)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < least:
            raise GridError(f"{name} is {number!r}", do=f"give a whole number, at least {least}")


def _ordered(values: NDArray[np.float32], which: str, seed: int) -> Index:
    if which == "random":
        return np.random.default_rng(seed).permutation(len(values))
    return np.argsort(-values if which == "top" else values, kind="stable")


def _apart(
    positions: NDArray[np.float64], order: Index, n: int, size: tuple[float, float]
) -> Index:
    """The first `n` in that order of which none overlaps one before."""
    free = np.ones(len(positions), bool)
    chosen: list[int] = []
    for i in order.tolist():
        if len(chosen) == n:
            break
        if free[i]:
            chosen.append(i)
            free &= (np.abs(positions - positions[i]) >= size).any(1)
    return np.array(chosen, np.int64)
