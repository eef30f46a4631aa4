"""Every layout, with random weights, against the papers' formulas written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mil_formulas import Weights
from mil_made import LAYOUTS, features

import napari_wsi_heatmap as wh

SIZES = (1, 2, 3, 8, 9, 10, 17, 40)
"""Few patches, and perfect squares with their neighbours."""


def load(tmp_path, state):
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    return wh.load_mil(path, device="cpu")


def near(values, expected):
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(tmp_path, name):
    kind, make, formula = LAYOUTS[name]
    state = make()
    mil = load(tmp_path, state)
    assert mil.facts.kind == kind
    for n in SIZES:
        x = features(n)
        want, bag = formula(Weights(state), x.astype(np.float64)), mil(x)
        assert len(bag) == n
        assert mil.facts.n_classes == len(bag.logits)
        if want.logits is None:
            assert bag.prediction is None
            assert bag.logits.shape == bag.probabilities.shape == (0,)
        else:
            near(bag.logits, want.logits)
            near(bag.probabilities, want.probabilities)
            assert bag.prediction == int(want.probabilities.argmax())
        near(bag.scores, want.scores)
        near(bag.weights, want.weights)
        shown = bag.prediction if want.scores.shape[1] > 1 else 0
        assert bag.branch == shown
        near(bag.patch_score, getattr(want, want.drawn)[:, shown])
        for branch in range(want.scores.shape[1]):
            chosen = mil(x, branch=branch)
            near(chosen.patch_score, getattr(want, want.drawn)[:, branch])
            assert (chosen.patch_score == bag.score_of(branch)).all()
        for attention, row in want.rows.items():
            near(mil(x, attention=attention).patch_score, row)
        if want.instances is not None:
            near(bag.instance_logits, want.instances)
            drawn = mil(x, attention="instances", branch=0).patch_score
            near(drawn, want.instances[:, 0])


@pytest.mark.parametrize("name", LAYOUTS)
def test_scores_of_some_patches(tmp_path, name):
    kind, make, _ = LAYOUTS[name]
    mil, x = load(tmp_path, make()), features(30)
    assert mil.patchwise == (kind in ("abmil", "clam_sb", "clam_mb"))
    if mil.patchwise:
        parts = np.concatenate([mil.patch_scores(x[:7]), mil.patch_scores(x[7:])])
        np.testing.assert_allclose(parts, mil(x).scores, rtol=1e-5, atol=1e-6)
    else:
        with pytest.raises(wh.HeatmapError, match="depends on all patches"):
            mil.patch_scores(x)


@pytest.mark.parametrize("name", LAYOUTS)
def test_same_bits_each_time(tmp_path, name):
    mil, x = load(tmp_path, LAYOUTS[name][1]()), features(200)
    torch.manual_seed(0)
    first = mil(x)
    torch.manual_seed(1)
    second = mil(torch.from_numpy(x.astype(np.float64)))
    for field in ("logits", "probabilities", "scores", "weights", "patch_score"):
        assert (getattr(first, field) == getattr(second, field)).all()


@pytest.mark.parametrize("name", ["abmil millab", "clam_mb", "dsmil", "dsmil millab", "transmil"])
def test_a_hundred_thousand_patches(tmp_path, name):
    """A matrix of all patches by all patches would take 40 GB."""
    bag = load(tmp_path, LAYOUTS[name][1]())(features(100_000))
    assert len(bag.patch_score) == 100_000
    assert np.isfinite(bag.scores).all()
    assert np.isfinite(bag.logits).all()
    np.testing.assert_allclose(bag.weights.sum(0, dtype=np.float64), 1, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", LAYOUTS)
def test_same_numbers_on_a_gpu(tmp_path, name):
    cpu, x = load(tmp_path, LAYOUTS[name][1]()), features(1000)
    gpu = wh.load_mil(cpu.path, device="auto")
    assert gpu.device.type == "cuda"
    one, other = cpu(x), gpu(torch.from_numpy(x).cuda())
    for field in ("logits", "probabilities", "scores", "weights"):
        near(getattr(other, field), getattr(one, field))
    assert (gpu(x).scores == other.scores).all()
