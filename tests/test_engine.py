"""The loop: equal to one read per window, whatever is asked; every end leaves what was computed."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import (
    FaultySlide,
    mean_grey,
    mean_rgb,
    naive,
    noise_slide,
    pyramid_slide,
    quarter_means,
)
from napari_wsi_heatmap import growing, runfolder, slidewatch, store, writer
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import (
    GridError,
    ModelLoadError,
    ModelOutputError,
    ModelRunError,
    PlanMismatchError,
    SlideChangedError,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
)
from napari_wsi_heatmap.launch import complete, prepare
from napari_wsi_heatmap.states import DONE, FAILED, HANGS_OVER, NOT_FINITE, state_of

QUIET = {"tissue": "none", "progress": False}


def compute(slide, function, **settings):
    return wh.compute_heatmap(slide, function, **{**QUIET, "window": 64, **settings})


@pytest.mark.parametrize("edge", ["pad", "flush", "drop", "centre"])
@pytest.mark.parametrize("stride", [40, 64, 100])
def test_equals_one_read_per_window(edge, stride):
    slide = noise_slide(500, 700)
    heatmap = compute(slide, mean_rgb, stride=stride, edge=edge)
    assert heatmap.values.shape == (3, *heatmap.grid.shape)
    np.testing.assert_allclose(heatmap.values, naive(heatmap, slide, mean_rgb), atol=1e-6)
    assert (state_of(heatmap.state) == DONE).all()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_is_read_at_its_own_pixels(level):
    slide = pyramid_slide()
    heatmap = compute(slide, mean_grey, window=24, stride=20, level=level)
    np.testing.assert_allclose(heatmap.values, naive(heatmap, slide, mean_grey), atol=1e-6)
    down = np.array(slide.levels[level].downsample)
    assert heatmap.positions[1, 1] == pytest.approx(20 * down)


@pytest.mark.parametrize("settings", [
    {"order": "viewport", "viewport": (100, 100, 300, 500)},
    {"order": "viewport"},
    {"readers": 1, "memory": 1},
    {"readers": 5},
])  # fmt: skip
def test_order_threads_and_memory_do_not_change_a_bit(settings):
    slide = noise_slide(1500, 2600)
    plain = compute(slide, mean_rgb, stride=24)
    assert np.array_equal(compute(slide, mean_rgb, stride=24, **settings).values, plain.values)


def test_a_window_is_resized_to_the_models_pixels():
    slide = noise_slide(mpp=0.4)
    seen = []

    def spy(batch):
        seen.append(tuple(batch.shape))
        return batch.mean((1, 2, 3))

    heatmap = compute(slide, spy, window=48, mpp=0.5)
    assert {shape[1:] for shape in seen} == {(3, 48, 48)}
    assert heatmap.grid.spec.footprint == (60, 60)


@pytest.mark.parametrize("resize", ["pillow", "torch"])
def test_resized_windows_equal_pillow_within_the_filters_tolerance(resize):
    from PIL import Image

    slide = noise_slide(mpp=0.4)
    heatmap = compute(slide, mean_grey, window=48, mpp=0.5, resize=resize)
    expected = []
    for y, x in heatmap.grid.origins(np.arange(heatmap.grid.size)).tolist():
        patch = Image.fromarray(slide.read_region(0, y, x, 60, 60))
        expected.append(np.asarray(patch.resize((48, 48), Image.Resampling.BILINEAR)).mean() / 255)
    tolerance = {"pillow": 1e-6, "torch": 2 / 255}[resize]
    np.testing.assert_allclose(heatmap.values.ravel(), expected, atol=tolerance)


def test_pieces_are_what_the_heatmap_holds():
    slide = noise_slide()
    run = prepare(slide, mean_rgb, window=64, tissue="none")
    index = []
    for piece in run.pieces():
        rows, cols = np.divmod(piece.index, run.heatmap.grid.shape[1])
        assert np.array_equal(run.heatmap.values[:, rows, cols].T, piece.values)
        assert np.array_equal(run.heatmap.positions[rows, cols], piece.positions)
        assert np.array_equal(run.heatmap.state[rows, cols], piece.state)
        assert len(piece) == len(piece.values)
        index += piece.index.tolist()
    assert sorted(index) == list(range(run.plan.grid.size))
    assert (run.heatmap.state[:, -1] & HANGS_OVER).all()


def test_dense_outputs_lie_where_they_belong():
    slide = noise_slide(512, 640)
    heatmap = compute(slide, quarter_means, stride=32)
    cells = slide.read_region(0, 0, 0, 512, 640).reshape(32, 16, 40, 16, 3).mean((1, 3)) / 255
    np.testing.assert_allclose(
        heatmap.values[:, :32, :40], cells.transpose(2, 0, 1), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("function", [mean_rgb, quarter_means])
def test_stopped_and_continued_gives_the_same_bits(tmp_path, function):
    slide = noise_slide(1000, 1400)
    whole = compute(slide, function, stride=32, out=tmp_path / "whole.zarr")
    parts = tmp_path / "parts.zarr"
    for stop in (1, 7, 12):
        pieces = wh.run(slide, function, window=64, stride=32, tissue="none", out=parts)
        for _ in range(stop):
            next(pieces)
        pieces.close()
        record = json.loads((parts / "run.json").read_text())
        assert (record["status"], record["reason"]) == ("paused", "interrupted")
    again = compute(slide, function, stride=32, out=parts)
    opened = wh.open_heatmap(parts)
    for heatmap in (again, opened):
        assert np.array_equal(heatmap.values, whole.values)
        assert np.array_equal(heatmap.state, whole.state)
    assert opened.run["status"] == "done"
    assert opened.names == whole.names


def test_a_finished_output_is_not_computed_again(tmp_path):
    out, calls = tmp_path / "a.zarr", []

    def counting(batch):
        calls.append(len(batch))
        return batch.mean((1, 2, 3))

    first = compute(noise_slide(), counting, out=out)
    del calls[:]
    again = prepare(noise_slide(), counting, window=64, tissue="none", out=out)
    calls_of_the_dry_run = len(calls)
    assert list(again.pieces()) == []
    assert len(calls) == calls_of_the_dry_run
    assert np.array_equal(wh.open_heatmap(out).values, first.values)


@pytest.mark.parametrize(
    ("settings", "differing"),
    [
        ({"stride": 32}, "stride"),
        ({"window": 32}, "window"),
        ({"edge": "drop"}, "edge"),
        ({"roi": (0, 0, 300, 300)}, "selection"),
        ({"batch_size": 6}, "batch_size"),
    ],
)
def test_another_plan_is_refused(tmp_path, settings, differing):
    compute(noise_slide(), mean_grey, out=tmp_path / "a.zarr", batch_size=8)
    with pytest.raises(PlanMismatchError, match=rf"another .*{differing}.*choose another output"):
        compute(noise_slide(), mean_grey, out=tmp_path / "a.zarr", **{"batch_size": 8} | settings)


def test_another_slide_or_model_is_refused(tmp_path):
    out = tmp_path / "a.zarr"
    compute(noise_slide(), mean_grey, out=out)
    with pytest.raises(PlanMismatchError, match="another model"):
        compute(noise_slide(), mean_rgb, out=out)
    with pytest.raises(PlanMismatchError, match="another slide"):
        compute(noise_slide(601), mean_grey, out=out)


def test_something_else_is_never_overwritten(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    file.write_text("years of work")
    with pytest.raises(StoreExistsError, match=r"something else.*choose a new"):
        compute(noise_slide(), mean_grey, out=folder)
    with pytest.raises(StoreExistsError, match="there is a file"):
        compute(noise_slide(), mean_grey, out=file)
    assert (folder / "thesis.txt").read_text() == file.read_text() == "years of work"


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFullError, match=r"cannot write.*make room or give access"):
        compute(noise_slide(), mean_grey, out=tmp_path / "file" / "a.zarr")


def test_two_runs_on_one_output(tmp_path):
    pieces = wh.run(noise_slide(), mean_grey, window=64, tissue="none", out=tmp_path / "a.zarr")
    next(pieces)
    with pytest.raises(StoreLockedError, match=r"process \d+ on .* is writing here"):
        compute(noise_slide(), mean_grey, out=tmp_path / "a.zarr")
    pieces.close()


def test_pause_resume_and_cancel():
    control = RunControl()
    run = prepare(noise_slide(1000, 1000), mean_grey, window=64, tissue="none", control=control)
    pieces = run.pieces()
    next(pieces)
    control.pause()
    got = []
    waiting = threading.Thread(target=lambda: got.append(next(pieces)))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert control.paused
    control.resume()
    waiting.join(30)
    assert len(got) == 1
    control.cancel()
    assert list(pieces) == []
    assert (run.record["status"], run.record["reason"]) == ("paused", "cancelled")
    assert 0 < run.record["counts"]["done"] < run.plan.grid.size


def test_cancel_while_paused():
    control = RunControl()
    pieces = prepare(noise_slide(), mean_grey, window=64, tissue="none", control=control).pieces()
    control.pause()
    threading.Timer(0.3, control.cancel).start()
    assert list(pieces) == []


def test_damaged_windows_fail_alone_and_can_be_tried_again(tmp_path):
    out = tmp_path / "a.zarr"
    clean = compute(noise_slide(), mean_grey, stride=32)
    slide = FaultySlide(noise_slide(), bad=[(300, 300)])
    heatmap = compute(slide, mean_grey, stride=32, out=out)
    failed = state_of(heatmap.state) == FAILED
    assert failed.sum() == 4
    assert np.isnan(heatmap.values[0][failed]).all()
    assert np.array_equal(heatmap.values[0][~failed], clean.values[0][~failed])
    record = wh.open_heatmap(out).run
    assert record["status"] == "done-with-failures"
    assert len(record["failed"]) == 4
    assert record["failed"][0][1] == "a tile is damaged"
    slide.bad.clear()
    run = prepare(slide, mean_grey, window=64, stride=32, tissue="none", out=out, again=True)
    assert sum(len(piece) for piece in run.pieces()) == 4
    assert np.array_equal(wh.open_heatmap(out).values, clean.values)
    assert wh.open_heatmap(out).run["failed"] == []


def fails_at(k, error):
    """A model that raises at its k-th batch of the run; the dry run's batches are counted too."""
    calls = []

    def model(batch):
        calls.append(1)
        if len(calls) == k:
            raise error
        return batch.mean((1, 2, 3))

    return model


