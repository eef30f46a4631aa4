"""Feature vectors beside the values: which output they are, and what they must look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from contracts import ModelContract
from napari_wsi_heatmap.errors import ModelLoadError, ModelOutputError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.base import adapted
from napari_wsi_heatmap.models.dry_run import DEPENDENT, dry_run
from napari_wsi_heatmap.plan import row_shape, value_shape

PATCHES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def mean(x):
    return x.mean((2, 3))


def corners(x):
    return x[:, :, 0, ::4].flatten(1)


def pair(x):
    return mean(x), corners(x)


def quarters(x):
    return {"map": nn.functional.avg_pool2d(x, 4), "latent": corners(x).half()}


class Both(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

    def forward(self, x):
        features = self.conv(x).mean((2, 3))
        return {"features": features, "logits": self.head(features)}


class TestModuleWithFeatures(ModelContract):
    def make(self, seed=0):
        module = Both(seed)
        return load_model(module, window=16, output="logits", features="features", names=("a", "b"))

    def make_other(self):
        return self.make(1)


def test_values_and_features_in_one_row():
    model = load_model(pair, output=0, features=1)
    values, vectors = model.outputs(PATCHES)
    assert torch.equal(values, mean(PATCHES))
    assert torch.equal(model(PATCHES), mean(PATCHES))
    assert torch.equal(vectors, corners(PATCHES))
    assert torch.equal(model.rows(PATCHES), torch.cat([mean(PATCHES), corners(PATCHES)], 1))
    assert load_model(pair, output=0).outputs(PATCHES)[1] is None


@pytest.mark.parametrize(
    ("function", "settings"),
    [(pair, {"output": 0, "features": 1}), (pair, {"output": -2, "features": -1}),
     (quarters, {"output": "map", "features": "latent"}),
     (pair, {"output": 0, "features": 1, "activation": "softmax"})],
)  # fmt: skip
def test_the_dry_run_tells_their_length_and_rows_come_apart(function, settings):
    model = load_model(function, **settings)
    told = dry_run(model, PATCHES, batch_size=4)
    assert told.features == 12
    assert told.independent
    values, vectors, rows = model(PATCHES), model.outputs(PATCHES)[1], model.rows(PATCHES)
    assert rows.dtype == vectors.dtype == torch.float32
    assert rows.shape == (2, *row_shape(told))
    assert torch.equal(rows[:, :-12].reshape(values.shape), values)
    assert torch.equal(rows[:, -12:], vectors)
    assert values.shape[1:] == value_shape(told)
    without = dry_run(adapted(model, features=None), PATCHES, batch_size=4)
    assert without.features is None
    assert row_shape(without) == value_shape(without) == value_shape(told)


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (lambda x: mean(x), "one Tensor.*there are no features 1.*return a tuple or dict"),
        (lambda x: (mean(x),), r"no features 1.*choose some with features=0"),
        (lambda x: (mean(x), mean(x)[:, 0]), r"features of shape \(2,\).*must be \(2, D\)"),
        (lambda x: (mean(x), x), r"features of shape \(2, 3, 16, 16\)"),
        (lambda x: (mean(x), corners(x)[:1]), r"features of shape \(1, 12\) for 2 windows"),
        (lambda x: (mean(x), corners(x)[:, :0]), r"features of shape \(2, 0\)"),
        (lambda x: (mean(x), corners(x) * 1j), "complex features"),
        (lambda x: (mean(x), "many"), "returned a str"),
        (lambda x: (mean(x), np.array(["a", "b"])), "return numbers"),
    ],
)
def test_what_they_must_be(returned, why):
    with pytest.raises(ModelOutputError, match=why) as caught:
        dry_run(load_model(returned, output=0, features=1), PATCHES)
    assert len(str(caught.value).splitlines()) == 1


def test_pooled_features_are_vectors():
    model = load_model(lambda x: [mean(x), x[:, :, :1, :1]], output=0, features=1)
    assert dry_run(model, PATCHES).features == 3


def test_they_are_to_be_independent_of_neighbours_too():
    model = load_model(lambda x: (mean(x), mean(x) - mean(x).mean(0)), output=0, features=1)
    told = dry_run(model, PATCHES, batch_size=4)
    assert not told.independent
    assert DEPENDENT in told.notices


def test_they_are_to_be_finite_too():
    told = dry_run(load_model(lambda x: (mean(x), corners(x) / 0), output=0, features=1), PATCHES)
    assert not told.finite
    assert "24 of 30 values" in told.notices[-1]


def test_a_length_that_changes_is_refused():
    model = load_model(lambda x: (mean(x), x.new_ones(len(x), len(x))), output=0, features=1)
    with pytest.raises(ModelOutputError, match="must stay the same"):
        dry_run(model, PATCHES, batch_size=8)


def test_a_call_that_is_not_that_of_the_run_is_refused():
    model = load_model(pair, output=0, features=1)
    with pytest.raises(ModelOutputError, match="must stay the same"):
        dry_run(model, PATCHES, call=model)


@pytest.mark.parametrize("wrong", [True, 1.5, ["a"]])
def test_a_selector_is_an_index_or_a_key(wrong):
    with pytest.raises(ModelLoadError, match=r"features=.*an index or a key"):
        load_model(pair, features=wrong)


def test_with_features_a_model_is_another_one():
    plain, other = load_model(pair, output=0), load_model(pair, output=0, features=1)
    kinds = [plain, other, load_model(pair, output=0, features=0),
             load_model(pair, output=0, features="1")]  # fmt: skip
    assert len({model.sha256 for model in kinds}) == 4
    assert adapted(other, features=None).sha256 == plain.sha256
    assert load_model(other, features=1).sha256 == other.sha256
