"""Runs that end in every way: the process goes quietly, what was computed is kept, models are
given back as they were.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import HeatmapError, ModelRunError
from napari_wsi_heatmap.launch import complete, prepare
from napari_wsi_heatmap.states import DONE, state_of
from napari_wsi_heatmap.workers import Plant, Workers, torch_threads

SETTINGS = {"window": 64, "stride": 32, "tissue": "none", "batch_size": 4}
WAIT_S = 60


def status(out):
    record = json.loads((out / "run.json").read_text())
    return record["status"], record["reason"]


def whole(model=mean_rgb, **settings):
    slide = noise_slide()
    return wh.compute_heatmap(slide, model, progress=False, **{**SETTINGS, **settings})


# the process

SCRIPT = """
import os, sys, threading
sys.path.insert(0, sys.argv[2])
import torch
import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide
from napari_wsi_heatmap.control import RunControl

class Model(torch.nn.Module):
    slow, inside = None, threading.Event()

    def forward(self, batch):
        if Model.slow:
            Model.inside.set()
            print("inside", flush=True)
            Model.slow(batch)
        return batch.mean((2, 3))

def products(batch):
    big = torch.rand(400, 400)
    while True:
        big @ big

def convolutions(batch):
    layer = torch.nn.Conv2d(3, 8, 3)
    while True:
        layer(batch)

def one_product(batch):
    torch.rand(9000, 9000) @ torch.rand(9000, 9000)

def python(batch):
    while True:
        sum(range(1000))

control, slide = RunControl(), FaultySlide(noise_slide())

def start(model, **settings):
    settings = {"window": 64, "batch_size": 4, "tissue": "none"} | settings
    return wh.run(slide, model, out=sys.argv[1], control=control, **settings)

def take_all(pieces):
    for piece in pieces:
        pass

def take_more(pieces):
    thread = threading.Thread(target=take_all, args=(pieces,), daemon=True)
    thread.start()
    return thread

def get_into(slow, **settings):
    pieces = start(Model(), **settings)
    next(pieces)
    Model.slow = slow
    more = take_more(pieces)
    Model.inside.wait()
    return pieces, more
