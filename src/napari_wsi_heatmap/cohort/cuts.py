"""Where a map is cut into row bands: along its chunks, with about as many windows in each."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.growing import CHUNK, DENSE_CHUNK
from napari_wsi_heatmap.states import OUTSIDE, PENDING, STATE_BITS, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame

    States = NDArray[np.uint8]
    Rows = NDArray[np.bool_]
    Cut = tuple[int, int]


def chunk_of(frame: MapFrame) -> int:
    """Cells along a chunk of a map."""
    return DENSE_CHUNK if frame.dense else CHUNK


def cut_rows(frame: MapFrame, state: States, parts: int) -> tuple[Cut, ...]:
    """Cut a map into at most so many bands of whole rows of chunks.

    Returns
    -------
    tuple of (first, last)
        Rows of cells, `last` not included; rows of chunks without a window to compute are in no
        band, or in one with others.
    """
    side, height = chunk_of(frame), frame.shape[1]
    pending = np.count_nonzero(state_of(state) == PENDING, axis=1)
    weights = np.array([
        int(pending[touching(frame, (y, y + side))].sum()) for y in range(0, height, side)
    ])  # fmt: skip
    done = np.concatenate([[0], weights.cumsum()])
    wanted = np.arange(1, parts) * done[-1] / parts
    inner = np.searchsorted(done, wanted)
    ends = np.unique([0, *inner.tolist(), len(weights)]).tolist()
    pairs = [(a, b) for a, b in pairwise(ends) if done[b] > done[a]]
    return tuple((a * side, min(b * side, height)) for a, b in pairs)


def touching(frame: MapFrame, cut: Cut) -> Rows:
    """Rows of windows (Y,) that have a cell in a band: these decide its values."""
    first = frame.offsets[0]
    return (first < cut[1]) & (first + frame.patch_cells[0] > cut[0])


def owned(frame: MapFrame, cut: Cut) -> Rows:
    """Rows of windows (Y,) whose states a band tells: their first cell lies in it."""
    first = frame.offsets[0]
    return (first >= cut[0]) & (first < cut[1])


def state_of_band(frame: MapFrame, state: States, cut: Cut) -> States:
    """Planned states (Y, X) with only the windows of a band left to compute."""
    left_out = (state_of(state) == PENDING) & ~touching(frame, cut)[:, None]
    return np.where(left_out, state & ~np.uint8(STATE_BITS) | np.uint8(OUTSIDE), state)
