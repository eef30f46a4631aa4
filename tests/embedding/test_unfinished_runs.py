"""What is there of a run that goes on, or was stopped, can be looked at."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import noise_slide
from made_embedding import there
from made_features import with_features
from napari_wsi_heatmap.launch import prepare

SETTINGS = {"window": 64, "stride": 32, "tissue": "none", "batch_size": 8}


@pytest.mark.parametrize("stored", [False, True], ids=["goes on", "stopped"])
def test_windows_that_are_there_take_part(tmp_path, stored):
    out = tmp_path / "a.zarr" if stored else None
    run = prepare(noise_slide(), with_features(), out=out, **SETTINGS)
    pieces = run.pieces()
    for _ in range(12):
        next(pieces)
    if stored:
        pieces.close()
    heatmap = wh.open_heatmap(out) if stored else run.heatmap
    known = there(heatmap)
    assert 12 < len(known) < heatmap.grid.size
    assert heatmap.pca(2).windows == len(known)
    assert heatmap.clusters(3).counts.sum() == len(known)
    assert np.array_equal(np.flatnonzero(~np.isnan(heatmap.similarity(int(known[0])))), known)
    assert np.array_equal(np.flatnonzero(~np.isnan(heatmap.latents(0))), known)
    pieces.close()
