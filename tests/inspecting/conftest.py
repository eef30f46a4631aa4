"""Maps of all kinds over one slide, made once a module."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide, quarter_means

QUIET = {"tissue": "none", "progress": False}


@pytest.fixture(scope="module")
def slide():
    return noise_slide(300, 420)


@pytest.fixture(scope="module")
def overlapping(slide):
    model = wh.load_model(mean_rgb, names=["red", "green", "blue"], window=64)
    return wh.compute_heatmap(slide, model, stride=24, **QUIET)


@pytest.fixture(scope="module")
def dense(slide):
    return wh.compute_heatmap(slide, quarter_means, window=64, stride=32, **QUIET)


@pytest.fixture(scope="module")
def listed(slide, tmp_path_factory):
    corners = np.random.default_rng(3).integers(0, 240, (40, 2))
    out = tmp_path_factory.mktemp("list") / "a.zarr"
    wh.predict_windows(slide, mean_rgb, corners, window=50, out=out)
    return wh.open_heatmap(out)