"""
LEFT = {
    "in small products": "left = get_into(products)",
    "in convolutions": "left = get_into(convolutions)",
    "in one long product": "left = get_into(one_product)",
    "in Python": "left = get_into(python)",
    "on two devices": "left = get_into(products, device='cpu,cpu')",
    "side by side": """
        left = start("hematoxylin", stride=8, level=0)
        next(left)
        """,
    "after a cancel": """
        left, more = get_into(products)
        control.cancel()
        more.join()
        """,
    "while a read hangs": """
        left = start(mean_rgb)
        slide.gate.clear()
        take_more(left)
        while not os.path.exists(sys.argv[1] + "/run.json"):
            pass
        """,
}


def script(out, code):
    return [sys.executable, "-c", SCRIPT + dedent(code), str(out), str(Path(__file__).parent)]


def ended(out, code):
    return subprocess.run(
        script(out, code), capture_output=True, text=True, timeout=WAIT_S, check=False
    )


@pytest.mark.parametrize("code", LEFT.values(), ids=LEFT)
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_left_half_way_ends_quietly(tmp_path, code, times):
    for i in range(times):
        end = ended(tmp_path / f"{i}.zarr", code)
        assert (end.returncode, end.stderr) == (0, "")
        assert status(tmp_path / f"{i}.zarr")[0] == "paused"


def test_an_exit_in_the_loop(tmp_path):
    end = ended(tmp_path / "a.zarr", "for piece in start(mean_rgb): sys.exit(7)")
    assert (end.returncode, end.stderr) == (7, "")
    assert status(tmp_path / "a.zarr")[0] == "paused"


INTERRUPTED = {
    "in the model": """
        pieces = start(Model())
        next(pieces)
        Model.slow = products
        take_all(pieces)
        """,
    "while a read hangs": """
        pieces = start(mean_rgb)
        slide.gate.clear()
        print("inside", flush=True)
        take_all(pieces)
        """,
}


@pytest.mark.skipif(os.name != "posix", reason="no such signals here")
@pytest.mark.parametrize("code", INTERRUPTED.values(), ids=INTERRUPTED)
def test_ctrl_c_while_it_waits(tmp_path, code):
    out, pipe = tmp_path / "a.zarr", subprocess.PIPE
    with subprocess.Popen(script(out, code), stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "inside\n"
        while not (out / "run.json").exists():
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGINT
    assert told.strip().endswith("KeyboardInterrupt")
    assert told.count("Traceback") == 1
    assert status(out) == ("paused", "interrupted")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_neither_goes_on_with_a_run_nor_ends_it(tmp_path):
    code = """
        from napari_wsi_heatmap.errors import HeatmapError
        pieces = start(mean_rgb, stride=16)
        next(pieces)
        child = os.fork()
        if not child:
            try:
                next(pieces)
            except HeatmapError as error:
                print(error, flush=True)
            del pieces
            sys.exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        take_all(pieces)
        """
    end = ended(tmp_path / "a.zarr", code)
    assert (end.returncode, end.stderr) == (0, "")
    assert "cannot go on in a fork" in end.stdout
    assert len(end.stdout.splitlines()) == 1
    assert status(tmp_path / "a.zarr") == ("done", "")
    assert np.array_equal(wh.open_heatmap(tmp_path / "a.zarr").values, whole(stride=16).values)


# models that do not come back in time


class Held(torch.nn.Module):
    """In training mode it changes, and what it returns is of the whole batch; it can be held."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.free, self.inside = threading.Event(), threading.Event()
        self.free.set()

    def forward(self, batch):
        free = self.free
        if not free.is_set():
            self.inside.set()
            assert free.wait(WAIT_S)
        return self.norm(batch).mean((2, 3))


def cancelled_inside(module, out=None):
    """A run that was cancelled and has ended, while the module is still at work."""
    control = RunControl()
    run = prepare(noise_slide(), module, out=out, control=control, **SETTINGS)
    pieces = run.pieces()
    next(pieces)
    module.free.clear()
    cancelling = threading.Thread(target=lambda: module.inside.wait(WAIT_S) and control.cancel())
    cancelling.start()
    list(pieces)
    cancelling.join()
    assert not module.free.is_set()
    return run


def workers_gone():
    for thread in threading.enumerate():
        if thread.name.startswith(("wsi-worker", "closing")):
            thread.join(WAIT_S)
            assert not thread.is_alive()


