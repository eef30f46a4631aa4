"""What two windows tell about a model before a run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_wsi_heatmap.errors import ModelOutputError, ModelRunError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.dry_run import DEPENDENT, NOT_COMPILED, RAISED, RANDOM, dry_run

PATCHES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def mean(x):
    return x.mean((2, 3))


def test_grid_output():
    told = dry_run(load_model(mean), PATCHES, batch_size=8)
    assert (told.channels, told.map_shape, told.batch_size) == (3, None, 8)
    assert told.names == ("0", "1", "2")
    assert told.independent
    assert told.finite
    assert told.notices == ()
    assert told.seconds_per_batch > 0


def test_dense_output():
    told = dry_run(load_model(lambda x: x[:, :1, ::4, ::2]), PATCHES)
    assert (told.channels, told.map_shape, told.names) == (1, (4, 8), ("value",))


def test_names_are_kept():
    assert dry_run(load_model(mean, names="abc"[:1]), PATCHES[:, :1]).names == ("a",)
    assert dry_run(load_model(mean, names=list("abc")), PATCHES).names == ("a", "b", "c")


def test_names_must_be_as_many_as_outputs():
    with pytest.raises(ModelOutputError, match="3 outputs and 2 names"):
        dry_run(load_model(mean, names=("a", "b")), PATCHES)


def test_the_model_sees_only_pairs_and_whole_batches_of_float32():
    seen = []

    def watching(x):
        seen.append((tuple(x.shape), x.dtype))
        return mean(x)

    dry_run(load_model(watching), PATCHES, batch_size=8)
    assert {shape[0] for shape, _ in seen} == {2, 8}
    assert {shape[1:] for shape, _ in seen} == {(3, 16, 16)}
    assert {dtype for _, dtype in seen} == {torch.float32}


def test_a_whole_batch_is_padded_with_zeros():
    seen = []
    dry_run(load_model(lambda x: (seen.append(x), mean(x))[1]), PATCHES, batch_size=4)
    whole = [x for x in seen if len(x) == 4]
    assert torch.equal(whole[0][:2], PATCHES)
    assert torch.equal(whole[1][:2], PATCHES.flip(0))
    assert all(x[2:].eq(0).all() for x in whole)


@pytest.mark.parametrize(
    ("stated", "given", "used"), [(4, None, 4), (4, 16, 16), (None, 5, 5), (1, None, 2)]
)
def test_batch_size_given_stated_and_raised(stated, given, used):
    told = dry_run(load_model(mean, batch_size=stated), PATCHES, batch_size=given)
    assert told.batch_size == used
    assert (RAISED in told.notices) == (stated == 1)


def test_batch_size_measured():
    assert dry_run(load_model(mean), PATCHES).batch_size in (2, 4, 8, 16, 32)


def batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1))


def test_batch_norm_in_training_mode_is_put_in_evaluation_mode():
    net = batch_norm()
    model = load_model(net)
    told = dry_run(model, PATCHES, batch_size=8)
    assert told.independent
    assert net[0].num_batches_tracked == 0
    model.restore()
    assert net.training


@pytest.mark.parametrize("batch_size", [2, 8])
def test_batch_norm_hidden_in_a_function_is_found(batch_size):
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.AdaptiveAvgPool2d(1))
    told = dry_run(load_model(lambda x: net(x)), PATCHES, batch_size=batch_size)
    assert not told.independent
    assert told.notices == (DEPENDENT,)


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: mean((x / x.amax() * 127).round()),
        lambda x: mean(x) + torch.arange(len(x))[:, None],
        lambda x: mean(x) - mean(x).mean(0),
    ],
)
def test_dependence_on_neighbours_or_place_is_found(function, batch_size):
    told = dry_run(load_model(function), PATCHES, batch_size=batch_size)
    assert told.notices == (DEPENDENT,)


def test_dependence_that_only_a_whole_batch_shows_is_found():
    def crowded(x):
        return mean(x) + (torch.arange(len(x)) == 1)[:, None] * (len(x) > 2) * 1e-6

    assert dry_run(load_model(crowded), PATCHES, batch_size=2).independent
    assert not dry_run(load_model(crowded), PATCHES, batch_size=4).independent


def test_randomness_is_told_apart():
    told = dry_run(load_model(lambda x: torch.rand(len(x))), PATCHES, batch_size=4)
    assert told.notices == (RANDOM,)


def test_dropout_is_off_in_a_module():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16 * 16, 2))
    assert dry_run(load_model(net), PATCHES, batch_size=4).independent


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_a_notice(value):
    told = dry_run(load_model(lambda x: mean(x) * value), PATCHES, batch_size=4)
    assert not told.finite
    assert told.independent
    assert told.notices == ("6 of 6 values of two sample windows are NaN or infinite",)


def test_a_shape_that_changes_with_the_batch_is_refused():
    with pytest.raises(ModelOutputError, match=r"\(2, 2\) for one batch and \(8, 8\)"):
        dry_run(load_model(lambda x: x.new_zeros(len(x), len(x))), PATCHES, batch_size=8)


def test_what_the_model_raises_comes_out_as_ours():
    def picky(x):
        assert len(x) != 8, "not eight\nnever"
        return mean(x)

    with pytest.raises(ModelRunError, match=r"AssertionError: not eight$") as caught:
        dry_run(load_model(picky), PATCHES, batch_size=8)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_gradients_are_off_and_values_stay_usable():
    seen = []
    net = nn.Conv2d(3, 1, 3)
    model = load_model(lambda x: (seen.append(torch.is_inference_mode_enabled()), net(x))[1])
    assert dry_run(model, PATCHES, batch_size=2).finite
    assert all(seen)
    assert not torch.is_inference_mode_enabled()


def test_smaller_precision_by_autocast():
    seen = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))

    def watching(x):
        values = net(x)
        seen.append((x.dtype, values.dtype))
        return values

    told = dry_run(load_model(watching), PATCHES, batch_size=4, dtype=torch.bfloat16)
    assert told.finite
    assert set(seen) == {(torch.float32, torch.bfloat16)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["hematoxylin", "nuclei", "focus", "tissue"])
def test_builtin_models_on_a_gpu(name):
    model = load_model(name)
    told = dry_run(model, PATCHES, device="cuda")
    assert told.independent
    with torch.inference_mode():
        torch.testing.assert_close(
            model(PATCHES.cuda()).cpu(), model(PATCHES), rtol=1e-5, atol=1e-5
        )


def test_a_model_that_changes_its_input_is_not_called_random():
    dry = dry_run(load_model(lambda batch: batch.mul_(2).mean((1, 2, 3))), torch.rand(2, 3, 8, 8))
    assert dry.independent
    assert dry.notices == ()


def test_a_batch_of_large_windows_is_smaller():
    dry = dry_run(load_model(lambda batch: batch[:, 0, 0, 0]), torch.rand(2, 3, 2048, 2048))
    assert dry.batch_size <= 4


def test_a_compiled_model_is_tried_in_whole_batches_only():
    met = []

    def compiled(batch):
        met.append(len(batch))
        return mean(batch)

    for size in (2, 8):
        met.clear()
        told = dry_run(load_model(mean), PATCHES, batch_size=size, compiled=compiled)
        assert told.compiled
        assert told.independent
        assert told.notices == ()
        assert set(met) == {size}
    assert not dry_run(load_model(mean), PATCHES, batch_size=8).compiled


@pytest.mark.parametrize(
    "compiled",
    [
        lambda batch: mean(batch) - mean(batch).mean(0),
        lambda batch: mean(batch) + torch.arange(len(batch))[:, None],
    ],
)
def test_dependence_that_only_the_compiled_model_shows_is_found(compiled):
    told = dry_run(load_model(mean), PATCHES, batch_size=4, compiled=compiled)
    assert told.compiled
    assert told.notices == (DEPENDENT,)


@pytest.mark.parametrize("error", [RuntimeError("no\ncompiler"), ImportError("no\ncompiler")])
def test_a_compiler_that_fails_is_a_notice(error):
    def compiled(batch):
        raise error

    told = dry_run(load_model(mean), PATCHES, batch_size=4, compiled=compiled)
    assert not told.compiled
    assert told.independent
    assert told.notices == (NOT_COMPILED.format("no compiler"),)


def test_a_compiled_model_of_another_shape_is_not_used():
    told = dry_run(load_model(mean), PATCHES, batch_size=4, compiled=lambda b: b.new_zeros(4, 1))
    assert not told.compiled
    assert len(told.notices) == 1


def test_the_run_calls_the_model_as_it_was_tried():
    seen = []

    def call(batch):
        seen.append(len(batch))
        return mean(batch)

    dry_run(load_model(mean), PATCHES, batch_size=4, call=call)
    assert set(seen) == {2, 4}
