"""First minus second, while both grow: where two models that saw the same windows disagree.

The cells of one map lie on those of the other, or there is no difference: nothing is resampled.
`minus` has the difference of heatmaps that are there.

Memory bound: a third map, float32, above `growing.SCRATCH_BYTES` in a scratch file as well.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import GridError, ModelOutputError
from napari_wsi_heatmap.frame import MapFrame
from napari_wsi_heatmap.growing import boxes_of, chunk_box, empty_values
from napari_wsi_heatmap.states import (
    BACKGROUND,
    DONE,
    FAILED,
    OUTSIDE,
    PENDING,
    STATE_BITS,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.growing import Box, GrowingMap, Index, States, Values

    Limits = tuple[float, float]

STRIP = 1024
"""Cells along a side that are subtracted at once where all are."""

_BY_RANK = np.array([DONE, BACKGROUND, OUTSIDE, FAILED, PENDING], np.uint8)
"""What a window is of which one model says this and the other that: the later of the two."""
_RANK = np.full(STATE_BITS + 1, len(_BY_RANK) - 1, np.uint8)
_RANK[_BY_RANK] = np.arange(len(_BY_RANK))


class Difference:
    """The difference of two maps while they grow.

    Parameters
    ----------
    first, second : GrowingMap
        Neither is copied: both hold a window before `update` tells of it.

    Attributes
    ----------
    values : (C, My, Mx) float32
        First minus second; NaN where either has no value yet.
    state : (Y, X) uint8
        A window is done when it is in both maps.
    frame : MapFrame
    version : int
        Grows with every change; a viewer compares it to know whether to draw.

    Raises
    ------
    GridError
        If the maps do not lie on each other.
    ModelOutputError
        If they have not as many channels.
    StoreFullError
        If there is no room for a third map.
    """

    def __init__(self, first: GrowingMap, second: GrowingMap) -> None:
        refuse_other_frames(first.frame, second.frame)
        self._first, self._second, self.frame = first, second, first.frame
        self._side = min(first.tile, first.chunk) if isinstance(first, DenseMap) else 1
        self.values = empty_values(first.frame.shape, "a difference")
        self.state = states_of_both(first.state, second.state)
        self.version = 0
        if (state_of(self.state) != PENDING).any():  # of an earlier session
            for box in boxes_of(self.values.shape[1:], STRIP):
                self._subtract((slice(None), *box))

    @property
    def pending(self) -> NDArray[np.bool_]:
        """(Y, X): windows that either map still lacks."""
        return state_of(self.state) == PENDING

    def update(self, index: Index) -> None:
        """Take over windows (n,) that were put on either map: values first, then states.

        Touches only their cells; of a dense map those of the tiles below them as well, which
        the windows may have completed.
        """
        if self.frame.dense:
            for box in self._tiles(index):
                self._subtract((slice(None), *box))
        else:
            self._subtract((slice(None), *np.divmod(index, self.frame.grid.shape[1])))
        maps = self._first, self._second
        self.state.ravel()[index] = states_of_both(*(m.state.ravel()[index] for m in maps))
        self.version += 1

    def of(self, index: Index) -> Values:
        """Values (m, C) or (m, C, h, w) of those of the windows (n,) that are in both maps."""
        index = index[state_of(self.state.ravel()[index]) == DONE]
        if not self.frame.dense:
            rows, cols = np.divmod(index, self.frame.grid.shape[1])
            return self.values[:, rows, cols].T
        shape = self.frame.channels, *self.frame.patch_cells
        cells = [self.values[:, *self.frame.box(i)] for i in index.tolist()]
        return np.array(cells, np.float32).reshape(-1, *shape)

    def _subtract(self, at: Any) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # a model may return what is infinite
            self.values[at] = self._first.values[at] - self._second.values[at]

    def _tiles(self, index: Index) -> Iterator[Box]:
        tiles: set[tuple[int, int]] = set()
        for i in index.tolist():
            down, across = (
                range(part.start // self._side, -(-part.stop // self._side))
                for part in self.frame.box(i)
            )
            tiles.update(itertools.product(down, across))
        for tile in tiles:
            yield chunk_box(tile, self._side, self.values.shape[1:])


def states_of_both(first: States, second: States) -> States:
    """Join states of the same windows: done is what both call done, pending what either lacks."""
    rank = np.maximum(_RANK[state_of(first)], _RANK[state_of(second)])
    joined: States = _BY_RANK[rank] | ((first | second) & ~np.uint8(STATE_BITS))
    return joined


def difference_name(first: str, second: str) -> str:
    """Name what is subtracted from what."""
    return f"{first} − {second}"


def paired_names(first: Sequence[str], second: Sequence[str], name: str) -> tuple[str, ...]:
    """Names of the outputs of a difference.

    Parameters
    ----------
    first, second : sequence of str
        Names of the outputs.
    name : str
        Of the difference: also that of its one output, if both call theirs the same.

    Raises
    ------
    ModelOutputError
        If there are several, and not the same in both.
    """
    if len(first) == len(second) == 1:
        return (name if first[0] == second[0] else difference_name(first[0], second[0]),)
    if tuple(first) != tuple(second):
        raise ModelOutputError(
            f"the outputs do not belong together: {_listed(first)} and {_listed(second)}",
            name,
            "load the models with the same names, in one order",
        )
    return tuple(first)


def refuse_other_frames(first: MapFrame, second: MapFrame) -> None:
    """Refuse maps whose cells do not lie on each other, naming what differs.

    Raises
    ------
    GridError
    ModelOutputError
        If they have not as many channels.
    """
    if not (isinstance(first, MapFrame) and isinstance(second, MapFrame)):
        raise GridError(
            "a list of windows has no difference", do="subtract what predict_windows gives"
        )
    for name, ours in _places(first).items():
        theirs = _places(second)[name]
        if ours != theirs:
            raise GridError(
                f"the heatmaps lie on different windows: {name} {ours} and {theirs}",
                do="compute both with the same settings, best in one run",
            )
    if first.channels != second.channels:
        raise ModelOutputError(
            f"one heatmap has {first.channels} outputs and the other {second.channels}",
            do="compare models that say the same",
        )


def symmetric(limits: Limits) -> Limits:
    """Limits about 0 that hold both of these: colours then say which of two is larger."""
    most = max(abs(limits[0]), abs(limits[1])) or 1.0
    return -most, most


def _places(frame: MapFrame) -> dict[str, Any]:
    """What decides where the cells of a map lie; how many pixels a model sees does not."""
    grid, spec = frame.grid, frame.grid.spec
    return {
        "level": spec.level,
        "downsample": spec.downsample,
        "level size": grid.level_shape,
        "footprint": spec.footprint,
        "stride": spec.stride,
        "edge": grid.edge,
        "lattice": grid.shape,
        "cells a window": frame.patch_cells,
        "cell": frame.cell,
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f", … ({len(names)})" if len(names) > 4 else "")
