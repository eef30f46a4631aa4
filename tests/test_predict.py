"""Batches through a model: memory that runs out, smaller precision, the compiled model."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest
import torch
from torch import nn

import napari_wsi_heatmap as wh
from made import mean_rgb, noise, noise_slide, quarter_means
from napari_wsi_heatmap.errors import ModelRunError, PlanMismatchError
from napari_wsi_heatmap.launch import complete, prepare, resume
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.predict import Halving, Predictor
from napari_wsi_heatmap.states import DONE, state_of

CPU = torch.device("cpu")
QUIET = {"window": 64, "tissue": "none", "progress": False}
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    MemoryError(),
]


class Tight:
    """Means of the colours; raises with more than `most` windows, from its call `since` on."""

    def __init__(self, most=2, since=0, error=OUT_OF_MEMORY[0], until=10**9):
        self.most, self.since, self.until, self.error = most, since, until, error
        self.met, self.failed = [], 0

    def __call__(self, batch):
        self.met.append(len(batch))
        if len(batch) > self.most and self.since <= len(self.met) < self.until:
            self.failed += 1
            raise self.error
        return mean_rgb(batch)


def patches(n, seed=0):
    return torch.from_numpy(noise(n * 8, 8, seed).reshape(n, 8, 8, 3)).permute(0, 3, 1, 2)


def predictor(function, **settings):
    return Predictor(load_model(function), CPU, (8, 8), **settings)


def computed(predict, batch, n):
    done = predict.compute(predict.see(batch), n, (3,))
    return done.numpy(), list(done.halvings)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize(("n", "rows"), [(16, 16), (11, 16), (7, 7), (1, 16), (9, 9)])
@pytest.mark.parametrize("most", [2, 3, 5])
def test_a_batch_that_does_not_fit_is_computed_in_halves(error, n, rows, most):
    function, batch = Tight(most, error=error), patches(rows)
    batch[n:] = 0
    predict = predictor(function)
    values, halvings = computed(predict, batch, n)
    assert np.array_equal(values, predictor(mean_rgb)(batch, n, (3,)))
    assert set(function.met[function.failed :]) == {halvings[-1].after}
    assert halvings[-1].after <= most
    before = [halving.before for halving in halvings]
    assert before == [rows, *(halving.after for halving in halvings)][: len(before)]


def test_memory_that_runs_out_within_a_batch_loses_nothing_of_it():
    function = Tight(2, since=3)
    predict = predictor(function)
    predict._most = 4
    values, halvings = computed(predict, patches(16), 16)
    assert np.array_equal(values, predictor(mean_rgb)(patches(16), 16, (3,)))
    assert halvings == [Halving(row=8, before=4, after=2)]
    assert function.met == [4, 4, 4, 2, 2, 2, 2]


def test_batches_after_it_stay_small_and_say_nothing_more():
    function = Tight(4)
    predict = predictor(function)
    predict(patches(8), 8, (3,))
    assert computed(predict, patches(8, seed=1), 8)[1] == []
    assert function.met == [8, 4, 4, 4, 4]


def test_windows_that_do_not_fit_even_by_two_are_an_error():
    with pytest.raises(ModelRunError, match="choose a smaller batch_size"):
        predictor(Tight(1))(patches(8), 8, (3,))


def test_another_error_is_not_tried_again():
    function = Tight(2, error=RuntimeError("an illegal memory access was encountered"))
    with pytest.raises(ModelRunError, match="illegal memory access"):
        predictor(function)(patches(8), 8, (3,))
    assert function.met == [8]


def test_patches_that_do_not_fit_are_halved_as_well(monkeypatch):
    met = []

    def tight(sized, window, kind):
        met.append(len(sized))
        if len(sized) > 4:
            raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")
        return sized

    monkeypatch.setattr("napari_wsi_heatmap.predict.resize_patches", tight)
    values, halvings = computed(predictor(mean_rgb), patches(16), 13)
    assert met == [16, 8, 4, 4, 4, 4]
    assert values.shape == (13, 3)
    assert [halving.after for halving in halvings] == [8, 4]


# In a run: the dry run calls a model six times where the batch size is given.
@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("since", [0, 9])
@pytest.mark.parametrize("function", [mean_rgb, quarter_means])
def test_a_run_that_is_short_of_memory_equals_one_that_is_not(tmp_path, error, since, function):
    slide, calls = noise_slide(), []

    def tight(batch):
        calls.append(len(batch))
        if len(batch) > 5 and len(calls) > since:
            raise error
        return function(batch)

    out = tmp_path / "a.zarr"
    settings = QUIET | {"readers": 1}  # so that regions come in one order
    heatmap = wh.compute_heatmap(slide, tight, batch_size=16, stride=48, out=out, **settings)
    whole = wh.compute_heatmap(slide, function, batch_size=16, stride=48, **QUIET)
    assert np.array_equal(heatmap.values, whole.values)
    assert (state_of(heatmap.state) == DONE).all()
    record = json.loads((out / "run.json").read_text())
    assert [(h["from"], h["to"]) for h in record["halved"]] == [(16, 8), (8, 4)]
    assert {h["at_window"] for h in record["halved"]} == {0 if not since else 3 * 16}
    assert [note for note in record["notices"] if "memory ran out" in note]
    assert record["batch_size"]["used"] == record["plan"]["batch_size"] == 16
    assert record["status"] == "done"


def test_once_in_the_middle_is_enough_to_stay_small():
    model = Tight(2, since=8, until=9)
    run = prepare(noise_slide(), model, window=64, tissue="none", batch_size=8)
    index = np.concatenate([piece.index for piece in run.pieces()])
    assert np.array_equal(np.sort(index), np.arange(run.plan.grid.size))
    assert run.record["halved"] == [{"at_window": int(index[8]), "from": 8, "to": 4}]
    assert set(model.met[8:]) == {4}


def test_what_was_halved_is_still_said_after_a_continuation(tmp_path):
    out, settings = tmp_path / "a.zarr", {"window": 64, "tissue": "none", "batch_size": 16}
    model = Tight(8)
    pieces = wh.run(noise_slide(), model, out=out, **settings)
    next(pieces)
    pieces.close()
    model.most = 16
    run = prepare(noise_slide(), model, out=out, **settings)
    complete(run, progress=False)
    assert [h["to"] for h in run.record["halved"]] == [8]
    assert set(model.met[-4:]) == {16}


def test_a_given_list_of_windows_is_halved_too():
    coords = np.random.default_rng(0).integers(0, 500, (50, 2))
    settings = {"window": 64, "batch_size": 16}
    values = wh.predict_windows(noise_slide(), Tight(4), coords, **settings)
    assert np.array_equal(values, wh.predict_windows(noise_slide(), mean_rgb, coords, **settings))


def test_an_output_is_continued_with_the_batch_size_that_it_was_begun_with(tmp_path):
    """The clock may find another one next time; what was recorded wins, unless one is given."""
    for found in (2, 6, 20):
        out = tmp_path / f"{found}.zarr"
        settings = {"window": 64, "tissue": "none", "stride": 48}
        pieces = wh.run(noise_slide(), mean_rgb, out=out, batch_size=found, **settings)
        next(pieces)
        pieces.close()
        shutil.copytree(out, tmp_path / f"again-{found}.zarr")
        rest = prepare(noise_slide(), mean_rgb, out=out, **settings)
        assert rest.plan.batch_size == found
        assert rest.record["batch_size"]["tried"] == []
        complete(rest, progress=False)
        again = resume(
            tmp_path / f"again-{found}.zarr", slide=noise_slide(), model=load_model(mean_rgb)
        )
        assert again.plan.batch_size == found
        with pytest.raises(PlanMismatchError, match="another batch_size"):
            prepare(noise_slide(), mean_rgb, out=out, batch_size=found + 1, **settings)


def test_the_record_says_which_sizes_were_tried(tmp_path):
    out = tmp_path / "a.zarr"
    wh.compute_heatmap(noise_slide(), mean_rgb, out=out, **QUIET)
    record = json.loads((out / "run.json").read_text())
    sizes = [trial["size"] for trial in record["batch_size"]["tried"]]
    assert record["batch_size"]["used"] in sizes
    assert sizes == [2 ** (i + 1) for i in range(len(sizes))]
    assert record["bit_identity"]["arithmetic"]["device"] == "cpu"
    assert not record["bit_identity"]["channels_last"]
    assert "compile" in record["bit_identity"]["holds_for"]


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_smaller_precision_is_near_and_another_plan(tmp_path, precision):
    net, out = small_net(), tmp_path / "a.zarr"
    settings = QUIET | {"batch_size": 8}
    exact = wh.compute_heatmap(noise_slide(), net, **settings).values
    near = wh.compute_heatmap(noise_slide(), net, precision=precision, out=out, **settings).values
    assert 0 < np.abs(near - exact).max() < 0.02
    assert near.dtype == np.float32
    with pytest.raises(PlanMismatchError, match="another precision"):
        prepare(noise_slide(), net, out=out, window=64, tissue="none", batch_size=8)


def test_a_model_that_cannot_be_compiled_runs_as_it_is(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler\nanywhere")

    monkeypatch.setattr(torch, "compile", broken)
    slide, net, out = noise_slide(), small_net(), tmp_path / "a.zarr"
    heatmap = wh.compute_heatmap(slide, net, compile=True, batch_size=8, out=out, **QUIET)
    assert np.array_equal(
        heatmap.values, wh.compute_heatmap(slide, net, batch_size=8, **QUIET).values
    )
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["compile"] is True
    assert record["plan"]["compile"] is None
    assert [n for n in record["notices"] if "could not be compiled" in n and "C++" in n]
    wh.compute_heatmap(slide, net, batch_size=8, out=out, **QUIET)  # the same bits, the same plan


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's compiler, of itself
def test_a_compiled_model_says_the_same(tmp_path):
    slide, net, out = noise_slide(), small_net(), tmp_path / "a.zarr"
    settings = {"window": 64, "tissue": "none", "batch_size": 8}
    run = prepare(slide, net, compile=True, out=out, **settings)
    assert run.plan.predictor.use_compiled, run.record["notices"]
    values = []
    thread = threading.Thread(target=lambda: values.append(complete(run, progress=False).values))
    thread.start()  # as in the viewer: compiled in one thread, used in another
    thread.join()
    exact = wh.compute_heatmap(slide, net, batch_size=8, **QUIET).values
    np.testing.assert_allclose(values[0], exact, atol=1e-6)
    assert run.record["plan"]["compile"] is True
    assert run.record["settings"]["compile"] is True
    with pytest.raises(PlanMismatchError, match="another compile"):
        prepare(slide, net, out=out, **settings)


class Viewing(nn.Module):
    """Takes a view that only patches sorted by channel allow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.layouts = nn.Conv2d(3, 4, 5), []

    def forward(self, batch):
        self.layouts.append(batch.is_contiguous())
        return self.layer(batch).view(len(batch), -1).mean(1)


