"""Every builtin model over a slide equals one read and one call per window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import naive
from napari_wsi_heatmap.models import builtin_names, load_model
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.sample import make_sample_slide
from napari_wsi_heatmap.states import DONE, state_of

EDGES = ("pad", "flush", "drop", "centre")


@pytest.fixture(scope="module")
def made_slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "made.svs"
    make_sample_slide(path, size=(1024, 1536))
    with wh.open_slide(path) as slide:
        yield slide


@pytest.fixture(scope="module")
def real_slide(data_dir):
    with wh.open_slide(data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs") as slide:
        yield slide


def check(slide, name, **settings):
    """Compare a run at the level's own pixels with the naive loop."""
    heatmap = wh.compute_heatmap(
        slide, name, tissue="none", progress=False, batch_size=8, **settings
    )
    model = load_model(name, mpp=heatmap.run["model"]["mpp"])
    device = torch.device("cpu")
    model.to(device)
    with inference(device):
        expected = naive(heatmap, slide, model)
    assert (state_of(heatmap.state) == DONE).all()
    np.testing.assert_allclose(heatmap.values, expected, rtol=0, atol=1e-5)
    return heatmap


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("stride", [50, 64, 90])
@pytest.mark.parametrize("name", builtin_names())
def test_on_a_made_slide(made_slide, name, stride, edge):
    check(made_slide, name, window=64, stride=stride, edge=edge, level=1)


@pytest.mark.parametrize(
    ("stride", "edge"), [(100, "pad"), (128, "flush"), (128, "drop"), (200, "centre")]
)
@pytest.mark.parametrize("name", builtin_names())
def test_on_a_real_slide(real_slide, name, stride, edge):
    heatmap = check(real_slide, name, window=128, stride=stride, edge=edge, level=0)
    if stride <= 128 and edge in ("pad", "flush"):
        last = heatmap.positions[-1, -1] + heatmap.window_size
        assert (last >= real_slide.levels[0].shape).all()


@pytest.mark.parametrize("name", builtin_names())
def test_at_the_models_own_scale(real_slide, name):
    """0.499 µm/px asked at 0.5: footprints equal windows, nothing is resized."""
    heatmap = check(real_slide, name, stride=150)
    assert not heatmap.grid.spec.resized
