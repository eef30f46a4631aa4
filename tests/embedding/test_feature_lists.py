"""Features of windows at given coordinates: kept with the list, and analysed as those of a grid."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide
from made_features import LENGTH, naive_features, with_features
from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.states import DONE, FAILED, state_of

QUIET = {"window": 64, "tissue": "none", "progress": False}


@pytest.fixture(scope="module")
def whole():
    return wh.compute_heatmap(noise_slide(), with_features(), stride=32, **QUIET)


@pytest.fixture(scope="module")
def listed(tmp_path_factory, whole):
    """The windows of the grid in another order, as a list in a store."""
    out = tmp_path_factory.mktemp("lists") / "list.zarr"
    coords = np.random.default_rng(0).permutation(whole.positions.reshape(-1, 2))
    wh.predict_windows(noise_slide(), with_features(), coords, out=out, window=64)
    return wh.open_heatmap(out)


def by_place(heatmap):
    places = heatmap.positions.reshape(-1, 2)
    return np.lexsort(places.T[::-1])


def test_they_are_those_of_the_grid(whole, listed):
    assert listed.features.shape == (whole.grid.size, LENGTH)
    wanted = naive_features(whole, noise_slide()).reshape(-1, LENGTH)
    np.testing.assert_allclose(listed.features[:][by_place(listed)], wanted, rtol=1e-6)
    assert listed.window_features().shape == (whole.grid.size, LENGTH)


def test_so_is_what_is_made_of_them(whole, listed):
    order = by_place(listed)
    first, second = whole.pca(2), listed.pca(2)
    np.testing.assert_allclose(first.variance, second.variance, rtol=1e-5)
    np.testing.assert_allclose(second.scores[order], first.scores.reshape(-1, 2), atol=1e-4)
    np.testing.assert_allclose(
        listed.similarity(int(order[5]))[order], whole.similarity(5).ravel(), atol=1e-5
    )
    assert listed.clusters(4).counts.sum() == whole.grid.size
    r = whole.correlation().matrix
    np.testing.assert_allclose(listed.correlation().matrix, r, atol=1e-5)


def test_the_table_has_them(listed):
    table = listed.to_dataframe()
    assert list(table.columns) == ["x", "y", "value", *(f"latent_{d}" for d in range(LENGTH))]
    assert np.array_equal(table.iloc[:, 3:], listed.features[:])


@pytest.mark.parametrize("ending", ["h5", "parquet"])
def test_so_have_exports(listed, tmp_path, ending):
    path = listed.export(tmp_path / f"a.{ending}")
    if ending == "h5":
        with h5py.File(path) as file:
            found = file["features"][:]
    else:
        found = pd.read_parquet(path).iloc[:, -LENGTH:].to_numpy()
    assert np.array_equal(found, listed.features[:])


def test_windows_that_cannot_be_read_have_none(tmp_path):
    slide = FaultySlide(noise_slide(), bad={(300, 300)})
    coords = [(0, 0), (280, 280), (10, 600)]
    wh.predict_windows(slide, with_features(), coords, out=tmp_path / "a.zarr", window=64)
    found = wh.open_heatmap(tmp_path / "a.zarr")
    assert state_of(found.state).tolist() == [DONE, FAILED, DONE]
    assert np.isnan(found.features[:]).all(1).tolist() == [False, True, False]
    assert found.window_features().shape == (2, LENGTH)
    assert np.isnan(found.similarity(0)).tolist() == [False, True, False]


def test_a_model_that_gives_none(tmp_path):
    wh.predict_windows(noise_slide(), mean_rgb, [(0, 0)], out=tmp_path / "a.zarr", window=64)
    found = wh.open_heatmap(tmp_path / "a.zarr")
    assert found.features is None
    with pytest.raises(StoreError, match="no features"):
        found.window_features()
    assert not (tmp_path / "a.zarr" / "windows" / "features").exists()
