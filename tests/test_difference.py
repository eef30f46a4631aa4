"""The difference of two heatmaps: while both grow, and of finished ones."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import napari_wsi_heatmap as wh
from dense_reference import BLENDS, add, frame_of, outputs
from made import FaultySlide, mean_rgb, noise_slide, quarter_means
from napari_wsi_heatmap import difference
from napari_wsi_heatmap.dense import DenseMap, new_map
from napari_wsi_heatmap.difference import Difference, states_of_both, symmetric
from napari_wsi_heatmap.errors import GridError, HeatmapError, ModelOutputError, StoreFullError
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.states import (
    BACKGROUND,
    DONE,
    FAILED,
    HANGS_OVER,
    NOT_FINITE,
    OUTSIDE,
    PENDING,
    state_of,
)

SETTINGS = {"window": 64, "stride": 48, "tissue": "none", "level": 0}
QUIET = SETTINGS | {"progress": False}


def red(batch):
    return batch[:, 0].mean((1, 2))


def blue(batch):
    return batch[:, 2].mean((1, 2))


def dark_quarters(batch):
    return 1 - quarter_means(batch) ** 2


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(DenseMap, "chunk", 16)
    monkeypatch.setattr(DenseMap, "tile", 8)


def plain_frame(shape=(7, 9), channels=2):
    spec = WindowSpec(0, (1.0, 1.0), (8, 8), (8, 8), (8, 8))
    return lay_frame(lay_grid(spec, (8 * shape[0], 8 * shape[1]), "pad"), channels)


def empty(frame, blend="mean"):
    return new_map(frame, np.zeros(frame.grid.shape, np.uint8), blend)


def whole(first, second):
    """What every update must lead to."""
    with np.errstate(invalid="ignore", over="ignore"):
        return first.values - second.values


def assert_equal(differing, first, second):
    np.testing.assert_array_equal(differing.values, whole(first, second))
    np.testing.assert_array_equal(differing.state, states_of_both(first.state, second.state))


# while both grow


@pytest.mark.parametrize("order", range(4))
def test_of_plain_maps_follows_both_in_any_order(order):
    frame, rng = plain_frame(), np.random.default_rng(order)
    values = rng.standard_normal((2, frame.grid.size, 2)).astype(np.float32)
    maps = empty(frame), empty(frame)
    differing = Difference(*maps)
    assert np.isnan(differing.values).all()
    turns = [(m, part) for m in (0, 1) for part in np.array_split(rng.permutation(63), 11)]
    for m, part in (turns[i] for i in rng.permutation(len(turns))):
        add(maps[m], part, values[m])
        before = differing.version
        differing.update(part)
        assert differing.version > before
        assert_equal(differing, *maps)
        both = np.logical_and(*(state_of(each.state) == DONE for each in maps))
        np.testing.assert_array_equal(np.isfinite(differing.values[0]), both)
    assert not differing.pending.any()
    expected = (values[0] - values[1]).T.reshape(frame.shape)
    np.testing.assert_array_equal(differing.values, expected)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("stride", [32, 64])
def test_of_dense_maps_knows_what_a_window_completed(blend, stride):
    frame = frame_of(stride=stride)
    rng = np.random.default_rng(stride)
    values = outputs(frame, 1), outputs(frame, 2)
    maps = empty(frame, blend), empty(frame, blend)
    differing = Difference(*maps)
    turns = [
        (m, part) for m in (0, 1) for part in np.array_split(rng.permutation(frame.grid.size), 9)
    ]
    for m, part in (turns[i] for i in rng.permutation(len(turns))):
        add(maps[m], part, values[m])
        differing.update(part)
        assert_equal(differing, *maps)
    assert np.isfinite(differing.values).all()


def test_an_update_touches_its_cells_alone(small_tiles):
    for frame in (plain_frame((40, 40)), frame_of((900, 900))):
        maps = empty(frame), empty(frame)
        differing = Difference(*maps)
        for growing in maps:
            growing.values[:] = 1.0
        differing.update(np.array([0, 1]))
        touched = np.isfinite(differing.values[0])
        assert 0 < touched.sum() <= 2 * 16 * 16
        assert not touched[16:].any()


def test_what_earlier_sessions_computed_is_there_from_the_start():
    for frame in (plain_frame(), frame_of()):
        maps, values = (empty(frame), empty(frame)), outputs(frame)
        if not frame.dense:
            values = values.mean((2, 3))
        for growing in maps:
            add(growing, range(5), values)
        differing = Difference(*maps)
        assert_equal(differing, *maps)
        assert np.count_nonzero(state_of(differing.state) == DONE) == 5


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, 3e38])
def test_values_that_are_not_finite_are_subtracted_without_a_word(odd):
    frame = plain_frame()
    maps = empty(frame), empty(frame)
    values = np.full((frame.grid.size, 2), odd, np.float32)
    add(maps[0], range(10), values)
    add(maps[1], range(10), -values)
    add(maps[1], range(5), values)
    differing = Difference(*maps)
    differing.update(np.arange(10))
    assert_equal(differing, *maps)


def test_values_of_windows_that_both_have():
    for frame in (plain_frame(), frame_of(stride=64)):
        maps = empty(frame), empty(frame)
        a, b = (outputs(frame, seed) for seed in (1, 2))
        if not frame.dense:
            a, b = a.mean((2, 3)), b.mean((2, 3))
        add(maps[0], range(8), a)
        add(maps[1], range(3, 12), b)
        differing = Difference(*maps)
        found = differing.of(np.arange(2, 10))
        np.testing.assert_array_equal(found, (a - b)[3:8])
        assert differing.of(np.array([0])).shape == (0, *a.shape[1:])


def test_a_large_one_lies_in_a_scratch_file_or_says_that_there_is_no_room(monkeypatch, tmp_path):
    frame = plain_frame()
    maps = empty(frame), empty(frame)
    monkeypatch.setattr("napari_wsi_heatmap.growing.SCRATCH_BYTES", 100)
    assert isinstance(Difference(*maps).values, np.memmap)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(StoreFullError, match="no room for a difference"):
        Difference(*maps)


def test_maps_that_do_not_lie_on_each_other_are_refused():
    one = plain_frame()
    with pytest.raises(GridError, match=r"level size \(56, 72\) and \(64, 72\)"):
        Difference(empty(one), empty(plain_frame((8, 9))))
    with pytest.raises(ModelOutputError, match="2 outputs and the other 3"):
        Difference(empty(one), empty(plain_frame(channels=3)))
    dense = frame_of()
    sparse = GrowingMap(lay_frame(dense.grid, 2), np.zeros(dense.grid.shape, np.uint8))
    with pytest.raises(GridError, match=r"cells a window \(4, 4\) and \(1, 1\)"):
        Difference(empty(dense), sparse)


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (DONE, DONE, DONE),
        (DONE, PENDING, PENDING),
        (PENDING, FAILED, PENDING),
        (DONE, FAILED, FAILED),
        (BACKGROUND, DONE, BACKGROUND),
        (OUTSIDE, BACKGROUND, OUTSIDE),
        (DONE | HANGS_OVER, DONE | HANGS_OVER, DONE | HANGS_OVER),
        (DONE | NOT_FINITE, DONE, DONE | NOT_FINITE),
        (15, DONE, PENDING),
    ],
)
def test_states_of_both(first, second, joined):
    one, other = np.array([first], np.uint8), np.array([second], np.uint8)
    for found in (states_of_both(one, other), states_of_both(other, one)):
        assert found.dtype == np.uint8
        assert found.tolist() == [joined]


def test_limits_are_symmetric():
    assert symmetric((-1.0, 3.0)) == (-3.0, 3.0)
    assert symmetric((-4.0, 3.0)) == (-4.0, 4.0)
    assert symmetric((0.0, 0.0)) == (-1.0, 1.0)


@pytest.mark.parametrize("models", [(red, blue), (quarter_means, dark_quarters)])
@pytest.mark.parametrize("order", ["viewport", "raster"])
def test_a_run_of_two_models_is_followed_to_its_end(models, order):
    run = prepare(noise_slide(), list(models), order=order, **SETTINGS)
    maps = [share.growing for share in run.shares]
    differing, seen = Difference(*maps), 0
    with closing(run.pieces()) as pieces:
        for piece in pieces:
            differing.update(piece.index)
            if seen % 5 == 0:
                assert_equal(differing, *maps)
            seen += 1
    assert seen > 5
    first, second = run.heatmaps
    np.testing.assert_array_equal(differing.values, first.minus(second).values)
    np.testing.assert_array_equal(differing.state, first.minus(second).state)


def test_a_window_that_could_not_be_read_has_none():
    slide = FaultySlide(noise_slide(), bad=[(100, 100)])
    run = prepare(slide, [red, blue], **SETTINGS)
    differing = Difference(*(share.growing for share in run.shares))
    for piece in run.pieces():
        differing.update(piece.index)
    failed = state_of(differing.state) == FAILED
    assert failed.any()
    np.testing.assert_array_equal(np.isnan(differing.values[0]), failed)
    found = run.heatmaps[0].minus(run.heatmaps[1])
    assert found.run["counts"]["failed"] == failed.sum()
    assert [i for i, _ in found.run["failed"]] == np.flatnonzero(failed).tolist()
    assert "damaged" in found.run["failed"][0][1]


# of finished heatmaps


@pytest.fixture(scope="module")
def pair():
    """Heatmaps of two models of one output each."""
    return wh.compute_heatmap(noise_slide(), [red, blue], **QUIET)


def test_minus_is_first_minus_second(pair):
    first, second = pair
    found = first.minus(second)
    np.testing.assert_array_equal(found.values, first.values - second.values)
    np.testing.assert_array_equal(second.minus(first).values, -found.values)
    np.testing.assert_array_equal(found.positions, first.positions)
    assert (found.state == first.state).all()
    assert found.names == ("red − blue",)
    assert found.path is None
    assert "red − blue" in repr(found)
    low, high = found.run["model"]["limits"]
    assert low == -high < 0
    within = np.abs(found.values) <= high
    assert 0.97 < within.mean() <= 1
    assert found.run["counts"] == first.run["counts"]
    assert (found.run["kind"], found.run["status"]) == ("difference", "done")
    plans = [heatmap.run["plan_sha256"] for heatmap in pair]
    assert [each["plan_sha256"] for each in found.run["of"]] == plans


def test_minus_of_saved_and_unfinished_ones(tmp_path):
    run = prepare(noise_slide(3000, 3000), [red, blue], out=tmp_path, **SETTINGS)
    with closing(run.pieces()) as pieces:
        while not all((state_of(share.growing.state) == DONE).any() for share in run.shares):
            next(pieces)
    first, second = (wh.open_heatmap(share.output.path) for share in run.shares)
    found = first.minus(second)
    done = state_of(found.state) == DONE
    assert 0 < done.sum() < done.size
    np.testing.assert_array_equal(np.isfinite(found.values[0]), done)
    assert found.run["status"] == "paused"
    assert found.run["of"][0]["path"] == str(tmp_path / "red.zarr")


def test_a_difference_is_exported_like_any_heatmap(pair, tmp_path):
    found = pair[0].minus(pair[1])
    table = pd.read_csv(found.export(tmp_path / "a.csv"))
    np.testing.assert_array_equal(table["red − blue"].to_numpy(np.float32), found.values.ravel())
    assert (found.to_dataframe().columns == ["x", "y", "red − blue"]).all()
    usual = found.export(tmp_path / "a.png", slide=noise_slide())
    named = found.export(tmp_path / "b.png", slide=noise_slide(), cmap="matplotlib:coolwarm")
    with Image.open(usual) as image, Image.open(named) as same:
        assert np.array(image).std() > 10
        np.testing.assert_array_equal(np.array(image), np.array(same))
    griddata = json.loads(found.export(tmp_path / "a.json").read_text())
    ends = griddata["elements"][0]
    assert ends["rangeValues"][0] == -ends["rangeValues"][-1]
    assert ends["rangeValues"][4] == 0


def test_probabilities_are_none_any_more(tmp_path):
    models = [wh.load_model(model, activation="sigmoid") for model in (red, blue)]
    first, second = wh.compute_heatmap(noise_slide(), models, **QUIET)
    found = first.minus(second)
    assert found.run["model"]["activation"] is None
    assert found.run["model"]["limits"] != [0, 1]
    text = found.export(tmp_path / "a.csv").read_text(encoding="utf-8")
    assert "prob_" not in text


def test_names_of_outputs():
    slide, names = noise_slide(), ["tumour", "stroma", "rest"]
    one, other = (wh.load_model(model, names=names) for model in (mean_rgb, darkness))
    first, second = wh.compute_heatmap(slide, [one, other], **QUIET)
    found = first.minus(second)
    assert found.names == tuple(names)
    assert found.run["model"]["name"] == "mean_rgb − darkness"
    third = wh.compute_heatmap(slide, wh.load_model(mean_rgb, names=names[::-1]), **QUIET)
    with pytest.raises(ModelOutputError, match=r"tumour, stroma, rest and rest, stroma, tumour"):
        first.minus(third)
    fourth = wh.compute_heatmap(slide, red, **QUIET)
    with pytest.raises(ModelOutputError, match="3 outputs and the other 1"):
        first.minus(fourth)
    named = wh.compute_heatmap(slide, wh.load_model(red, names=["nuclei"]), **QUIET)
    assert named.minus(fourth).names == ("nuclei − value",)


def darkness(batch):
    return 1 - mean_rgb(batch)


def test_models_of_one_name_are_told_apart_by_their_stores(tmp_path):
    models = [torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()) for _ in "ab"]
    first, second = wh.compute_heatmap(noise_slide(), models, out=tmp_path, **QUIET)
    assert first.run["model"]["name"] == second.run["model"]["name"]
    assert first.minus(second).run["model"]["name"] == f"{first.path.stem} − {second.path.stem}"


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        ({"stride": 32}, r"stride \(48, 48\) and \(32, 32\)"),
        ({"window": 80}, r"footprint \(64, 64\) and \(80, 80\)"),
        ({"edge": "flush"}, "edge pad and flush"),
    ],
)
def test_other_windows_are_refused(pair, settings, differs):
    other = wh.compute_heatmap(noise_slide(), blue, **QUIET | settings)
    with pytest.raises(GridError, match=differs) as refused:
        pair[0].minus(other)
    assert "\n" not in str(refused.value)


def test_other_slides_are_refused(pair):
    other = noise_slide()
    other.name, other._fingerprint = "another", "0"
    with pytest.raises(HeatmapError, match="of two slides - noise and another"):
        pair[0].minus(wh.compute_heatmap(other, blue, **QUIET))


def test_lists_of_windows_are_refused(pair, tmp_path):
    wh.predict_windows(noise_slide(), red, [[0, 0], [10, 30]], out=tmp_path / "a.zarr", **SETTINGS)
    with pytest.raises(GridError, match="a list of windows has no difference"):
        pair[0].minus(wh.open_heatmap(tmp_path / "a.zarr"))


def test_it_needs_no_torch():
    code = f"import sys, {difference.__name__}, {difference.__name__[:-10]}minus\n"
    code += "assert not {'torch', 'napari', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
