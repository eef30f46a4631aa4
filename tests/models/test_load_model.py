"""Which specs and settings `load_model` takes, and how it refuses the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models import BUILTIN, KINDS, builtin_names, load_model
from napari_wsi_heatmap.models.builtin import BuiltinModel
from napari_wsi_heatmap.models.callables import CallableModel


def test_names_and_refusals_cost_no_torch():
    code = """
import sys
from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models import builtin_names, load_model
assert "nuclei" in builtin_names()
for spec, settings in (("nucleus", {}), ("a.pt", {}), ("nuclei", {"window": 0})):
    try:
        load_model(spec, **settings)
    except ModelLoadError:
        continue
    raise SystemExit("no refusal")
raise SystemExit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_builtin_has_a_line_of_description():
    assert set(builtin_names()) == set(BUILTIN)
    assert all(text and "\n" not in text for text in BUILTIN.values())


def test_the_table_names_what_exists():
    made = [kind.name for kind in KINDS]
    assert {"builtin", "ready", "callable"} < set(made)
    assert made[-1] == "file"


def test_builtin_name():
    model = load_model("eosin")
    assert isinstance(model, BuiltinModel)
    assert (model.name, model.window, model.mpp) == ("eosin", (64, 64), 0.5)


def test_module_and_function():
    assert isinstance(load_model(torch.nn.Flatten()), CallableModel)
    assert load_model(lambda x: x.mean((1, 2, 3))).window == (224, 224)


def test_a_model_passes_through():
    model = load_model("focus")
    assert load_model(model) is model


@pytest.mark.parametrize("spec", ["nuclei", torch.nn.Flatten()])
def test_settings_apply_to_a_copy(spec):
    model = load_model(spec)
    changed = load_model(model, window=96, mpp=0.25, names="a", batch_size=4)
    assert (changed.window, changed.mpp, changed.names) == ((96, 96), 0.25, ("a",))
    assert changed.batch_size == 4
    assert type(changed) is type(model)
    assert model.window != (96, 96)
    assert model.mpp != 0.25
    assert model.names != ("a",)


def test_an_activation_makes_probabilities_of_it():
    model = load_model("hematoxylin", activation="sigmoid")
    assert (model.unit, model.limits) == ("", (0.0, 1.0))
    assert load_model("hematoxylin").unit == "OD"


@pytest.mark.parametrize("window", [33, (20, 33), [20, 33], np.int64(33)])
def test_windows_become_height_and_width(window):
    height, width = load_model("tissue", window=window).window
    assert width == 33
    assert height in (20, 33)
    assert type(width) is int


@pytest.mark.parametrize(
    "settings",
    [
        {"window": 0},
        {"window": -3},
        {"window": 2.5},
        {"window": True},
        {"window": (1, 2, 3)},
        {"window": "64"},
        {"mpp": 0},
        {"mpp": -0.5},
        {"mpp": float("nan")},
        {"mpp": float("inf")},
        {"mpp": "0.5"},
        {"mpp": "abc"},
        {"activation": "relu"},
        {"activation": ["softmax"]},
        {"names": []},
        {"names": ["a", "a"]},
        {"names": ["a", 1]},
        {"transform": 3},
        {"output": 1.5},
        {"output_stride": 0},
        {"batch_size": 0},
        {"batch_size": 2.0},
    ],
)
def test_a_setting_that_cannot_be_is_named(settings):
    (name,) = settings
    with pytest.raises(ModelLoadError, match=f"^{name}=") as caught:
        load_model("tissue", **settings)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["Hematoxylin", "haematoxylin", "hematoxilin", "nucleus"])
def test_unknown_name_suggests_the_nearest(name):
    near = "nuclei" if name == "nucleus" else "hematoxylin"
    with pytest.raises(ModelLoadError, match=f"did you mean '{near}'") as caught:
        load_model(name)
    assert all(builtin in str(caught.value) for builtin in BUILTIN)


def test_unknown_name_lists_the_builtin_ones():
    with pytest.raises(ModelLoadError, match="The builtin ones are"):
        load_model("resnet50")


@pytest.mark.parametrize("spec", ["net.pt", "some/folder/net", Path("net"), "C.safetensors"])
def test_a_file_that_is_not_there(spec):
    with pytest.raises(ModelLoadError, match="there is no such model file"):
        load_model(spec)


def test_a_folder_of_other_things_is_no_model(tmp_path, monkeypatch):
    (tmp_path / "zoo").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match="folder"):
        load_model("zoo")


@pytest.mark.parametrize(("spec", "what"), [(None, "NoneType"), (3, "int"), ({}, "dict")])
def test_what_is_no_model_is_refused(spec, what):
    with pytest.raises(ModelLoadError, match=f"a {what} is no model"):
        load_model(spec)


def test_a_class_is_refused():
    with pytest.raises(ModelLoadError, match=r"hand over an instance: Flatten\(\)"):
        load_model(torch.nn.Flatten)


def test_an_architecture_belongs_to_a_file():
    with pytest.raises(ModelLoadError, match="belongs to a file of weights"):
        load_model(torch.nn.Flatten(), arch="resnet50")
    with pytest.raises(ModelLoadError, match="give one of them"):
        load_model(torch.nn.Flatten(), arch="resnet50", weights="w.safetensors")


def test_weights_belong_into_layers():
    with pytest.raises(ModelLoadError, match=r"hand over an nn\.Module"):
        load_model(len, weights="w.safetensors")