def test_a_model_that_raises_at_batch_k_keeps_everything_before(tmp_path):
    out = tmp_path / "a.zarr"
    error = RuntimeError("CUDA error:\na traceback that nobody wants")
    model = fails_at(9, error)
    with pytest.raises(ModelRunError, match=r"RuntimeError.*CUDA error") as caught:
        compute(noise_slide(1000, 1000), model, out=out, batch_size=8)
    assert "\n" not in str(caught.value)
    heatmap = wh.open_heatmap(out)
    assert heatmap.run["status"] == "failed"
    assert "CUDA error" in heatmap.run["reason"]
    done = heatmap.run["counts"]["done"]
    assert done > 0
    assert done % 8 == 0
    resumed = compute(noise_slide(1000, 1000), model, out=out)
    assert np.array_equal(
        resumed.values, compute(noise_slide(1000, 1000), mean_of, batch_size=8).values
    )


def mean_of(batch):
    return batch.mean((1, 2, 3))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda x: x[0, 0, 0, 0], ModelOutputError, r"shape \(\).*must return"),
        (lambda x: x.mean((2, 3))[:1], ModelOutputError, "for 2 windows"),
        (lambda x: x.mean(3), ModelOutputError, "it must return"),
        (lambda x: (x, x), ModelOutputError, "choose one with output=0"),
        (lambda x: {"a": x, "b": x}, ModelOutputError, "output='a'"),
        (lambda x: "text", ModelOutputError, "returned a str"),
        (lambda x: x @ x.new_zeros(7, 7), ModelRunError, "RuntimeError"),
    ],
)
def test_a_model_that_cannot_be_placed_stops_before_anything_is_written(
    tmp_path, model, error, message
):
    with pytest.raises(error, match=message):
        compute(noise_slide(), model, out=tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_values_that_are_not_finite_are_marked_and_counted(tmp_path):
    def model(batch):
        values = batch.mean((1, 2, 3))
        return torch.where(values > values.new_tensor(0.5), values.new_tensor(torch.nan), values)

    heatmap = compute(noise_slide(), model, out=tmp_path / "a.zarr")
    odd = np.isnan(heatmap.values[0])
    assert odd.any()
    assert not odd.all()
    assert np.array_equal(odd, (heatmap.state & NOT_FINITE) > 0)
    assert (state_of(heatmap.state) == DONE).all()
    assert wh.open_heatmap(tmp_path / "a.zarr").run["counts"]["not_finite"] == odd.sum()


def test_a_batch_norm_in_training_mode_is_evaluated_and_put_back():
    module = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).train()
    heatmap = compute(noise_slide(), module)
    assert module.training
    assert heatmap.run["bit_identity"]["independent_of_neighbours"]
    assert heatmap.run["notices"] == []


