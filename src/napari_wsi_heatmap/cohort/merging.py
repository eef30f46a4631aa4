"""Bands of a map brought together in one store.

As while a run goes on, features and values are written before the states that call them done: a
merge that is killed is done again, and a store that it has begun is never wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.cohort.cuts import owned
from napari_wsi_heatmap.features import CHUNK as FEATURE_CHUNK
from napari_wsi_heatmap.features import FeatureBlock
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.runfolder import is_store, read_record
from napari_wsi_heatmap.states import DONE, FAILED, state_of
from napari_wsi_heatmap.store import STATE_CHUNK, HeatmapStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.cohort.cuts import Cut
    from napari_wsi_heatmap.share import Share

    Rows = NDArray[np.bool_]
    States = NDArray[np.uint8]


def fill_from(bands: Sequence[tuple[Cut, Path]], share: Share) -> None:
    """Write what bands have computed into the output of a whole run.

    Parameters
    ----------
    bands : sequence of (rows of cells, store)
    share : Share
        Of the whole run, planned and not begun.

    Raises
    ------
    StoreError
        If a band cannot be read, or the output cannot be written.
    """
    target, frame = _target(share), share.plan.frame
    state, failures = share.plan.selection.state.copy(), dict(share.output.failures)
    try:
        for cut, path in bands:
            band, rows = HeatmapStore.open(path), owned(frame, cut)
            state[rows] = band.state[rows]
            failures |= {int(i): str(why) for i, why in read_record(path)["failed"]}
            _copy_features(band, target, state, rows)
            _copy_values(band, target, cut, share.growing.chunk)
        for box in boxes_of(state.shape, STATE_CHUNK):
            target.write_state(box, state[box])
        lost = set(np.flatnonzero(state_of(state) == FAILED).tolist())
        failed = sorted((i, why) for i, why in failures.items() if i in lost)
        target.write_record(share.output.record | {"failed": failed})
    finally:
        target.release()


def _target(share: Share) -> HeatmapStore:
    path, growing = share.output.path, share.growing
    assert path is not None
    if is_store(path):
        store = HeatmapStore.open(path)
        store.lock()
        return store
    return HeatmapStore.create(
        path, share.plan.frame, growing.state, growing.chunk, share.output.record, growing.unsaved
    )


def _copy_values(band: HeatmapStore, target: HeatmapStore, cut: Cut, side: int) -> None:
    width = band.values.shape[2]
    for top in range(*cut, side):
        for left in range(0, width, side):
            box = slice(top, min(top + side, cut[1])), slice(left, min(left + side, width))
            values = band.values[:, *box]
            if not np.isnan(values).all():
                target.write_values(box, values)


def _copy_features(band: HeatmapStore, target: HeatmapStore, state: States, rows: Rows) -> None:
    if band.features is None:
        return
    mine = (state_of(state) == DONE) & rows[:, None]
    for box in boxes_of(state.shape, FEATURE_CHUNK):
        down, across = np.nonzero(mine[box])
        if len(down):
            vectors = band.features[box][down, across]
            target.write_features(FeatureBlock(box, (down, across), vectors, anew=False))
