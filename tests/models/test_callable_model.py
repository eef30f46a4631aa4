"""Models handed over in Python: what they return, how they are recognised and restored."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from contracts import ModelContract
from napari_wsi_heatmap.errors import ModelOutputError, ModelRunError
from napari_wsi_heatmap.models import load_model

CPU = torch.device("cpu")
PATCHES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def small_net(seed=0, head=None):
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), head or Pooled(4))


class Pooled(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(channels, 2)

    def forward(self, x):
        return self.linear(self.dropout(x.mean((2, 3))))


class TestModule(ModelContract):
    def make(self):
        return load_model(small_net(), window=32, activation="softmax", names=("a", "b"))

    def make_other(self):
        return load_model(small_net(1), window=32, activation="softmax", names=("a", "b"))


class TestDenseModule(ModelContract):
    def make(self):
        return load_model(small_net(head=nn.MaxPool2d(8)), window=(32, 48), output_stride=8)

    def make_other(self):
        return load_model(small_net(head=nn.MaxPool2d(4)), window=(32, 48), output_stride=8)


class TestFunction(ModelContract):
    def make(self):
        return load_model(lambda x: x.amax((2, 3)), window=16)

    def make_other(self):
        return load_model(lambda x: x.amin((2, 3)), window=16)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x.mean((1, 2, 3)), (2, 1)),
        (lambda x: x.mean((2, 3)), (2, 3)),
        (lambda x: x, (2, 3, 8, 8)),
        (lambda x: x.mean((2, 3), keepdim=True), (2, 3)),
        (lambda x: x.mean((2, 3)).numpy(), (2, 3)),
        (lambda x: x.numpy().mean((1, 2, 3)).astype("f8"), (2, 1)),
        (lambda x: x.mean((2, 3)).half(), (2, 3)),
        (lambda x: (255 * x).mean((2, 3)).int(), (2, 3)),
        (lambda x: x.mean((2, 3)) > 0.5, (2, 3)),
        (lambda x: [x.mean((2, 3))], (2, 3)),
        (lambda x: {"only": x.mean((2, 3))}, (2, 3)),
    ],
)
def test_accepted_outputs(function, shape):
    values = load_model(function)(PATCHES)
    assert tuple(values.shape) == shape
    assert values.dtype == torch.float32


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.mean(), r"shape \(\) for 2 windows"),
        (lambda x: x.mean((0, 2, 3)), r"shape \(3,\) for 2 windows"),
        (lambda x: x[:, 0], r"shape \(2, 8, 8\) for 2 windows"),
        (lambda x: x[:1], r"shape \(1, 3, 8, 8\) for 2 windows"),
        (lambda x: x[:, :0], r"shape \(2, 0, 8, 8\)"),
        (lambda x: x.new_zeros(2, 1, dtype=torch.complex64), "complex"),
        (lambda x: 3.5, "returned a float"),
        (lambda x: None, "returned a NoneType"),
        (lambda x: "tumour", "returned a str"),
        (lambda x: np.array(["a", "b"]), "array of <U1"),
        (lambda x: (x, x), r"tuple of \[0, 1\]"),
        (lambda x: {"a": x, "b": x}, r"dict of \['a', 'b'\]"),
        (lambda x: (), r"tuple of \[\]"),
    ],
)
def test_outputs_that_cannot_be_placed(function, message):
    with pytest.raises(ModelOutputError, match=message) as caught:
        load_model(function)(PATCHES)
    assert len(str(caught.value).splitlines()) == 1


def test_squeeze_of_one_channel_is_one_value_each():
    values = load_model(lambda x: x.mean((2, 3))[:, :1].squeeze())(PATCHES)
    assert values.shape == (2, 1)


@pytest.mark.parametrize(
    ("output", "function"),
    [
        (1, lambda x: (x, x.mean((2, 3)))),
        (-1, lambda x: [x, x.mean((2, 3))]),
        ("logits", lambda x: {"features": x, "logits": x.mean((2, 3))}),
        ("logits", lambda x: {"features": x, "logits": x.mean((2, 3)).numpy()}),
    ],
)
def test_output_picks_one_of_several(output, function):
    assert torch.equal(load_model(function, output=output)(PATCHES), PATCHES.mean((2, 3)))


@pytest.mark.parametrize("output", [2, -3, "logits"])
def test_output_that_is_not_there(output):
    with pytest.raises(ModelOutputError, match=f"there is no output {output!r}"):
        load_model(lambda x: (x, x), output=output)(PATCHES)


def test_transform_comes_before_and_activation_after():
    model = load_model(
        lambda x: x.mean((2, 3)), transform=lambda x: x * 2 - 1, activation="softmax"
    )
    expected = (PATCHES * 2 - 1).mean((2, 3)).softmax(1)
    torch.testing.assert_close(model(PATCHES), expected)


def test_softmax_of_a_map_is_over_its_outputs():
    values = load_model(lambda x: x, activation="softmax")(PATCHES)
    torch.testing.assert_close(values.sum(1), torch.ones(2, 8, 8))


class Stating(nn.Module):
    window = 48
    mpp = 0.25
    names = ("a", "b", "c")

    def forward(self, x):
        return x.mean((2, 3))


def test_what_a_module_states_is_honoured():
    model = load_model(Stating())
    assert (model.window, model.mpp, model.names) == ((48, 48), 0.25, ("a", "b", "c"))
    assert load_model(Stating(), window=(9, 8)).window == (9, 8)


def test_layers_and_buffers_of_those_names_are_left_alone():
    module = nn.Module()
    module.register_buffer("window", torch.hann_window(8))
    module.names = nn.Linear(1, 1)
    model = load_model(module)
    assert (model.window, model.names) == ((224, 224), None)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x, "model"),
        (small_net(), "Sequential"),
        (torch.mean, "mean"),
        (functools.partial(torch.mean, dim=(1, 2, 3)), "mean"),
        (Stating(), "Stating"),
        (Stating().forward, "forward"),
    ],
)
def test_readable_names(function, name):
    assert load_model(function).name == name


def test_training_flags_come_back_as_they_were():
    net = small_net()
    net[1].eval()
    before = [part.training for part in net.modules()]
    model = load_model(net)
    model.to(CPU)
    model.to(CPU)
    assert not any(part.training for part in net.modules())
    model.restore()
    assert [part.training for part in net.modules()] == before
    model.restore()


def test_the_owner_of_a_bound_method_is_put_in_evaluation_mode():
    net = small_net()
    model = load_model(net.forward)
    model.to(CPU)
    assert not net.training
    model.restore()
    assert net.training


def test_device_comes_back(tmp_path):
    net = nn.Linear(2, 2)
    model = load_model(net)
    model.to(torch.device("meta"))
    assert net.weight.device.type == "meta"
    net.to_empty(device="cpu")
    model.restore()
    assert net.weight.device == CPU


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("mat1 and mat2\nmore\nmore"), "RuntimeError: mat1 and mat2$"),
        (ValueError(), "ValueError$"),
        (KeyError("key"), "KeyError: 'key'$"),
        (RuntimeError("set weights_only=False"), "RuntimeError: it tried to load weights"),
        (RuntimeError("Weights only load failed."), "RuntimeError: it tried to load weights"),
        (torch.OutOfMemoryError("CUDA out of memory"), "choose a smaller batch_size"),
        (StopIteration(), "StopIteration$"),
    ],
)
def test_an_exception_is_one_line_of_ours_with_its_cause(error, message):
    with pytest.raises(ModelRunError, match=message) as caught:
        load_model(Failing(error))(PATCHES)
    assert caught.value.__cause__ is error
    assert not isinstance(caught.value, RuntimeError)
    assert len(str(caught.value).splitlines()) == 1
    assert "weights_only" not in str(caught.value)


def test_an_exception_of_the_transform_is_the_model_s():
    model = load_model(small_net(), transform=Failing(ValueError("no")))
    with pytest.raises(ModelRunError, match="ValueError: no"):
        model(PATCHES)


def test_an_interrupt_is_no_error_of_the_model():
    with pytest.raises(KeyboardInterrupt):
        load_model(Failing(KeyboardInterrupt()))(PATCHES)


def test_a_real_shape_error_is_one_line():
    with pytest.raises(ModelRunError, match="the model raised RuntimeError: "):
        load_model(nn.Linear(5, 2))(PATCHES)


def test_two_users_of_one_module_share_what_its_owner_had():
    module = torch.nn.BatchNorm2d(3).train()
    one, two = load_model(module), load_model(module)
    one.to(CPU)
    two.to(CPU)
    one.restore()
    assert not module.training
    two.restore()
    assert module.training
    two.restore()
    assert module.training


def test_an_array_with_negative_strides():
    model = load_model(lambda batch: batch.mean((2, 3)).numpy()[:, ::-1])
    batch = torch.rand(2, 3, 4, 4)
    assert torch.equal(model(batch), batch.mean((2, 3)).flip(1))