def test_a_model_that_mixes_its_batch_is_noticed():
    heatmap = compute(noise_slide(), lambda x: x.mean((1, 2, 3)) - x.mean())
    assert not heatmap.run["bit_identity"]["independent_of_neighbours"]
    assert heatmap.run["notices"]


class FullDisk:
    """Lets the first writes through, then none until it is emptied."""

    def __init__(self, monkeypatch, after):
        self.left = after
        original = store.HeatmapStore.write_values

        def write(this, box, values):
            with runfolder.writing(this.path):
                if self.left <= 0:
                    raise OSError(28, "No space left on device")
                self.left -= 1
            original(this, box, values)

        monkeypatch.setattr(store.HeatmapStore, "write_values", write)
        # Dozens of chunks, so that there are more writes than are let through.
        monkeypatch.setattr(growing.GrowingMap, "chunk", 16)
        monkeypatch.setattr(writer, "INTERVAL_S", 0.01)
        monkeypatch.setattr(writer.StoreWriter.__init__, "__defaults__", (0.01,))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_ends_a_script_and_loses_nothing(tmp_path, monkeypatch, after):
    slide, out = noise_slide(1000, 1000), tmp_path / "a.zarr"
    disk = FullDisk(monkeypatch, after)
    with pytest.raises(StoreFullError, match=r"No space left.*make room"):
        compute(slide, mean_grey, stride=16, out=out)
    assert wh.open_heatmap(out).run["status"] == "failed"
    disk.left = 1 << 30
    resumed = compute(slide, mean_grey, stride=16, out=out)
    assert np.array_equal(resumed.values, compute(slide, mean_grey, stride=16).values)
    assert np.array_equal(wh.open_heatmap(out).values, resumed.values)


