"""What decides the last bits: held fixed while models run, and recorded."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.arithmetic import (
    best_layout,
    describe_arithmetic,
    fixed_algorithms,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")  # naming a device needs none


@pytest.fixture
def benchmark():
    """cuDNN's search as its owner wants it; the switch is there without a GPU too."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    yield
    torch.backends.cudnn.benchmark = before


@pytest.mark.usefixtures("benchmark")
def test_the_search_for_algorithms_is_off_until_the_last_has_ended():
    first, second = fixed_algorithms(CUDA), fixed_algorithms(CUDA)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.benchmark
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("benchmark")
def test_an_error_puts_the_search_back():
    with pytest.raises(ValueError, match="x"), fixed_algorithms(CUDA):
        raise ValueError("x")
    assert torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("benchmark")
def test_on_a_cpu_nothing_is_switched():
    with fixed_algorithms(CPU):
        assert torch.backends.cudnn.benchmark


def test_channels_last_is_for_convolutions_and_where_it_makes_no_difference():
    convolution, linear = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Linear(3, 4))
    for device in (CPU, CUDA):
        assert best_layout(load_model(convolution), device) == torch.channels_last
        assert best_layout(load_model(convolution.forward), device) == torch.channels_last
        assert best_layout(load_model("nuclei"), device) == torch.channels_last
        for model in (linear, len):
            assert best_layout(load_model(model), device) == torch.contiguous_format


def test_what_is_recorded_is_plain():
    told = describe_arithmetic(CPU)
    assert json.loads(json.dumps(told)) == told
    assert told["device"] == "cpu"
    assert not told["cudnn_benchmark"]
    assert told["float32_of_matmul"] in ("none", "ieee", "tf32")
