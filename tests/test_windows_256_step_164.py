"""Windows of 256 px every 164 px, as nuclei networks without padding are run."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import noise_slide

SETTINGS = {"window": 256, "stride": 164, "tissue": "none", "progress": False, "batch_size": 4}
HEIGHT, WIDTH = 700, 600


@pytest.fixture(scope="module")
def slide():
    return noise_slide(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def red(slide):
    return slide.read_region(0, 0, 0, HEIGHT, WIDTH)[..., 0].astype(np.float32) / 255


def inner(batch):
    """What is left of a window without padding: its middle 164 px."""
    return batch[:, :1, 46:-46, 46:-46]


def whole(batch):
    return batch[:, :1]


def test_middles_join_without_a_seam(slide, red):
    model = wh.load_model(inner, output_stride=1)
    heatmap = wh.compute_heatmap(slide, model, **SETTINGS)
    assert heatmap.state.shape == (4, 4)
    height, width = HEIGHT - 46, WIDTH - 46
    np.testing.assert_array_equal(heatmap.values[0, :height, :width], red[46:, 46:])
    assert tuple(heatmap.frame.offset) == (46, 46)
    assert np.isfinite(heatmap.values).all()


@pytest.mark.parametrize("blend", ["mean", "max"])
def test_overlaps_are_blended(blend, slide, red):
    heatmap = wh.compute_heatmap(slide, whole, blend=blend, **SETTINGS)
    found = heatmap.values[0, :HEIGHT, :WIDTH]
    np.testing.assert_allclose(found, red, rtol=0, atol=1e-6)


def test_one_value_a_window(slide, red):
    heatmap = wh.compute_heatmap(slide, lambda batch: batch[:, 0].mean((1, 2)), **SETTINGS)
    beyond = slide.background[0] / 255
    padded = np.pad(red, [(0, 256), (0, 256)], constant_values=beyond)
    for i, j in np.ndindex(heatmap.state.shape):
        patch = padded[164 * i : 164 * i + 256, 164 * j : 164 * j + 256]
        assert heatmap.values[0, i, j] == pytest.approx(patch.mean(), rel=1e-5)