def test_a_full_disk_pauses_where_somebody_watches(tmp_path, monkeypatch):
    slide, out = noise_slide(1000, 1000), tmp_path / "a.zarr"
    disk = FullDisk(monkeypatch, 0)
    control = RunControl(pauses_on_trouble=True)
    run = prepare(slide, slow(mean_grey), window=64, stride=16, tissue="none", out=out,
                  control=control, batch_size=16)  # fmt: skip
    worker = threading.Thread(target=complete, args=(run,), kwargs={"progress": False})
    worker.start()
    while not control.paused and worker.is_alive():
        pass
    assert "No space left" in control.reason
    disk.left = 1 << 30
    control.resume()  # once: a save that failed before there was room is tried again, not told
    worker.join(60)
    assert run.record["status"] == "done"
    assert np.array_equal(wh.open_heatmap(out).values, compute(slide, mean_grey, stride=16).values)


def slow(function, seconds=0.005):
    event = threading.Event()

    def model(batch):
        event.wait(seconds)
        return function(batch)

    return model


def test_a_slide_that_changes_stops_the_run_and_keeps_what_was_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(slidewatch, "CHECK_S", 0.0)
    slide = FaultySlide(noise_slide())
    pieces = wh.run(
        slide, mean_grey, window=64, tissue="none", out=tmp_path / "a.zarr", batch_size=4
    )
    next(pieces)
    slide.reason = "the file was replaced"
    with pytest.raises(SlideChangedError, match=r"the file was replaced.*begin a new output"):
        list(pieces)
    record = wh.open_heatmap(tmp_path / "a.zarr").run
    assert record["status"] == "failed"
    assert record["counts"]["done"] == 4


