"""What overlapping windows differ by: cell by cell as by hand, the same bits in any order."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from dense_reference import BLENDS, add, cells_of, frame_of, outputs, weight_of
from made import mean_grey, mean_rgb, noise_slide, quarter_means
from napari_wsi_heatmap import disagreement as module
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.disagreement import KIND
from napari_wsi_heatmap.errors import GridError, PlanMismatchError
from napari_wsi_heatmap.states import DONE, PENDING, state_of

SETTINGS = {"level": 0, "batch_size": 4, "tissue": "none"}


def computed(model=mean_grey, **settings):
    settings = SETTINGS | {"window": 32, "stride": 8} | settings
    return wh.compute_heatmap(noise_slide(90, 130), model, progress=False, **settings)


def by_hand(heatmap, found, channel=0):
    """(My, Mx): std of the windows that hold a cell as a whole, by positions in level-0 pixels."""
    scale, offset = np.asarray(found.frame.scale), np.asarray(found.frame.offset)
    expected = np.full(found.values.shape[1:], np.nan)
    index, values = heatmap.window_values()
    corners = heatmap.grid.positions(index)
    side = np.asarray(heatmap.window_size)
    for cell in np.ndindex(expected.shape):
        top_left = offset + cell * scale - (scale - 1) / 2
        inside = ((corners <= top_left + 1e-6) & (top_left + scale <= corners + side + 1e-6)).all(1)
        if inside.any():
            expected[cell] = values[inside, channel].astype(np.float64).std()
    return expected


@pytest.mark.parametrize(
    ("window", "stride"), [(32, 8), (32, 16), (40, 16), (32, (8, 32)), ((24, 48), (12, 16))]
)
def test_each_cell_is_the_std_of_the_windows_that_hold_it(window, stride):
    heatmap = computed(mean_rgb, window=window, stride=stride)
    found = heatmap.disagreement()
    assert found.names == heatmap.names
    assert found.values.dtype == np.float32
    for channel in range(3):
        expected = by_hand(heatmap, found, channel)
        np.testing.assert_allclose(found.values[channel], expected, rtol=1e-5, atol=1e-7)
    assert np.nanmax(found.values) > 0


def test_a_cell_under_one_window_alone_is_0_and_equal_windows_agree():
    found = computed().disagreement()
    assert found.values[0, 0, 0] == 0
    same = computed(lambda batch: batch[:, 0, 0, 0] * 0 + 0.3)
    assert (same.disagreement().values == 0).all()


def test_windows_moved_inside_lie_over_the_cells_of_others():
    heatmap = computed(window=32, stride=16, edge="flush")
    found = heatmap.disagreement()
    assert np.isfinite(found.values).all()
    assert found.values.shape[1:] == (6, 8)


def test_what_is_not_computed_takes_no_part(tmp_path):
    out = tmp_path / "a.zarr"
    pieces = wh.run(noise_slide(90, 130), mean_grey, out=out, window=32, stride=8, **SETTINGS)
    for _ in range(20):
        next(pieces)
    pieces.close()
    heatmap = wh.open_heatmap(out)
    assert {DONE, PENDING} == set(np.unique(state_of(heatmap.state)))
    found = heatmap.disagreement()
    np.testing.assert_allclose(found.values[0], by_hand(heatmap, found), rtol=1e-5, atol=1e-7)
    assert np.isnan(found.values).any()


def test_it_is_a_heatmap_that_lies_where_it_should_and_is_exported(tmp_path):
    heatmap = computed()
    found = heatmap.disagreement()
    assert found.run["kind"] == KIND
    assert found.frame.scale == (8, 8)
    assert found.frame.offset == (3.5, 3.5)
    assert found.run["model"]["name"] == "mean_grey disagreement"
    assert found.export(tmp_path / "a.csv").is_file()
    assert found.export(tmp_path / "a.png").is_file()
    assert len(found.to_dataframe()) == heatmap.grid.size
    with pytest.raises(GridError, match="already"):
        found.disagreement()


def test_channels_of_uncertainty_are_not_compared():
    found = computed(mean_rgb, tta="flips").disagreement()
    assert found.names == ("0", "1", "2")


def test_where_there_is_nothing_to_compare_it_says_so(tmp_path):
    with pytest.raises(GridError, match=r"overlap too little.* - choose a stride of at most half"):
        computed(stride=24).disagreement()
    out = tmp_path / "list.zarr"
    wh.predict_windows(noise_slide(), mean_grey, [(0, 0), (5, 9)], window=32, level=0, out=out)
    with pytest.raises(GridError, match="lie on no lattice"):
        wh.open_heatmap(out).disagreement()
    with pytest.raises(GridError, match="disagreement=True"):
        computed(quarter_means, stride=16).disagreement()


def reference(frame, values, blend, compared):
    """(My, Mx) float64 by loops over the cells."""
    variances = {}
    for (channel, y, x), given in cells_of(frame, values, range(frame.grid.size)).items():
        if channel >= compared:
            continue
        weights = np.array([weight_of(blend, *at, *frame.patch_cells) for _, at in given])
        seen = np.array([value for value, _ in given])
        mean = (weights * seen).sum() / weights.sum()
        variance = (weights * (seen - mean) ** 2).sum() / weights.sum()
        variances.setdefault((y, x), []).append(variance)
    expected = np.full(frame.shape[1:], np.nan)
    for cell, each in variances.items():
        expected[cell] = np.sqrt(np.mean(each))
    return expected


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(DenseMap, "chunk", 16)
    monkeypatch.setattr(DenseMap, "tile", 8)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("blend", BLENDS)
def test_dense_windows_are_compared_as_they_are_blended(blend):
    given, frame = frame_of(channels=2), frame_of(channels=3)
    values = outputs(given)
    values[::7, :, 1] = np.nan
    values[5] = np.nan
    maps = []
    for seed in (0, 1, 2):
        growing = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8), blend, compared=2)
        for part in np.array_split(np.random.default_rng(seed).permutation(frame.grid.size), 7):
            add(growing, part, values)
        maps.append(growing.values)
    assert all(np.array_equal(one, maps[0], equal_nan=True) for one in maps)
    plain = DenseMap(given, np.zeros(frame.grid.shape, np.uint8), blend)
    add(plain, np.arange(frame.grid.size), values)
    assert np.array_equal(maps[0][:2], plain.values, equal_nan=True)
    expected = reference(given, values, blend, 2)
    np.testing.assert_allclose(maps[0][2], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("small_chunks")
def test_many_channels_are_compared_some_at_a_time(monkeypatch):
    frame = frame_of(channels=4, side=(128, 96))
    values = outputs(frame_of(channels=3, side=(128, 96)))

    def spread():
        growing = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8), compared=3)
        add(growing, np.arange(frame.grid.size), values)
        return growing.values[-1]

    whole = spread()
    monkeypatch.setattr(module, "CHANNELS_AT_ONCE", 2)
    np.testing.assert_allclose(spread(), whole, rtol=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_a_dense_run_keeps_it_as_a_channel_through_stops(tmp_path):
    settings = {"stride": 16, "disagreement": True, "blend": "gaussian"}
    whole = computed(quarter_means, **settings)
    assert whole.names == ("0", "1", "2", KIND)
    assert whole.uncertainty == (KIND,)
    out = tmp_path / "a.zarr"
    pieces = wh.run(noise_slide(90, 130), quarter_means, out=out, window=32, **SETTINGS, **settings)
    for _ in range(4):
        next(pieces)
    pieces.close()
    with pytest.raises(PlanMismatchError, match="disagreement"):
        computed(quarter_means, out=out, **settings | {"disagreement": False})
    computed(quarter_means, out=out, **settings)
    continued = wh.open_heatmap(out)
    assert np.array_equal(continued.values, whole.values)
    found = continued.disagreement()
    assert found.names == (KIND,)
    assert np.array_equal(found.values[0], whole.values[-1])
    assert found.frame.scale == whole.frame.scale
    plain = computed(quarter_means, stride=16, blend="gaussian")
    assert np.array_equal(plain.values, whole.values[:3])
    assert whole.classes().names == ("0", "1", "2")


def test_where_nothing_overlaps_nothing_is_added():
    assert computed(quarter_means, stride=32, disagreement=True).names == ("0", "1", "2")
    assert computed(mean_rgb, disagreement=True).names == ("0", "1", "2")