def state_of_module(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_cancel_does_not_wait_for_the_model_nor_does_the_model_learn_from_it(tmp_path):
    module, out = Held().train(), tmp_path / "a.zarr"
    before, expected = state_of_module(module), whole(Held().train())
    run = cancelled_inside(module, out)
    assert status(out) == ("paused", "cancelled")
    assert run.record["counts"]["done"] > 0
    assert not module.training  # it is at work
    module.free.set()
    workers_gone()
    assert all(part.training for part in module.modules())
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    continued = wh.compute_heatmap(noise_slide(), module, out=out, progress=False, **SETTINGS)
    assert np.array_equal(continued.values, expected.values)
    assert continued.run["status"] == "done"


def test_a_run_that_is_begun_while_the_last_ones_model_is_at_work(tmp_path):
    module = Held().train()
    cancelled_inside(module)
    held, module.free = module.free, threading.Event()
    module.free.set()
    planned = wh.run(noise_slide(), module, out=tmp_path / "a.zarr", **SETTINGS)
    next(planned)
    held.set()
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join(WAIT_S)
    assert not module.training
    list(planned)
    assert module.training
    assert np.array_equal(wh.open_heatmap(tmp_path / "a.zarr").values, whole(Held().train()).values)


# one model in several runs


@pytest.mark.parametrize("wrapped", [True, False])
def test_runs_share_a_module_and_the_last_one_gives_it_back(wrapped):
    module = Held().train()
    model = wh.load_model(module, window=64) if wrapped else module
    expected, runs = whole(Held().train()).values, []
    for _ in range(3):
        runs.append(prepare(noise_slide(), model, **SETTINGS))
    first, second, third = [run.pieces() for run in runs]
    next(first)
    next(second)
    list(first)
    assert not module.training
    prepare(noise_slide(), model, **SETTINGS)  # only planned
    assert not module.training
    rest = [threading.Thread(target=list, args=[pieces]) for pieces in (second, third)]
    for thread in rest:
        thread.start()
    for thread in rest:
        thread.join(WAIT_S)
    assert module.training
    assert all(np.array_equal(run.heatmap.values, expected) for run in runs)


# generators


def test_a_run_that_a_thread_of_its_own_collects(tmp_path):
    """The garbage collector runs wherever it likes: here in the model."""
    out, seen = tmp_path / "a.zarr", threading.Event()

    class Cycle:
        pass

    def collecting(batch):
        if seen.is_set():
            gc.collect()
        return mean_rgb(batch)

    gc.disable()
    try:
        cycle = Cycle()
        cycle.own, cycle.pieces = cycle, wh.run(noise_slide(), collecting, out=out, **SETTINGS)
        for _ in range(4):
            next(cycle.pieces)
        seen.set()
        del cycle
        for _ in range(WAIT_S * 100):
            if status(out)[0] != "running":
                break
            threading.Event().wait(0.01)
    finally:
        gc.enable()
    seen.clear()
    assert status(out) == ("paused", "interrupted")
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join(WAIT_S)
    found = wh.compute_heatmap(noise_slide(), collecting, out=out, progress=False, **SETTINGS)
    assert np.array_equal(found.values, whole().values)


def test_a_generator_is_closed_in_another_thread(tmp_path):
    out = tmp_path / "a.zarr"
    pieces = wh.run(noise_slide(), mean_rgb, out=out, **SETTINGS)
    next(pieces)
    closing_ = threading.Thread(target=pieces.close)
    closing_.start()
    closing_.join(WAIT_S)
    assert status(out) == ("paused", "interrupted")
    assert list(pieces) == []
    list(wh.run(noise_slide(), mean_rgb, out=out, **SETTINGS))
    assert status(out) == ("done", "")


# errors of the model


class Failing(torch.nn.Module):
    """Raises at its k-th call of a run, on whichever device."""

    calls, left, lock = 0, None, threading.Lock()

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, batch):
        with Failing.lock:
            if Failing.left is not None:
                Failing.left -= 1
                if Failing.left < 0:
                    raise self.error
        return batch.mean((2, 3))


@pytest.fixture
def failing_after(monkeypatch):
    monkeypatch.setattr(Failing, "left", None)
    return lambda calls: monkeypatch.setattr(Failing, "left", calls)


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (ValueError("bad batch"), ModelRunError, "failed"),
        (SystemExit(3), SystemExit, "failed"),
        (KeyboardInterrupt(), KeyboardInterrupt, "paused"),
        (StopIteration(), ModelRunError, "failed"),
        (GeneratorExit(), BaseException, ""),
    ],
)
def test_what_came_before_the_models_error_is_kept(
    tmp_path, failing_after, device, error, raised, said
):
    module, out, seen = Failing(error), tmp_path / "a.zarr", []
    expected = whole(module)
    settings = {**SETTINGS, "device": device, "out": out, "order": "raster"}
    run = prepare(noise_slide(), module, **settings)
    failing_after(9)
    with closing(run.pieces()) as pieces, pytest.raises(raised):
        seen.extend(itertools.chain.from_iterable(piece.index for piece in pieces))
    failing_after(None)
    found = wh.open_heatmap(out)
    done = state_of(found.state) == DONE
    assert sorted(seen) == np.flatnonzero(done).tolist()
    if device == "cpu":
        assert len(seen) == 9 * SETTINGS["batch_size"]
    assert found.run["status"].startswith(said)
    assert np.array_equal(found.values[:, done], expected.values[:, done])
    complete(prepare(noise_slide(), module, **settings), progress=False)
    assert np.array_equal(wh.open_heatmap(out).values, expected.values)


