"""A point of a map: which window it means, which cover it, its values and its rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide
from napari_wsi_heatmap.inspecting.covering import window_meant, windows_at
from napari_wsi_heatmap.inspecting.point import inspect_point, inspect_window
from napari_wsi_heatmap.inspecting.scores import Scores, rank_among

QUIET = {"tissue": "none", "progress": False}


@pytest.fixture(scope="module")
def gaps(slide):
    return wh.compute_heatmap(slide, mean_rgb, window=20, stride=50, **QUIET)


@pytest.fixture(scope="module")
def flush(slide):
    return wh.compute_heatmap(slide, mean_rgb, window=64, stride=40, edge="flush", **QUIET)


def brute_force(heatmap, y, x):
    """Windows that hold the centre of a pixel."""
    corners = heatmap.grid.positions(np.arange(heatmap.grid.size))
    height, width = heatmap.window_size
    return [
        i
        for i, (top, left) in enumerate(corners.tolist())
        if top <= y + 0.5 < top + height and left <= x + 0.5 < left + width
    ]


MAPS = ["overlapping", "gaps", "dense", "listed", "flush"]


@pytest.mark.parametrize("name", MAPS)
def test_the_windows_that_cover_a_point(name, request):
    heatmap = request.getfixturevalue(name)
    points = np.random.default_rng(0).uniform(-30, 440, (200, 2))
    for y, x in [*points.tolist(), (0, 0), (23, 24), (299, 419), (-1, 5)]:
        assert windows_at(heatmap, y, x).tolist() == brute_force(heatmap, y, x)


@pytest.mark.parametrize("name", MAPS)
def test_the_window_meant_is_the_nearest(name, request):
    heatmap = request.getfixturevalue(name)
    centres = heatmap.centres.reshape(-1, 2)
    for y, x in np.random.default_rng(1).uniform(0, 300, (100, 2)).tolist():
        index, covering = window_meant(heatmap, y, x)
        if len(covering):
            away = ((centres - (y, x)) ** 2).sum(1)
            assert away[index] == away[covering].min()


@pytest.mark.parametrize("name", ["overlapping", "gaps"])
def test_the_window_meant_is_the_one_whose_cell_is_drawn(name, request):
    heatmap = request.getfixturevalue(name)
    frame = heatmap.frame
    for y, x in np.random.default_rng(2).uniform(0, 290, (100, 2)).tolist():
        row, col = np.rint((np.array((y, x)) - frame.offset) / frame.scale).astype(int)
        if 0 <= row < frame.shape[1] and 0 <= col < frame.shape[2]:
            found = inspect_point(heatmap, None, y, x)
            assert found.place == (row, col)
            np.testing.assert_array_equal(found.at_point, found.values)


def test_beside_the_map_there_is_no_window(overlapping, gaps):
    for heatmap in (overlapping, gaps):
        found = inspect_point(heatmap, None, -400, 10)
        assert found.index is None
        assert found.values is None
        assert not len(found.covering)


def test_everything_about_a_window(overlapping, slide):
    found = inspect_point(overlapping, slide, 100.2, 140)
    row, col = found.place
    assert found.names == ("red", "green", "blue")
    assert found.state == "done"
    assert not found.hangs_over
    np.testing.assert_array_equal(found.values, overlapping.values[:, row, col])
    assert found.position == tuple(overlapping.positions[row, col])
    assert found.size == (64, 64)
    assert found.index in found.covering
    np.testing.assert_array_equal(found.patch, overlapping.patch(found.index, slide))
    assert overlapping.inspect(100.2, 140).patch is None
    last = inspect_window(overlapping, None, overlapping.grid.size - 1)
    assert last.hangs_over
    assert last.point == tuple(overlapping.centres[-1, -1])


@pytest.mark.parametrize("name", MAPS)
def test_ranks_are_those_of_a_plain_count(name, request):
    heatmap = request.getfixturevalue(name)
    index, values = heatmap.window_values()
    for i in np.random.default_rng(0).choice(len(index), 10).tolist():
        found = inspect_window(heatmap, None, int(index[i]))
        np.testing.assert_array_equal(found.values, values[i])
        for c, rank in enumerate(found.ranks):
            expected = 100 * rankdata(values[:, c])[i] / len(values)
            assert rank.of == len(values)
            assert rank.place == 1 + int((values[:, c] > values[i, c]).sum())
            assert rank.percentile == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 1.0, 7.5, float("nan")]), min_size=1, max_size=30))
def test_equal_values_share_a_rank(numbers):
    values = np.array(numbers, np.float32)
    finite = values[np.isfinite(values)]
    for value in finite.tolist():
        rank = rank_among(value, values)
        assert rank.of == len(finite)
        assert rank.place == 1 + sum(other > value for other in finite.tolist())
        mean_rank = rankdata(finite)[finite.tolist().index(value)]
        assert rank.percentile == pytest.approx(100 * mean_rank / len(finite))


def test_the_highest_has_100():
    rank = rank_among(9.0, np.array([1, 9, 3], np.float32))
    assert (rank.place, rank.of, rank.percentile) == (1, 3, 100)


def test_of_a_dense_map_the_cell_and_the_mean(dense):
    found = inspect_point(dense, None, 100, 140)
    frame = dense.frame
    row, col = np.rint((np.array((100, 140)) - frame.offset) / frame.scale).astype(int)
    np.testing.assert_array_equal(found.at_point, dense.values[:, row, col])
    index, values = dense.window_values()
    np.testing.assert_array_equal(found.values, values[index.tolist().index(found.index)])


def test_of_windows_that_are_not_done_the_state_is_told():
    slide = FaultySlide(noise_slide(200, 200), bad=[(10, 10)])
    roi = (0, 0, 200, 100)
    heatmap = wh.compute_heatmap(slide, mean_rgb, window=50, roi=roi, **QUIET)
    failed, outside = (inspect_point(heatmap, None, 10, x) for x in (10, 190))
    assert (failed.state, outside.state) == ("failed", "outside")
    assert "damaged" in failed.reason
    assert failed.ranks == (None, None, None)
    assert np.isnan(failed.values).all()


def test_among_windows_over_a_point_one_that_is_done_is_meant(slide):
    heatmap = wh.compute_heatmap(
        slide, mean_rgb, window=64, stride=16, roi=(0, 0, 300, 150), **QUIET
    )
    found = inspect_point(heatmap, None, 100, 168)
    assert found.state == "done"
    assert found.place[1] * 16 + 32 <= 150


def test_scores_made_before_are_used(overlapping):
    scores = Scores(overlapping)
    one = inspect_point(overlapping, None, 50, 60, scores=scores)
    assert one.ranks == inspect_point(overlapping, None, 50, 60).ranks


def test_a_value_that_is_not_finite_has_no_rank(slide):
    def sometimes(batch):
        mean = batch.mean((1, 2, 3))
        mean[batch[:, 0, 0, 0] < 0.5] = float("nan")
        return mean

    heatmap = wh.compute_heatmap(slide, sometimes, window=50, **QUIET)
    nan = np.flatnonzero(np.isnan(heatmap.values[0]))
    assert 0 < len(nan) < heatmap.grid.size
    found = inspect_window(heatmap, None, int(nan[0]))
    assert found.state == "done"
    assert found.ranks == (None,)
    other = inspect_window(heatmap, None, int(np.flatnonzero(np.isfinite(heatmap.values[0]))[0]))
    assert other.ranks[0].of == heatmap.grid.size - len(nan)
