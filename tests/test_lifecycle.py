"""How runs begin and end: models, slides, locks, threads and records are as they were found."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_grey, mean_rgb, noise_slide, quarter_means
from made_slides import tissue, write_tiff
from napari_wsi_heatmap import launch, store, writer
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import (
    HeatmapError,
    ModelOutputError,
    ModelRunError,
    PlanMismatchError,
    SlideChangedError,
    SlideReadError,
    StoreExistsError,
    StoreLockedError,
)
from napari_wsi_heatmap.launch import complete, prepare
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, state_of

SETTINGS = {"window": 64, "tissue": "none", "batch_size": 4}


def start(model=mean_grey, slide=None, **settings):
    return wh.run(slide or noise_slide(), model, **{**SETTINGS, **settings})


def compute(model=mean_grey, slide=None, **settings):
    return complete(prepare(slide or noise_slide(), model, **{**SETTINGS, **settings}),
                    progress=False)  # fmt: skip


def status(out):
    record = json.loads((out / "run.json").read_text())
    return record["status"], record["reason"]


# models


def normalising():
    """In training mode its values depend on the whole batch."""
    return torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).train()


def test_a_module_that_is_planned_several_times_is_evaluated_each_time(tmp_path):
    module, expected = normalising(), compute(normalising()).values
    planned = [start(module, out=tmp_path / f"{i}.zarr") for i in range(3)]
    assert module.training
    for i, pieces in enumerate(planned):
        list(pieces)
        assert np.array_equal(wh.open_heatmap(tmp_path / f"{i}.zarr").values, expected)
    assert module.training


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"edge": "drop", "window": 5000}, HeatmapError), ({"roi": (0, 0, 1, 1)}, HeatmapError)],
)
def test_a_plan_that_fails_leaves_the_module_as_it_was(tmp_path, settings, error):
    module = normalising()
    with pytest.raises(error):
        start(module, **settings)
    with pytest.raises(ModelRunError):
        start(torch.nn.Sequential(module, torch.nn.Linear(7, 7)))
    with pytest.raises(ModelRunError):
        wh.predict_windows(
            noise_slide(), torch.nn.Sequential(module, torch.nn.Linear(7, 7)), [[0, 0]], window=64
        )
    compute(module, out=tmp_path / "a.zarr")
    with pytest.raises(PlanMismatchError):
        start(module, stride=32, out=tmp_path / "a.zarr")
    assert module.training


@pytest.mark.parametrize("later", [1, 5])
def test_a_model_that_changes_its_mind_about_its_outputs(later):
    calls = []

    def model(batch):
        calls.append(1)
        return batch.mean((1, 2, 3))[:, None].expand(-1, 3 if len(calls) < 9 else later)

    with pytest.raises(ModelOutputError, match=r"for a window.*it must stay \(3,\)"):
        list(start(model))
    calls.clear()
    with pytest.raises(ModelOutputError, match="it must stay"):
        wh.predict_windows(noise_slide(), model, [[0, 0]] * 100, window=64, batch_size=4)


def test_memory_that_runs_out_is_one_line(monkeypatch):
    def resize(*args):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr("napari_wsi_heatmap.predict.resize_patches", resize)
    with pytest.raises(ModelRunError, match=r"not enough memory for 2 windows.*smaller batch_size"):
        start()


def test_another_output_stride_is_another_plan(tmp_path):
    def dense(stride):
        return wh.load_model(quarter_means, window=64, output_stride=stride)

    settings = {"tissue": "none", "batch_size": 4, "stride": 48, "out": tmp_path / "a.zarr"}
    next(wh.run(noise_slide(), dense(16), **settings))
    with pytest.raises(PlanMismatchError, match="another cell"):
        wh.run(noise_slide(), dense(12), **settings)


# slides


@pytest.fixture
def slide_path(tmp_path):
    return write_tiff(tmp_path / "a slide.tif", [tissue(500, 700)], mpp=None)


@pytest.fixture
def opened(monkeypatch):
    """All slides that are opened from a path."""
    slides, original = [], launch.open_slide

    def open_slide(path, **options):
        slides.append(original(path, **options))
        return slides[-1]

    monkeypatch.setattr(launch, "open_slide", open_slide)
    return slides


def is_closed(slide):
    try:
        slide.read_region(0, 0, 0, 5, 5)
    except SlideReadError as error:
        return "closed" in str(error)
    return False


def test_a_slide_that_was_given_as_a_path_is_closed_at_every_end(slide_path, opened):
    pieces = start(slide=slide_path)
    next(pieces)
    assert not is_closed(opened[0])
    pieces.close()
    compute(slide=slide_path)
    wh.predict_windows(slide_path, mean_grey, [[0, 0]], window=64)
    with pytest.raises(HeatmapError):
        start(slide=slide_path, roi=(0, 0, 1, 1))
    with pytest.raises(ModelRunError):
        wh.predict_windows(slide_path, lambda batch: 1 / 0, [[0, 0]], window=64)
    assert list(map(is_closed, opened)) == [True] * 5


def test_a_slide_that_was_given_open_is_left_open(slide_path):
    with wh.open_slide(slide_path) as slide:
        compute(slide=slide)
        wh.predict_windows(slide, mean_grey, [[0, 0]], window=64)
        assert not is_closed(slide)


def test_a_size_of_pixels_that_was_given_by_hand_is_resumed_with_it(slide_path, tmp_path):
    settings = {"tissue": "none", "batch_size": 4, "out": tmp_path / "a.zarr", "window": 64}
    with wh.open_slide(slide_path, mpp=0.4) as slide:
        next(wh.run(slide, "tissue", mpp=0.5, **settings))
    assert complete(wh.resume(tmp_path / "a.zarr"), progress=False).run["slide"]["mpp"] == [0.4] * 2


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), MemoryError(), ValueError()])
def test_whatever_a_read_raises_reaches_the_consumer(error):
    reads = []

    def read(level, y, x, height, width):
        reads.append(1)
        if len(reads) > 67:  # 64 for the fingerprint, two for the dry run
            raise error
        return np.zeros((height, width, 3), np.uint8)

    slide = ArraySlide.from_callable(read, [(600, 900)])
    with pytest.raises(type(error)):
        list(start(slide=slide))


def test_a_slide_that_is_gone_is_no_damage():
    slide = FaultySlide(noise_slide())
    run = prepare(slide, mean_grey, **SETTINGS)
    slide.bad, slide.reason = {(300, 300)}, "the file is gone"
    with pytest.raises(SlideChangedError, match="the file is gone"):
        list(run.pieces())
    assert run.record["counts"]["failed"] == 0


def test_runs_share_a_slide_and_pieces_come_in_any_thread():
    slide, expected = noise_slide(), compute(mean_rgb).values
    runs = [prepare(slide, mean_rgb, **SETTINGS) for _ in range(3)]
    threads = [threading.Thread(target=list, args=[run.pieces()]) for run in runs[1:]]
    pieces = runs[0].pieces()
    next(pieces)
    threads.append(threading.Thread(target=list, args=[pieces]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(run.heatmap.values, expected) for run in runs)


# outputs


def test_a_run_is_iterated_once():
    run = prepare(noise_slide(), mean_grey, **SETTINGS)
    pieces = run.pieces()
    next(pieces)
    with pytest.raises(HeatmapError, match=r"iterated before.*start another"):
        next(run.pieces())
    list(pieces)
    assert run.record["status"] == "done"


def test_a_plan_that_another_run_has_overtaken_is_refused(tmp_path):
    out = tmp_path / "a.zarr"
    fresh = start(out=out)
    for piece in start(out=out):
        assert len(piece)
        break
    with pytest.raises(StoreExistsError, match=r"another run has begun.*start again"):
        next(fresh)
    stale = start(out=out)
    done = compute(out=out)
    with pytest.raises(StoreLockedError, match=r"since this one was planned.*start again"):
        next(stale)
    assert status(out) == ("done", "")
    assert np.array_equal(wh.open_heatmap(out).values, done.values)
    assert list(start(out=out)) == []


def test_a_refused_run_leaves_the_record_of_the_other_one(tmp_path):
    out = tmp_path / "a.zarr"
    next(start(out=out))
    running, second = start(out=out), start(out=out)
    next(running)
    with pytest.raises(StoreLockedError, match="is writing here"):
        next(second)
    assert status(out) == ("running", "")
    list(running)
    assert status(out) == ("done", "")


def test_a_pause_is_on_disk(tmp_path):
    control, out = RunControl(), tmp_path / "a.zarr"
    pieces = start(out=out, control=control)
    next(pieces)
    control.pause("a coffee")
    waiting = threading.Thread(target=next, args=[pieces])
    waiting.start()
    while status(out)[0] == "running":
        assert waiting.is_alive()
        waiting.join(0.01)
    assert status(out) == ("paused", "a coffee")
    control.resume()
    waiting.join(30)
    assert status(out) == ("running", "")
    list(pieces)
    assert status(out) == ("done", "")


def test_windows_that_fail_wait_while_paused():
    control = RunControl()
    slide = FaultySlide(noise_slide())
    run = prepare(slide, mean_grey, control=control, **SETTINGS)
    slide.bad = {(300, 300)}
    control.pause()
    threading.Timer(0.3, control.cancel).start()
    assert list(run.pieces()) == []
    assert run.record["counts"]["failed"] == 0


class Killed(BaseException):
    """No error of ours."""


def test_whatever_ends_a_save_the_lock_is_free_afterwards(tmp_path, monkeypatch):
    def killed(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store.HeatmapStore, "write_values", killed)
        with pytest.raises(Killed):
            compute(out=tmp_path / "a.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(store, "sweep", killed)
        with pytest.raises(Killed):
            compute(out=tmp_path / "a.zarr")
    assert compute(out=tmp_path / "a.zarr").run["status"] == "done"


def test_an_error_that_nobody_expected_of_the_writer_ends_the_run(tmp_path, monkeypatch):
    saved = threading.Event()

    def broken(*args):
        saved.set()
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(store.HeatmapStore, "write_values", broken)
    monkeypatch.setattr(writer.StoreWriter.__init__, "__defaults__", (0.01,))
    pieces = start(out=tmp_path / "a.zarr", stride=16)
    next(pieces)
    assert saved.wait(30)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(pieces)


def test_a_disk_that_is_full_at_the_last_save_pauses_where_somebody_watches(tmp_path, monkeypatch):
    control, out = RunControl(pauses_on_trouble=True), tmp_path / "a.zarr"
    monkeypatch.setattr(writer.StoreWriter.__init__, "__defaults__", (3600,))
    run = prepare(noise_slide(), mean_grey, out=out, control=control, **SETTINGS)
    rename, full = os.replace, threading.Event()

    def replace(source, target):
        if full.is_set() and "/0/c/" in str(target):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    full.set()
    working = threading.Thread(target=list, args=[run.pieces()])
    working.start()
    while not control.paused:
        assert working.is_alive()
        working.join(0.01)
    full.clear()
    control.resume()
    working.join(30)
    assert status(out) == ("done", "")
    assert np.array_equal(wh.open_heatmap(out).values, run.heatmap.values)


def test_a_heatmap_is_opened_while_it_is_written(tmp_path, monkeypatch):
    out, slide, opened, over = tmp_path / "a.zarr", noise_slide(300, 400), [], threading.Event()
    whole = compute(slide=slide, stride=16).values
    monkeypatch.setattr(writer.StoreWriter.__init__, "__defaults__", (0.01,))

    def look():
        while not over.wait(0.02):
            if (out / "run.json").exists():
                found = wh.open_heatmap(out)
                opened.append(np.array_equal(found.values[0][done(found)], whole[0][done(found)]))

    def done(found):
        return state_of(found.state) == DONE

    looking = threading.Thread(target=look)
    looking.start()
    for _ in start(out=out, slide=slide, stride=16):
        looking.join(0.001)
    over.set()
    looking.join()
    assert all(opened)
    assert len(opened) > 3


def test_a_fork_leaves_the_output_to_its_parent(tmp_path, monkeypatch):
    run = prepare(noise_slide(), mean_grey, out=tmp_path / "a.zarr", **SETTINGS)
    pieces = run.pieces()
    next(pieces)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        pieces.close()
    assert status(tmp_path / "a.zarr") == ("running", "")
    run.shares[0].output.close(None, "interrupted")
    assert status(tmp_path / "a.zarr") == ("paused", "interrupted")


def test_dense_values_that_cannot_be_saved_are_refused_before_they_are_computed(tmp_path):
    calls = []

    def model(batch):
        calls.append(1)
        return quarter_means(batch)

    with pytest.raises(ModelOutputError, match="cannot be saved"):
        wh.predict_windows(
            noise_slide(), model, [[0, 0]] * 500, window=64, out=tmp_path / "a", batch_size=2
        )
    assert len(calls) < 10


@pytest.fixture
def no_gc():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_gc")
def test_nothing_is_left_behind_by_many_runs(tmp_path):
    process, counts = psutil.Process(), []
    for i in range(12):
        out = tmp_path / f"{i}.zarr"
        compute(out=out)
        next(start(out=tmp_path / f"stopped {i}.zarr"))
        with pytest.raises(StoreExistsError):
            compute(out=tmp_path)
        wh.open_heatmap(out)
        counts.append((process.num_fds() if os.name == "posix" else 0, threading.active_count()))
    assert max(counts[6:]) <= max(counts[:6])


def test_runs_that_are_open_when_python_ends_are_closed(tmp_path):
    """One that nobody finishes, one in a cycle, one in a thread that is waited for."""
    code = """if True:
        import sys, threading
        sys.path.insert(0, sys.argv[2])
        import napari_wsi_heatmap as wh
        from made import mean_grey, noise_slide
        def start(name):
            return wh.run(noise_slide(), mean_grey, window=64, tissue="none", batch_size=4,
                          out=f"{sys.argv[1]}/{name}.zarr")
        begun = threading.Event()
        left = start("left")
        next(left)
        class Cycle: pass
        cycle = Cycle()
        cycle.own, cycle.pieces = cycle, start("cycle")
        next(cycle.pieces)
        def work():
            for piece in start("thread"):
                begun.set()
                threading.Event().wait(0.02)
        threading.Thread(target=work).start()
        begun.wait()
    """
    tests = Path(__file__).parent
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path, tests], capture_output=True, text=True, timeout=100
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert status(tmp_path / "thread.zarr") == ("done", "")
    for name in ("left", "cycle"):
        assert status(tmp_path / f"{name}.zarr") == ("paused", "the program ended")
        assert wh.open_heatmap(tmp_path / f"{name}.zarr").run["counts"]["done"] == 4
        assert compute(out=tmp_path / f"{name}.zarr").run["status"] == "done"


def test_a_closed_slide_is_one_line():
    slide = noise_slide()
    slide.close()
    with pytest.raises(SlideReadError, match="closed"):
        start(slide=slide)
