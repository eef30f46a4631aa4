"""Cosine similarity: the plain quotient of every pair."""

from __future__ import annotations

import numpy as np
import pytest

from made_embedding import grid_map, rows, there
from napari_wsi_heatmap.embedding import vectors
from napari_wsi_heatmap.embedding.similarity import Similarity, similarity
from napari_wsi_heatmap.errors import FeatureError


def cosines(made, window):
    """(N,) by hand; NaN where a window does not count."""
    data = rows(made)
    one = data[np.flatnonzero(there(made) == window)[0]]
    found = np.full(made.state.size, np.nan)
    found[there(made)] = data @ one / np.linalg.norm(data, axis=1) / np.linalg.norm(one)
    return found.reshape(made.state.shape)


@pytest.mark.usefixtures("blocks")
def test_it_is_the_cosine_of_the_angle(made):
    held = Similarity(made)
    assert held.windows == len(there(made))
    for window in there(made)[[0, 7, -1]]:
        wanted = cosines(made, window)
        for found in (made.similarity(window), held.to(window)):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_a_window_of_a_grid_by_row_and_column():
    made = grid_map()
    window = int(there(made)[20])
    place = divmod(window, made.state.shape[1])
    assert np.array_equal(made.similarity(place), made.similarity(window), equal_nan=True)
    assert np.array_equal(Similarity(made).to(place), Similarity(made).to(window), equal_nan=True)


def test_windows_most_like_one(made):
    held, window = Similarity(made), int(there(made)[3])
    index, found = held.most(window, 6)
    wanted = cosines(made, window).ravel()
    wanted[window] = np.nan
    order = np.argsort(-np.nan_to_num(wanted, nan=-2))[:6]
    assert set(index.tolist()) == set(order.tolist())
    np.testing.assert_allclose(found, wanted[index], atol=2e-6)
    assert (np.diff(found) <= 0).all()
    everything, same, _ = held.both(window, 6)
    assert np.array_equal(everything, held.to(window), equal_nan=True)
    assert np.array_equal(same, index)


def test_there_may_be_fewer_than_are_asked_for():
    held = Similarity(np.float32([[1, 0], [1, 1], [0, 1]]))
    assert held.most(0, 10)[0].tolist() == [1, 2]
    assert Similarity(np.float32([[1, 0]])).most(0, 3)[0].tolist() == []


def test_vectors_of_nothing_have_no_angle():
    data = np.float32([[0, 0], [3, 4], [-3, -4], [4, -3]])
    for found in (similarity(data, 1), Similarity(data).to(1)):
        np.testing.assert_allclose(found, [np.nan, 1, -1, 0], atol=1e-7)
    for ask in (lambda: similarity(data, 0), lambda: Similarity(data).to(0)):
        with pytest.raises(FeatureError, match="no features, or all are 0"):
            ask()
    assert [Similarity(data).has(window) for window in range(4)] == [False, True, True, True]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_do_not_matter_however_extreme(scale):
    data = np.random.default_rng(0).normal(size=(30, 5))
    found = similarity((scale * data).astype(np.float32), 4)
    np.testing.assert_allclose(found, similarity(data, 4), atol=1e-6)
    assert found[4] == 1


def test_a_window_that_failed_is_compared_with_nothing():
    made = grid_map()
    window = int(np.setdiff1d(np.arange(made.state.size), there(made))[0])
    for ask in (made.similarity, Similarity(made).to):
        with pytest.raises(FeatureError, match=f"window {window}"):
            ask(window)


def test_many_windows_lie_in_a_scratch_file(monkeypatch):
    made = grid_map()
    window, wanted = int(there(made)[0]), None
    wanted = Similarity(made).to(window)
    monkeypatch.setattr(vectors, "SCRATCH_BYTES", 100)
    found = Similarity(made)
    assert isinstance(found._units, np.memmap)
    assert np.array_equal(found.to(window), wanted, equal_nan=True)
