"""What the original implementations said of checkpoints of their own, in every layout and wrapper.

Tolerance: 1e-4 relative, as an error of 1e-3 in a weight must be seen.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 1e-4


def assert_near(values, golden):
    """Compare within 1e-4 of the golden values' own size."""
    golden = np.asarray(golden, np.float64)
    assert values.shape == golden.shape
    error = np.abs(values.astype(np.float64) - golden)
    assert (error <= TOLERANCE * np.maximum(np.abs(golden), np.abs(golden).max() * 0.01)).all()


@pytest.fixture(scope="session")
def mil_dir(data_dir: Path) -> Path:
    folder = data_dir / "mil"
    if not (folder / "index.json").is_file():
        pytest.skip(f"no golden MIL outputs in {folder}")
    return folder


@pytest.fixture(scope="session")
def index(mil_dir):
    return json.loads((mil_dir / "index.json").read_text())


def recipe(name, keys):
    """Weights and features of the full-size sets, made from the name alone."""

    def normal(key, shape):
        digest = hashlib.sha256(f"{name}/{key}".encode()).hexdigest()
        seed = int(digest[:8], 16)
        return np.random.RandomState(seed).standard_normal(shape)

    state = {}
    for key, shape in keys.items():
        z = normal(key, shape)
        z = z * 1.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * z
        state[key] = torch.from_numpy(z.astype(np.float32))
    features = np.maximum(normal("features", (200, 1024)), -0.5).astype(np.float32)
    return state, features


def attention_of(golden, mil, bag):
    """The golden attention as (N, K), and ours to compare with it."""
    if mil.facts.kind == "transmil":
        return None
    if "attention_softmax" in golden:
        raw = golden["attention_softmax"]
        return raw.reshape(-1, raw.shape[-1]).T, bag.weights
    if "attention" in golden:
        return golden["attention"].reshape(len(bag), -1), bag.weights
    return golden["attention_raw"].T, bag.scores


def check(golden, mil, features):
    bag = mil(features)
    logits = golden.get("logits", golden.get("bag_logits"))
    probabilities = golden.get("probs", golden.get("prob_bag_sigmoid"))
    if logits is not None:
        assert_near(bag.logits, logits.ravel())
    if probabilities is not None and probabilities.size == 1:
        p = float(probabilities.ravel()[0])
        probabilities = np.array([1 - p, p])
    if probabilities is not None:
        assert_near(bag.probabilities, probabilities.ravel())
    assert_near(bag.patch_score, golden["patch_score"])
    if "y_hat" in golden:
        assert bag.prediction == int(golden["y_hat"].ravel()[0])
    both = attention_of(golden, mil, bag)
    if both is not None:
        expected = both[0].mean(1, keepdims=True) if mil.facts.heads > 1 else both[0]
        assert_near(both[1], expected)
    if "instance_logits" in golden:
        assert_near(bag.instance_logits, golden["instance_logits"].reshape(len(bag), -1))
    return bag


def test_every_set_is_met(mil_dir, index, tmp_path):
    seen = set()
    for name, entry in index.items():
        golden = dict(np.load(mil_dir / f"{entry.get('arrays_from') or name}.npz"))
        features = golden.get("features")
        if entry["checkpoint"] is None:
            state, features = recipe(name, entry["keys"])
            torch.save(state, tmp_path / f"{name}.pt")
        folder = mil_dir if entry["checkpoint"] else tmp_path
        files = [folder / f"{name}.pt", *(folder / f for f in entry.get("also", ()))]
        for file in files:
            mil = wh.load_mil(file, device="cpu")
            assert mil.facts.kind == entry["type"].removesuffix("_trident"), name
            try:
                check(golden, mil, features)
            except AssertionError as error:
                raise AssertionError(f"{file.name} ({mil.facts})") from error
        seen.add(name)
    assert seen == set(index)
    assert len(seen) >= 28


@pytest.mark.parametrize("name", ["transmil_orig_dim32_c2_n200", "millab_transmil_c2"])
def test_both_attentions_of_transmil(mil_dir, index, name):
    golden = np.load(mil_dir / f"{name}.npz")
    rows = sorted(key for key in golden if key.startswith("nystrom_cls_row"))
    mil = wh.load_mil(mil_dir / f"{name}.pt", device="cpu")
    assert mil.attentions == ("dot", "nystrom", "nystrom-1")
    for attention, key in zip(("nystrom-1", "nystrom"), rows, strict=True):
        bag = mil(golden["features"], attention=attention)
        assert_near(bag.patch_score, golden[key].mean(0))
        assert_near(bag.logits, golden["logits"].ravel())


def test_an_error_of_a_thousandth_is_seen(mil_dir):
    golden = dict(np.load(mil_dir / "clam_sb_gated_drop_tiny_c2.npz"))
    mil = wh.load_mil(mil_dir / "clam_sb_gated_drop_tiny_c2.pt", device="cpu")
    check(golden, mil, golden["features"])
    with pytest.raises(AssertionError):
        check(golden, mil, golden["features"] + 0.001)
    with pytest.raises(AssertionError):
        check(golden, mil, golden["features"][::-1].copy())