def test_a_module_that_cannot_be_copied_has_one_device(tmp_path):
    with pytest.raises(ModelRunError, match=r"cannot be copied to a second device.*one device"):
        list(wh.run(noise_slide(), Held(), out=tmp_path / "a.zarr", device="cpu,cpu", **SETTINGS))
    wh.compute_heatmap(noise_slide(), Held(), out=tmp_path / "a.zarr", progress=False, **SETTINGS)
    assert status(tmp_path / "a.zarr") == ("done", "")


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_a_tail_of_one_window(device):
    """A batch norm in training mode would refuse it, and `squeeze` would lose its axis."""
    module = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).train()
    slide = noise_slide(64, 64 * 9)
    settings = {**SETTINGS, "stride": 64, "device": device}
    for model in (module, lambda batch: batch.mean((1, 2, 3), keepdim=True).squeeze()):
        heatmap = wh.compute_heatmap(slide, model, progress=False, **settings)
        alone = wh.compute_heatmap(slide, model, progress=False, **settings | {"batch_size": 3})
        assert (state_of(heatmap.state) == DONE).all()
        np.testing.assert_allclose(heatmap.values, alone.values, rtol=1e-6)
    assert module.training


# threads


class Task:
    """One batch of `Workers`."""

    def __init__(self, name, error=None):
        self.name, self.error = name, error

    def prepare(self):
        pass

    def compute(self):
        if self.error is not None:
            raise self.error

    def arrive(self):
        pass


CPU = torch.device("cpu")


def test_what_other_devices_have_computed_comes_before_the_error_of_one():
    first = [Task("a0"), Task("a1", ValueError("a1")), Task("a2")]
    plants = [Plant(iter(tasks), 1, True, 1, CPU) for tasks in (first, [Task("b0"), Task("b1")])]
    crew, seen = Workers(plants, lambda: False), []
    results = iter(crew)
    seen.append(next(results).name)
    while [len(line.results) for line in crew._lines] not in ([2, 2], [3, 1], [3, 2], [2, 1]):
        threading.Event().wait(0.01)
    with pytest.raises(ValueError, match="a1"):
        seen.extend(task.name for task in results)
    assert sorted(seen) == ["a0", "b0", "b1"]
    assert crew.close(WAIT_S)


def test_runs_that_begin_together_leave_torch_the_threads_that_it_had():
    before, found = torch.get_num_threads(), []

    def begin():
        for _ in range(5):
            list(Workers([Plant(iter([Task("a")]), 2, False, 1, CPU)], lambda: False))
            found.append(torch_threads())

    for _ in range(4):
        together = [threading.Thread(target=begin) for _ in range(4)]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join(WAIT_S)
    assert set(found) == {before}


# slides that cannot be read


def test_a_read_that_hangs_does_not_hold_up_a_cancel_on_any_device():
    slide, control = FaultySlide(noise_slide()), RunControl()
    run = prepare(slide, torch.nn.Flatten(), control=control, device="cpu,cpu", **SETTINGS)
    slide.gate.clear()
    working = threading.Thread(target=list, args=[run.pieces()])
    working.start()
    while not run.progress.waiting_s:
        working.join(0.01)
    control.cancel()
    working.join(WAIT_S)
    slide.gate.set()
    assert not working.is_alive()
    assert run.record["status"] == "paused"


def test_a_run_is_never_begun_twice_at_the_same_time():
    run = prepare(noise_slide(), mean_rgb, **SETTINGS)
    first, refused = run.pieces(), []

    def again():
        try:
            next(run.pieces())
        except HeatmapError as error:
            refused.append(str(error))

    next(first)
    threads = [threading.Thread(target=again) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(refused) == 3
    list(first)
    assert run.record["status"] == "done"
