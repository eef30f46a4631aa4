"""What tells two models apart when a run is resumed."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest
import torch
from torch import nn

from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.identity import module_sha256, qualified_name


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def digest_after(change):
    module = net()
    with torch.no_grad():
        change(module)
    return module_sha256(module)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[0].weight[0, 0, 0, 0].add_(1e-6),
        lambda m: m[1].running_mean.add_(1),
        lambda m: m[1].num_batches_tracked.add_(1),
        lambda m: m.double(),
        lambda m: m.append(nn.ReLU()),
        lambda m: m.__setitem__(2, nn.GELU()),
        lambda m: m.__setitem__(2, nn.Sigmoid()),
        lambda m: m.__setitem__(2, nn.MaxPool2d(2)),
    ],
)
def test_weights_types_and_layers_count(change):
    assert digest_after(change) != module_sha256(net())


def test_training_mode_and_memory_layout_do_not_count():
    assert digest_after(nn.Module.eval) == module_sha256(net())
    last = digest_after(lambda m: m.to(memory_format=torch.channels_last))
    assert last == module_sha256(net())


def test_weights_of_any_type_can_be_read():
    module = nn.Module()
    types = (torch.bfloat16, torch.complex64, torch.bool, torch.int8, torch.float64)
    for dtype in types:
        module.register_buffer(f"b{dtype}".replace(".", ""), torch.zeros(2, 3, dtype=dtype))
    module.register_buffer("scalar", torch.tensor(1.0, dtype=torch.bfloat16))
    module.register_buffer("empty", torch.zeros(0))
    assert len(module_sha256(module)) == 64


def test_extra_state_that_is_no_tensor_can_be_read():
    class Extra(nn.Module):
        def get_extra_state(self):
            return {"object": object()}

    assert module_sha256(Extra()) == module_sha256(Extra())


def test_functions_of_one_name_differ_by_their_code():
    digests = {
        module_sha256(function)
        for function in (
            lambda x: x.mean((1, 2, 3)),
            lambda x: x.amax((1, 2, 3)),
            lambda x: x.mean((2, 3)),
            lambda x: [v - 1 for v in x],
            lambda x: [v + 1 for v in x],
        )
    }
    assert len(digests) == 5


def test_a_partial_differs_by_what_it_fixes():
    three, two = (functools.partial(torch.mean, dim=dim) for dim in ((1, 2, 3), (2, 3)))
    assert module_sha256(three) != module_sha256(two)
    assert qualified_name(three) == qualified_name(two)


def test_a_bound_method_has_the_weights_of_its_owner():
    assert module_sha256(net().forward) != module_sha256(net(1).forward)


def test_transform_and_activation_count():
    plain = load_model(net())
    assert plain.sha256 == module_sha256(net())
    changed = [
        load_model(net(), activation="sigmoid"),
        load_model(net(), activation="softmax"),
        load_model(net(), transform=lambda x: x - 1),
        load_model(net(), transform=lambda x: x - 2),
    ]
    assert len({plain.sha256, *(model.sha256 for model in changed)}) == 5


def test_another_process_gives_the_same_digest():
    code = (
        "import torch\n"
        "from napari_wsi_heatmap.models import load_model\n"
        "def f(x):\n"
        "    return {'a': x, 'b': [v in {'p', 'q', 'r'} for v in x]}\n"
        "print(load_model(f).sha256, load_model('nuclei').sha256,\n"
        "      load_model(torch.nn.ReLU()).sha256)\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env
        ).stdout
        for env in hash_seeds()
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].split()) == 3


def hash_seeds():
    import os

    return [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
