"""Raw scores as they are drawn, against scipy and CLAM's own numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import percentileofscore, rankdata

from napari_wsi_heatmap.errors import ModelOutputError
from napari_wsi_heatmap.mil.display import (
    FrozenReference,
    GrowingLimits,
    to_display,
)

RANDOM = np.random.default_rng(3)
TIED = RANDOM.integers(0, 12, 60).astype(np.float32)


def test_percentiles_are_mean_ranks():
    for scores in (TIED, RANDOM.standard_normal(50), np.array([3.0])):
        expected = rankdata(scores, "average") / len(scores)
        np.testing.assert_allclose(to_display(scores), expected, rtol=1e-12)


def test_percentiles_of_a_reference():
    scores, reference = RANDOM.integers(-2, 14, 40) / 1.0, TIED
    expected = [percentileofscore(reference, s, "rank") / 100 for s in scores]
    np.testing.assert_allclose(to_display(scores, reference=reference), expected, rtol=1e-12)


def test_as_clam_has_them(data_dir):
    golden = np.load(data_dir / "mil" / "heatmap_clam.npz")
    tags = [key.removesuffix("_scores") for key in golden if key.endswith("_scores")]
    assert len(tags) > 1
    for tag in filter(re.compile("s[0-9]+$").match, tags):
        scores, ref = golden[f"{tag}_scores"].ravel(), golden[f"{tag}_ref"].ravel()
        expected = golden[f"{tag}_percentiles"].ravel() / 100
        np.testing.assert_allclose(to_display(scores), expected, rtol=1e-12)
        expected = golden[f"{tag}_percentileofscore_ref"].ravel() / 100
        np.testing.assert_allclose(to_display(scores, reference=ref), expected, rtol=1e-12)


def test_minmax_and_raw():
    scores = np.array([[-4.0, np.nan], [6.0, 1.0]])
    np.testing.assert_array_equal(to_display(scores, "minmax"), [[0, np.nan], [1, 0.5]])
    np.testing.assert_array_equal(to_display([-1, 0.25, 2], "raw"), [0, 0.25, 1])
    np.testing.assert_array_equal(to_display([0, 5, 20], "minmax", (0, 10)), [0, 0.5, 1])
    np.testing.assert_array_equal(to_display([7, 7], "minmax"), [0.5, 0.5])
    for how in ("percentile", "minmax"):
        assert np.isnan(to_display([np.nan, np.nan], how)).all()
        assert to_display([], how).shape == (0,)
    with pytest.raises(ModelOutputError, match="percentile, minmax, raw"):
        to_display([1], "softmax")


def test_limits_widen_and_never_narrow():
    limits, scores = GrowingLimits(), RANDOM.standard_normal((1000, 2))
    assert limits.of(0) is None
    seen = []
    for part in np.split(scores, 100):
        limits.add(part)
        seen.append(limits.of(1))
    lows, highs = np.array(seen).T
    assert (np.diff(lows) <= 0).all()
    assert (np.diff(highs) >= 0).all()
    assert limits.of(1) == (scores[:, 1].min(), scores[:, 1].max())
    assert limits.changes < 60
    assert not limits.add(np.array([[0.0, np.nan]]))
    before = limits.changes
    limits.restart(np.zeros((3, 2)))
    assert (limits.of(0), limits.changes) == ((0.0, 0.0), before + 1)


def test_the_reference_is_frozen_until_the_bag_has_doubled():
    reference, scores = FrozenReference(), RANDOM.standard_normal((64, 1))
    changed = [n for n in range(1, 65) if reference.look(scores[:n], n)]
    assert changed == [1, 2, 4, 8, 16, 32, 64]
    assert np.array_equal(reference.of(5), scores[:, 0])  # one branch serves all classes
