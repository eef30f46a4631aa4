"""Principal components: those that NumPy's singular values give of all vectors at once."""

from __future__ import annotations

import numpy as np
import pytest

from made_embedding import grid_map, rows, there
from napari_wsi_heatmap.embedding.colours import as_rgba
from napari_wsi_heatmap.embedding.moments import Moments
from napari_wsi_heatmap.embedding.pca import pca
from napari_wsi_heatmap.errors import FeatureError


def by_svd(data, k):
    """Scores, axes, variance, shares."""
    centred = data - data.mean(0)
    left, values, axes = np.linalg.svd(centred, full_matrices=False)
    variance = values**2 / (len(data) - 1)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:k]
    scores = left[:, :k] * values[:k] * signs
    return scores, axes[:k] * signs[:, None], variance[:k], variance[:k] / variance.sum()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("k", [1, 3, 6])
def test_it_equals_the_singular_values_of_all_vectors(made, k):
    found = made.pca(k)
    scores, axes, variance, share = by_svd(rows(made), k)
    np.testing.assert_allclose(found.components, axes, atol=1e-9)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-10)
    np.testing.assert_allclose(found.explained, share, rtol=1e-10)
    assert found.windows == len(rows(made))
    flat = found.scores.reshape(-1, k)
    np.testing.assert_allclose(flat[there(made)], scores, atol=1e-5)
    assert found.scores.shape == (*made.state.shape, k)
    assert np.isnan(np.delete(flat, there(made), axis=0)).all()


def test_nothing_cancels_far_from_zero():
    rng = np.random.default_rng(0)
    data = rng.normal(0, 1, (5000, 4)) * (4, 2, 1, 0.5)
    near, far = pca(data, 2), pca(data + 1e7, 2)
    np.testing.assert_allclose(far.variance, near.variance, rtol=1e-6)
    np.testing.assert_allclose(far.mean, 1e7 + near.mean)


@pytest.mark.parametrize("parts", [1, 7, 500])
def test_moments_do_not_depend_on_the_blocks(parts):
    data = np.random.default_rng(1).normal(5, 2, (500, 8)).astype(np.float32)
    moments = Moments(8)
    for part in np.array_split(data, parts):
        moments.add(part)
    moments.add(data[:0])
    assert moments.count == 500
    np.testing.assert_allclose(moments.mean, data.astype(float).mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(data.T.astype(float)), rtol=1e-10)


def test_others_can_be_projected():
    made = grid_map()
    found = made.pca(2)
    np.testing.assert_allclose(
        found.project(rows(made)), found.scores.reshape(-1, 2)[there(made)], atol=1e-5
    )


def test_windows_that_are_all_the_same_have_no_direction():
    found = pca(np.full((9, 4), 7.0), 2)
    assert found.explained.tolist() == [0, 0]
    assert np.array_equal(found.scores, np.zeros((9, 2)))


@pytest.mark.parametrize(("k", "why"), [(0, "0 components of 6"), (7, "7 components of 6")])
def test_components_that_cannot_be(k, why):
    with pytest.raises(FeatureError, match=why):
        grid_map().pca(k)


def test_too_few_windows():
    with pytest.raises(FeatureError, match="3 windows have features, 4 are needed"):
        pca(np.random.default_rng(0).random((3, 5)))


def test_colours_span_what_occurs():
    scores = np.random.default_rng(0).normal(size=(40, 50, 3)).astype(np.float32)
    scores[3, 4] = np.nan
    rgba = as_rgba(scores)
    assert rgba.dtype == np.uint8
    assert rgba[3, 4].tolist() == [0, 0, 0, 0]
    assert (np.delete(rgba[..., 3].ravel(), 3 * 50 + 4) == 255).all()
    for c in range(3):
        low, high = np.nanpercentile(scores[..., c], (1, 99))
        expected = np.rint(255 * np.clip((scores[..., c] - low) / (high - low), 0, 1))
        expected[3, 4] = 0
        np.testing.assert_allclose(rgba[..., c], expected, atol=1)


@pytest.mark.parametrize("k", [1, 2])
def test_fewer_components_have_colours_too(k):
    rgba = as_rgba(np.random.default_rng(0).random((8, k)))
    assert (rgba[:, 3] == 255).all()
    if k == 1:
        assert np.array_equal(rgba[:, 0], rgba[:, 2])
    else:
        assert not rgba[:, 2].any()
    assert not as_rgba(np.full((8, k), np.nan)).any()