def test_a_model_that_cannot_have_channels_last_gets_them_sorted():
    net = Viewing()
    heatmap = wh.compute_heatmap(noise_slide(), net, batch_size=8, **QUIET)
    assert net.layouts[0] is False
    assert set(net.layouts[1:]) == {True}
    assert heatmap.run["bit_identity"]["channels_last"] is False
    assert (state_of(heatmap.state) == DONE).all()


def test_a_model_that_fails_in_any_layout_is_tried_twice_at_most():
    calls = []

    class Failing(Viewing):
        def forward(self, batch):
            calls.append(batch.is_contiguous())
            raise ValueError("never")

    with pytest.raises(ModelRunError, match="never"):
        prepare(noise_slide(), Failing(), window=64, tissue="none")
    assert calls == [False, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_a_gpu_that_runs_out():
    free = torch.cuda.mem_get_info()[0]

    def greedy(batch):
        torch.empty(int(free / 12) * len(batch), dtype=torch.uint8, device=batch.device)
        return batch.mean((2, 3))

    settings = QUIET | {"device": "cuda"}
    heatmap = wh.compute_heatmap(noise_slide(), greedy, batch_size=32, **settings)
    assert heatmap.run["halved"][0]["from"] == 32
    assert (state_of(heatmap.state) == DONE).all()
    found = prepare(noise_slide(), greedy, window=64, tissue="none", device="cuda")
    assert found.plan.batch_size <= 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_convolutions_on_a_gpu_see_channels_last():
    seen, net = [], small_net()
    net.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    heatmap = wh.compute_heatmap(noise_slide(), net, batch_size=8, device="cuda", **QUIET)
    exact = wh.compute_heatmap(noise_slide(), small_net(), batch_size=8, device="cpu", **QUIET)
    assert all(seen)
    np.testing.assert_allclose(heatmap.values, exact.values, atol=5e-3)  # TF32