def test_counts_add_up(tmp_path):
    slide = FaultySlide(noise_slide(), bad=[(300, 300)])
    heatmap = compute(slide, mean_grey, roi=(0, 0, 400, 700), out=tmp_path / "a.zarr")
    counts = heatmap.run["counts"]
    assert counts["failed"] == 1
    assert counts["pending"] == 0
    kinds = ("done", "background", "outside", "failed")
    assert sum(counts[kind] for kind in kinds) == heatmap.grid.size


def test_resume_from_the_record_alone(tmp_path):
    out = tmp_path / "a.zarr"
    pieces = wh.run(noise_slide(), "hematoxylin", stride=16, tissue="none", out=out, level=0)
    next(pieces)
    pieces.close()
    heatmap = complete(wh.resume(out, slide=noise_slide()), progress=False)
    whole = wh.compute_heatmap(noise_slide(), "hematoxylin", stride=16, level=0, **QUIET)
    assert np.array_equal(heatmap.values, whole.values)


def test_resume_of_a_model_from_python_asks_for_it(tmp_path):
    out = tmp_path / "a.zarr"
    compute(noise_slide(), mean_grey, out=out)
    with pytest.raises(ModelLoadError, match="hand it over again"):
        wh.resume(out, slide=noise_slide())


def test_given_windows_equal_the_grids(tmp_path):
    slide = noise_slide(1000, 1000)
    heatmap = compute(slide, mean_rgb, stride=50)
    coords = heatmap.positions.reshape(-1, 2)
    shuffled = np.random.default_rng(0).permutation(len(coords))
    values = wh.predict_windows(slide, mean_rgb, coords[shuffled], window=64)
    assert np.array_equal(values, heatmap.values.reshape(3, -1).T[shuffled])


def test_given_windows_that_cannot_be_read_are_nan():
    slide = FaultySlide(noise_slide(), bad=[(100, 100)])
    values = wh.predict_windows(slide, mean_grey, [[0, 0], [90, 90], [200, 200]], window=64)
    assert np.isnan(values).ravel().tolist() == [False, True, False]


def test_a_table_of_a_dense_map_has_the_means_of_windows():
    slide = noise_slide(512, 640)
    heatmap = compute(slide, quarter_means)
    expected = naive(heatmap, slide, lambda x: quarter_means(x).mean((2, 3)))
    np.testing.assert_allclose(heatmap.window_values()[1], expected.reshape(3, -1).T, atol=1e-6)
    empty = compute(slide, lambda x: quarter_means(x) * float("nan"))
    assert np.isnan(empty.window_values()[1]).all()


def test_a_table_of_the_windows():
    heatmap = compute(noise_slide(), mean_rgb, roi=(0, 0, 300, 300))
    table = heatmap.to_dataframe()
    assert list(table) == ["x", "y", "0", "1", "2"]
    assert len(table) == heatmap.run["counts"]["done"]
    row = table[(table.x == 128) & (table.y == 64)].iloc[0]
    assert row[["0", "1", "2"]].to_numpy(float) == pytest.approx(heatmap.values[:, 1, 2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edge": "wrap"}, "edge is 'wrap'"),
        ({"mpp": 0.5, "level": 0}, "both mpp and level"),
        ({"batch_size": 1}, "at least 2"),
        ({"resize": "magic"}, "resize"),
        ({"order": "random"}, "order"),
        ({"edge": "drop", "window": 5000}, "no window of 5000"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(GridError, match=message):
        compute(noise_slide(), mean_grey, **settings)


def test_an_unknown_setting_names_those_there_are():
    with pytest.raises(TypeError, match=r"no setting 'strid'.*stride"):
        compute(noise_slide(), mean_grey, strid=3)
