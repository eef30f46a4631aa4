"""How far windows that lie over the same place differ there: what to trust less.

Where windows overlap, each place is seen in several surroundings. A model that is sure says the
same in all of them. Of a map with one value a window this is taken from the finished map, cell by
cell: `Heatmap.disagreement`. Of a dense map the values that were blended are gone by then, so they
are compared while it grows (``disagreement=True``), and the result is a channel of its own.

The measure is the standard deviation of the population, weighted as the blend is: 0 where one
window alone lies over a cell, NaN where none does. What is given is given in grid order and summed
in float64, so the same windows give the same bits whenever they were computed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.blend import CHANNELS_AT_ONCE
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.frame import MapFrame, frame_to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.blend import Part
    from napari_wsi_heatmap.growing import Values
    from napari_wsi_heatmap.heatmap import Heatmap

    Sums = NDArray[np.float64]

KIND: Final = "disagreement"
"""Of a heatmap that no model computed, in its record; and the name of the channel."""


def spread_parts(parts: list[Part], shape: tuple[int, int, int]) -> Values:
    """Compare what windows gave over one block of cells.

    Parameters
    ----------
    parts : list
        In grid order, as for `blend.blend_parts`.
    shape : (int, int, int)
        (C, height, width) of the block.

    Returns
    -------
    (height, width) float32
        √(Σ w·(x − m)² / Σ w) with m = Σ w·x / Σ w; of several channels the root of the mean of
        its squares. NaN where no window gave a value.
    """
    total, count = np.zeros(shape[1:]), np.zeros(shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):  # a model may return what is not finite
        for first in range(0, shape[0], CHANNELS_AT_ONCE):
            channels = slice(first, min(shape[0], first + CHANNELS_AT_ONCE))
            some = [(at, values[channels], weights) for at, values, weights in parts]
            variance = _variance(some, (channels.stop - channels.start, *shape[1:]))
            there = ~np.isnan(variance)
            total += np.where(there, variance, 0).sum(0)
            count += there.sum(0)
        spread: Values = np.sqrt(total / count).astype(np.float32)
    return spread


def _variance(parts: list[Part], shape: tuple[int, ...]) -> Sums:
    """(C, h, w): NaN where there is no value, or one that is not finite."""
    weight, total, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for at, values, weights in parts:
        missing = np.isnan(values)
        weight[:, *at] += np.where(missing, 0, weights)
        total[:, *at] += np.where(missing, 0, values * weights)
    mean = total / weight
    for at, values, weights in parts:
        apart = np.square(values - mean[:, *at]) * weights
        squares[:, *at] += np.where(np.isnan(values), 0, apart)
    return squares / weight


def disagreement(heatmap: Heatmap) -> Heatmap:
    """How far the windows over each place differ there.

    Parameters
    ----------
    heatmap : Heatmap
        With one value a window: of windows at most half a window apart along one axis. Dense:
        computed with ``disagreement=True``. It need not be whole.

    Returns
    -------
    Heatmap
        In memory. With one value a window: of each output (not of channels of uncertainty) the
        standard deviation over all windows that lie over a cell as a whole; a cell is as large as
        the stride, and the map reaches as far as the windows do. Dense: the channel that was kept.

    Raises
    ------
    GridError
        If no place lies in two windows, they lie on no lattice, or nothing was kept.

    Notes
    -----
    Takes two passes over the map for each window over a cell; for w windows along a window and
    both axes w². Memory bound: the result, and five maps of one channel in float64.
    """
    if heatmap.run.get("kind") == KIND:
        raise GridError("it is a disagreement already", _title(heatmap))
    if heatmap.state.ndim != 2:
        raise GridError("its windows lie on no lattice", _title(heatmap))
    if heatmap.frame.dense:
        return _kept(heatmap)
    frame = overlap_frame(heatmap)
    outputs = len(heatmap.names) - len(heatmap.uncertainty)
    values = np.stack([_apart(heatmap, frame, channel) for channel in range(outputs)])
    return _described(heatmap, replace(frame, channels=outputs), values, heatmap.names[:outputs])


def overlap_frame(heatmap: Heatmap) -> MapFrame:
    """Where cells as large as the stride lie, each window over a whole number of them.

    Raises
    ------
    GridError
        If each window has only one.
    """
    spec = heatmap.grid.spec
    over = tuple(max(1, n // s) for n, s in zip(spec.footprint, spec.stride, strict=True))
    if over == (1, 1):
        raise GridError(
            f"windows of {spec.footprint[0]} px that are {spec.stride[0]} px apart overlap too "
            "little to be compared",
            _title(heatmap),
            "choose a stride of at most half the window",
        )
    cell = float(spec.stride[0]), float(spec.stride[1])
    return MapFrame(heatmap.grid, len(heatmap.names), (over[0], over[1]), cell)


def _apart(heatmap: Heatmap, frame: MapFrame, channel: int) -> Values:
    """Standard deviation (My, Mx) of one channel over the windows over each cell."""
    values = heatmap.values[channel].astype(np.float64)
    there = ~np.isnan(values)
    count, total, squares = (np.zeros(frame.shape[1:]) for _ in range(3))
    for at in _places(frame):
        _add(count, at, there)
        _add(total, at, np.where(there, values, 0))
    with np.errstate(invalid="ignore", over="ignore"):
        mean = total / count
        for at in _places(frame):
            _add(squares, at, np.where(there, np.square(values - mean[at]), 0))
        spread: Values = np.sqrt(squares / count).astype(np.float32)
    return spread


def _places(frame: MapFrame) -> Iterator[Any]:
    """For each of the cells of a window the rows and columns of it, of all windows."""
    rows, cols = frame.offsets
    regular = all((np.diff(firsts) == 1).all() for firsts in (rows, cols))
    for down, across in np.ndindex(*frame.patch_cells):
        if regular:
            yield np.s_[down : down + len(rows), across : across + len(cols)]
        else:
            yield (rows + down)[:, None], (cols + across)[None, :]


def _add(total: Sums, at: Any, values: NDArray[Any]) -> None:
    if isinstance(at[0], slice):
        total[at] += values
    else:  # windows that were moved inside may lie over the cells of others
        np.add.at(total, at, values)


def _kept(heatmap: Heatmap) -> Heatmap:
    if KIND not in heatmap.uncertainty:
        raise GridError(
            "what dense windows gave was blended, and how far they differed was not kept",
            _title(heatmap),
            "run it with disagreement=True, and a stride shorter than the window",
        )
    channel = heatmap.names.index(KIND)
    values = heatmap.values[channel : channel + 1]
    return _described(heatmap, replace(heatmap.frame, channels=1), values, (KIND,))


def _described(
    heatmap: Heatmap, frame: MapFrame, values: Values, names: tuple[str, ...]
) -> Heatmap:
    from napari_wsi_heatmap.heatmap import Heatmap

    model = {
        **heatmap.run["model"],
        **{"spec": None, "sha256": None, "output": None, "activation": None, "limits": None},
        **{"name": f"{_title(heatmap)} {KIND}", "names": list(names), "uncertainty": []},
    }
    path = heatmap.path and str(heatmap.path)
    record: dict[str, Any] = {
        "kind": KIND,
        "model": model,
        "frame": frame_to_json(frame),
        "notices": [],
        "of": [{"path": path, "plan_sha256": heatmap.run.get("plan_sha256")}],
        **{key: heatmap.run[key] for key in _SAME if key in heatmap.run},
    }
    return Heatmap(values, heatmap.state, frame, record)


_SAME: Final = ("status", "reason", "slide", "settings", "counts", "failed")
"""What the record of a disagreement says as that of the heatmap does."""


def _title(heatmap: Heatmap) -> str:
    return str(heatmap.run["model"]["name"])
