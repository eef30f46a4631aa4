"""Which features follow the place: as NumPy's table of correlations says."""

from __future__ import annotations

import numpy as np
import pytest

from made_embedding import grid_map, rows, there
from napari_wsi_heatmap.errors import FeatureError


@pytest.mark.usefixtures("blocks")
def test_it_is_numpys(made):
    found = made.correlation()
    y, x = made.grid.positions(there(made)).T
    wanted = np.corrcoef(np.vstack([rows(made).T, x, y]))
    np.testing.assert_allclose(found.matrix, wanted, atol=1e-12)
    assert np.array_equal(found.with_x, found.matrix[:6, 6])
    assert np.array_equal(found.with_y, found.matrix[:6, 7])
    assert found.names == (*(f"latent_{i}" for i in range(6)), "x", "y")
    assert found.windows == len(there(made))


def test_a_feature_that_drifts_across_the_slide_is_named():
    made = grid_map()
    rows_, cols = np.indices(made.state.shape)
    made.features[..., 4] += 50 - 3 * cols
    made.features[..., 2] += 0.2 * rows_
    first, second = made.correlation().strongest(2)
    assert (first.latent, first.axis) == (4, "x")
    assert first.r < -0.9
    assert (second.latent, second.axis) == (2, "y")
    assert 0.3 < second.r < 0.95


def test_a_feature_that_is_the_same_everywhere_follows_nothing():
    made = grid_map()
    made.features[..., 3] = np.where(np.isnan(made.features[..., 3]), np.nan, 0.1)
    found = made.correlation()
    assert np.isnan(found.with_x[3])
    assert np.isfinite(np.delete(found.with_x, 3)).all()
    assert 3 not in [follows.latent for follows in found.strongest(5)]


def test_one_window_says_nothing():
    made = grid_map(shape=(6, 6))
    made.state[:] = 0
    made.state[2, 2], made.features[2, 2] = 1, 5
    with pytest.raises(FeatureError, match="1 windows have features, 2 are needed"):
        made.correlation()


def test_latents_as_maps(made):
    maps = made.latents(5, 0, -2)
    flat = np.asarray(made.features[:]).reshape(made.state.size, -1)
    wanted = np.full((3, made.state.size), np.nan, np.float32)
    wanted[:, there(made)] = flat[there(made)][:, [5, 0, -2]].T
    assert np.array_equal(maps, wanted.reshape(3, *made.state.shape), equal_nan=True)
    with pytest.raises(FeatureError, match=r"no feature 6 .*there are 0 to 5"):
        made.latents(6)
