"""Blending: equal to the slow way, exact where one window lies, NaN never wipes out a value."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from dense_reference import (
    BLENDS,
    add,
    assert_blended,
    frame_of,
    holey_quarters,
    naive_outputs,
    outputs,
    reference,
)
from made import FaultySlide, mean_grey, noise_slide
from napari_wsi_heatmap.blend import blend_weights, overlaps
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import GridError, PlanMismatchError
from napari_wsi_heatmap.launch import prepare, resume
from napari_wsi_heatmap.settings import RunSettings
from napari_wsi_heatmap.states import BACKGROUND, FAILED, NOT_FINITE, PENDING, state_of

SETTINGS = {"window": 32, "tissue": "none", "batch_size": 8}
BAD = {(40, 50), (41, 100), (120, 7)}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(DenseMap, "chunk", 16)
    monkeypatch.setattr(DenseMap, "tile", 8)


def blended(frame, values, blend, order=None, state=None):
    growing = DenseMap(
        frame, np.zeros(frame.grid.shape, np.uint8) if state is None else state, blend
    )
    for i in np.arange(frame.grid.size) if order is None else order:
        add(growing, [i], values)
    return growing.values


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("edge", ["pad", "flush", "drop", "centre"])
@pytest.mark.parametrize("stride", [16, 32, 48, 64])
def test_equal_to_the_slow_way(blend, edge, stride):
    frame = frame_of((203, 171), stride=stride, edge=edge)
    values = outputs(frame, seed=stride)
    rng = np.random.default_rng(stride)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[rng.random(frame.grid.size) < 0.2] = np.nan
    expected = reference(frame, values, range(frame.grid.size), blend)
    found = blended(frame, values, blend)
    assert_blended(found, expected, blend)
    again = blended(frame, values, blend, rng.permutation(frame.grid.size))
    assert np.array_equal(found, again, equal_nan=True)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(("window", "stride"), [((64, 64), 16), ((96, 64), 32), ((32, 128), 32)])
def test_a_model_that_says_one_thing_gives_one_thing(blend, window, stride):
    heatmap = wh.compute_heatmap(
        noise_slide(150, 333),
        lambda batch: batch.new_full((len(batch), 1, window[0] // 16, window[1] // 16), 0.1),
        **SETTINGS | {"window": window},
        stride=stride,
        blend=blend,
        progress=False,
    )
    assert heatmap.frame.cell == (16, 16)
    assert np.array_equal(heatmap.values, np.full_like(heatmap.values, np.float32(0.1)))


@pytest.mark.parametrize("blend", BLENDS)
def test_a_cell_under_one_window_is_that_windows_to_the_bit(blend):
    frame = frame_of(stride=64)
    values = outputs(frame)
    values[0, 0, 0] = [np.inf, -np.inf, np.float32(1e-45), np.finfo(np.float32).max]
    found = blended(frame, values, blend)
    for i in range(frame.grid.size):
        y, x = frame.box(i)
        assert np.array_equal(found[:, y, x], values[i])


@pytest.mark.parametrize("blend", BLENDS)
def test_an_infinite_value_takes_part(blend):
    expected = 1 if blend == "last" else np.inf
    frame = frame_of((64, 128), stride=32, channels=1)
    values = np.ones((frame.grid.size, 1, 4, 4), np.float32)
    values[0] = np.inf
    found = blended(frame, values, blend)[0]
    assert (found[:, :2] == np.inf).all()
    assert (found[:, 2:4] == expected).all()
    assert (found[:, 4:] == 1).all()


def test_infinities_of_both_signs_have_no_mean():
    frame = frame_of((64, 96), stride=32, channels=1)
    values = np.array([np.inf, -np.inf], np.float32).reshape(2, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    assert np.isnan(blended(frame, values, "mean")[0, :, 2:4]).all()
    assert (blended(frame, values, "max")[0, :, 2:4] == np.inf).all()


def test_weights_fall_from_the_middle_and_never_to_nothing():
    for cells in [(1, 1), (2, 3), (7, 16), (224, 224), (1, 4096)]:
        weights = blend_weights("gaussian", cells)
        assert weights.shape == cells
        assert weights.min() > 1e-8
        assert np.array_equal(weights, weights[::-1, ::-1])
        assert weights.max() <= 1
    bell = blend_weights("gaussian", (1, 64))[0, 32:]
    assert all(b < a for a, b in pairwise(bell))
    assert bell[-1] == pytest.approx(np.exp(-0.5 * (31.5 / 8) ** 2))


def test_many_channels_are_blended_alike():
    frame = frame_of((128, 128), channels=150)
    values = outputs(frame)
    found = blended(frame, values, "gaussian")
    for c in (0, 63, 64, 149):
        alone = blended(frame_of((128, 128), channels=1), values[:, c : c + 1], "gaussian")
        assert np.array_equal(found[c], alone[0])


def faulty():
    return FaultySlide(noise_slide(150, 211), BAD)


def run_to(out, slide, stop=None, **settings):
    run = prepare(slide, holey_quarters, out=out, **SETTINGS, **settings)
    pieces = run.pieces()
    for n, _ in enumerate(pieces):
        if n + 1 == stop:
            break
    pieces.close()
    return run.heatmap


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(
    ("stride", "edge"), [(8, "pad"), (16, "flush"), (24, "drop"), (24, "pad"), (32, "flush")]
)
def test_failed_windows_and_nan_in_any_order_and_after_any_stop(tmp_path, blend, stride, edge):
    settings = {"stride": stride, "edge": edge, "blend": blend}
    whole = run_to(tmp_path / "raster.zarr", faulty(), **settings)
    failed = state_of(whole.state) == FAILED
    tops, lefts = whole.grid.origins(np.arange(whole.grid.size)).T
    touched = [(t <= y) & (y < t + 32) & (lf <= x) & (x < lf + 32)
               for y, x in BAD for t, lf in [(tops, lefts)]]  # fmt: skip
    assert np.array_equal(failed.ravel(), np.any(touched, 0))

    values = naive_outputs(whole, noise_slide(150, 211), holey_quarters)
    good = np.flatnonzero(~failed).tolist()
    assert_blended(whole.values, reference(whole.frame, values, good, blend), blend)
    not_finite = np.isnan(values).any((1, 2, 3)) & ~failed.ravel()
    assert np.array_equal((whole.state & NOT_FINITE).ravel() > 0, not_finite)
    assert whole.run["counts"]["not_finite"] == not_finite.sum() > 0

    view = {"order": "viewport", "viewport": (100, 150, 150, 211)}
    other = run_to(tmp_path / "viewport.zarr", faulty(), **settings, **view)
    assert np.array_equal(other.values, whole.values, equal_nan=True)
    batches = -(-whole.grid.size // 8)
    stops = np.random.default_rng(stride).integers(1, batches + 1, 3)
    for part in (*stops, None):
        run_to(tmp_path / "parts.zarr", faulty(), part, **settings)
    saved = wh.open_heatmap(tmp_path / "parts.zarr")
    assert saved.run["status"] == "done-with-failures"
    assert np.array_equal(saved.values, whole.values, equal_nan=True)
    assert np.array_equal(saved.state, whole.state)


@pytest.mark.parametrize("blend", BLENDS)
def test_a_cell_whose_windows_all_failed_stays_empty_until_they_are_tried_again(tmp_path, blend):
    slide = FaultySlide(noise_slide(150, 211), {(y, 60) for y in range(150)})
    whole = run_to(None, noise_slide(150, 211), stride=16, blend=blend)
    holes = run_to(tmp_path / "a.zarr", slide, stride=16, blend=blend)
    lost = np.isnan(holes.values) & ~np.isnan(whole.values)
    assert lost[:, :, 6:8].any()
    assert not lost[:, :, :3].any()
    assert np.array_equal(holes.values[:, :, 20:], whole.values[:, :, 20:], equal_nan=True)
    slide.bad.clear()
    run = resume(tmp_path / "a.zarr", slide=slide, model=holey_quarters, again=True)
    for _ in run.pieces():
        pass
    assert np.array_equal(run.heatmap.values, whole.values, equal_nan=True)
    assert np.array_equal(wh.open_heatmap(tmp_path / "a.zarr").state, whole.state)


def test_background_gives_nothing():
    frame, state = frame_of(), np.zeros((9, 8), np.uint8)
    state[:, 3] = BACKGROUND
    values, some = outputs(frame), np.flatnonzero(state_of(state) == PENDING)
    for blend in BLENDS:
        found = blended(frame, values, blend, some, state)
        assert_blended(found, reference(frame, values, some.tolist(), blend), blend)


def test_another_blend_is_refused_only_where_it_decides_values(tmp_path):
    slide = noise_slide(150, 211)
    first = run_to(tmp_path / "a.zarr", slide, stride=16, blend="gaussian")
    assert first.run["plan"]["blend"] == first.run["settings"]["blend"] == "gaussian"
    with pytest.raises(PlanMismatchError, match=r"another blend .*gaussian.* → .*mean"):
        run_to(tmp_path / "a.zarr", slide, stride=16)
    run_to(tmp_path / "b.zarr", slide, stride=32, blend="max")
    again = run_to(tmp_path / "b.zarr", slide, stride=32, blend="last")
    assert "blend" not in again.run["plan"]
    single = prepare(slide, mean_grey, **SETTINGS, stride=16, blend="last")
    assert "blend" not in single.record["plan"]


def test_windows_moved_inside_overlap_as_well():
    assert not overlaps(frame_of((128, 128), stride=64))
    assert not overlaps(frame_of((150, 128), stride=64, edge="pad"))
    assert overlaps(frame_of((144, 128), stride=64, edge="flush"))
    assert not overlaps(frame_of(stride=32, cells=(1, 1)))


def test_the_command_line_knows_it(tmp_path):
    from napari_wsi_heatmap import cli

    args = ["run", "a.svs", "--model", "focus", "--out", str(tmp_path / "a.zarr")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*args, "--blend", "median"])
    assert ended.value.code == 2
    assert cli.main([*args, "--blend", "last", "--quiet"]) == 1  # there is no such slide


@pytest.mark.parametrize("value", [None, "median", 3])
def test_what_is_no_blend_is_refused(value):
    with pytest.raises(GridError, match=r"blend is .* - choose one of mean, gaussian, max, last"):
        RunSettings.of({"blend": value})
