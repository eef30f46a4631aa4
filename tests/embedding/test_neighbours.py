"""Nearest windows: those of a table of all distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from made_embedding import grid_map, list_map, rows, there
from napari_wsi_heatmap.embedding import neighbours as module
from napari_wsi_heatmap.embedding.edges import on_slide, weights
from napari_wsi_heatmap.embedding.neighbours import nearest_of_all, neighbours
from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.states import DONE, state_of


def table(data, metric="euclidean"):
    """(n, n) distances, none from a window to itself."""
    away = cdist(data, data, metric)
    np.fill_diagonal(away, np.inf)
    return away


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_those_of_one_window(made, metric):
    away, index = table(rows(made), metric), there(made)
    for i in (0, 11, len(index) - 1):
        found = neighbours(made, int(index[i]), 5, metric)
        np.testing.assert_allclose(found.distance, np.sort(away[i])[:5], rtol=1e-5)
        assert np.array_equal(found.windows, index[np.argsort(away[i])[:5]])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("tile", [1, 6 * 8 * 100, 1 << 24])
def test_those_of_all_windows(monkeypatch, made, metric, tile):
    monkeypatch.setattr(module, "TILE_BYTES", tile if tile > 1 else 8 * 6 * 7)
    monkeypatch.setattr(module, "ROWS", 50)
    away = table(rows(made), metric)
    index, found = nearest_of_all(made, 4, metric)
    order = np.argsort(index)
    assert np.array_equal(index[order], there(made))
    np.testing.assert_allclose(found.distance[order], np.sort(away, 1)[:, :4], rtol=1e-5)
    assert np.array_equal(found.windows[order], there(made)[np.argsort(away, 1)[:, :4]])


def test_distances_are_exact_far_from_zero():
    data = (1e4 + np.random.default_rng(0).random((300, 20))).astype(np.float32)
    away = table(data.astype(float))
    _, found = nearest_of_all(data, 3)
    np.testing.assert_allclose(found.distance, np.sort(away, 1)[:, :3], rtol=1e-12)
    np.testing.assert_allclose(neighbours(data, 7, 3).distance, np.sort(away[7])[:3], rtol=1e-12)


def test_twins_are_neighbours_and_nobody_is_his_own():
    data = np.repeat(np.random.default_rng(0).random((10, 4)), 3, axis=0)
    index, found = nearest_of_all(data, 2)
    assert not found.distance.any()
    assert (found.windows != index[:, None]).all()
    assert np.array_equal(found.windows // 3, np.repeat(np.arange(30) // 3, 2).reshape(30, 2))
    assert neighbours(data, 4, 2).windows.tolist() == [3, 5]


def test_all_others_can_be_asked_for():
    data = np.random.default_rng(0).random((6, 3))
    _, found = nearest_of_all(data, 5)
    assert [sorted(row) for row in found.windows.tolist()] == [
        [j for j in range(6) if j != i] for i in range(6)
    ]
    assert len(neighbours(data, 0, 99).windows) == 5
    with pytest.raises(FeatureError, match="6 windows have features, 7 are needed"):
        nearest_of_all(data, 6)


def test_those_on_the_slide(made):
    done = np.flatnonzero(state_of(made.state).ravel() == DONE)
    away = table(made.grid.positions(done))
    window = int(done[9])
    found = made.neighbours(window, 6, where="slide")
    np.testing.assert_allclose(found.distance, np.sort(away[9])[:6])
    index, all_of_them = on_slide(made, 3)
    assert np.array_equal(index, done)
    np.testing.assert_allclose(all_of_them.distance, np.sort(away, 1)[:, :3])
    rows_ = np.arange(len(done))[:, None]
    np.testing.assert_allclose(
        away[rows_, np.searchsorted(done, all_of_them.windows)], all_of_them.distance
    )


def test_windows_at_one_place_are_neighbours_on_the_slide():
    made = list_map(60, coords=np.repeat(np.arange(12)[:, None] * [4000, 0], 5, axis=0))
    made.state[:] = DONE
    index, found = on_slide(made, 3)
    assert not found.distance.any()
    assert (found.windows != index[:, None]).all()
    _, more = on_slide(made, 5)
    assert (more.windows != index[:, None]).all()
    assert (more.distance[:, 4] > 0).all()


@pytest.mark.parametrize("where", ["features", "slide"])
def test_edges_as_a_table(where):
    made = grid_map(shape=(12, 9))
    edges = made.neighbour_edges(3, where)
    assert list(edges.columns) == ["source", "target", "distance", "weight"]
    for window in edges["source"].unique()[:5]:
        mine = edges[edges["source"] == window]
        found = made.neighbours(int(window), 3, where)
        np.testing.assert_allclose(mine["distance"], found.distance, rtol=1e-6)
        np.testing.assert_allclose(mine["weight"], 1 / found.distance, rtol=1e-6)
    assert (edges["source"] != edges["target"]).all()


def test_weights_where_nothing_lies_between():
    assert weights(np.array([0.5, 0.0, 4.0])).tolist() == [2.0, 2.0, 0.25]
    assert weights(np.zeros(2)).tolist() == [1.0, 1.0]


def test_what_there_is_not_to_choose_is_refused():
    made = grid_map()
    window = int(there(made)[0])
    with pytest.raises(FeatureError, match="where='nowhere'"):
        made.neighbours(window, where="nowhere")
    with pytest.raises(FeatureError, match="where='nowhere'"):
        made.neighbour_edges(where="nowhere")
    with pytest.raises(FeatureError, match="metric='taxi'"):
        neighbours(made, window, metric="taxi")
    with pytest.raises(FeatureError, match="all features are 0"):
        neighbours(np.zeros((5, 2)), 0, metric="cosine")
