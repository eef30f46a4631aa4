"""Which output is drawn: by key, by index, by the name of a class, in Python and on the line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide
from made_files import write_script
from napari_wsi_heatmap.cli import main
from napari_wsi_heatmap.errors import ModelLoadError, ModelOutputError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.again import load_again, spec_of

NAMES = ("tumor", "stroma", "other")
PATCHES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
QUIET = {"tissue": "none", "level": 0, "batch_size": 4, "window": 32, "progress": False}


def rgb(x):
    return x.mean((2, 3))


def both(x):
    return {"logits": rgb(x), "edges": x[:, :1, 0, 0], "map": x}


@pytest.mark.parametrize(
    ("function", "output", "channel"),
    [
        (rgb, "stroma", 1),
        (rgb, 2, 2),
        (rgb, -1, 2),
        (lambda x: rgb(x).numpy(), "tumor", 0),
        (lambda x: [rgb(x)], "stroma", 1),
        (both, ("logits", "stroma"), 1),
        (both, ("logits", 0), 0),
        (lambda x: (x, rgb(x)), (1, "other"), 2),
        (lambda x: (x, rgb(x)), (-1, -3), 0),
    ],
)
def test_a_class_alone(function, output, channel):
    values = load_model(function, output=output, names=NAMES)(PATCHES)
    assert torch.equal(values, rgb(PATCHES)[:, channel : channel + 1])


def test_a_class_of_maps():
    values = load_model(both, output=("map", "stroma"), names=NAMES)(PATCHES)
    assert torch.equal(values, PATCHES[:, 1:2])


def test_a_class_is_chosen_after_the_softmax_over_all():
    values = load_model(rgb, output="other", names=NAMES, activation="softmax")(PATCHES)
    assert torch.equal(values, rgb(PATCHES).softmax(1)[:, 2:])


def test_the_softmax_of_one_output_says_nothing():
    with pytest.raises(ModelOutputError, match="1 everywhere - choose activation='sigmoid'"):
        load_model(lambda x: x.mean((1, 2, 3)), activation="softmax")(PATCHES)


def test_without_names_the_numbers_are_names():
    assert torch.equal(load_model(rgb, output="1")(PATCHES), rgb(PATCHES)[:, 1:2])


@pytest.mark.parametrize(
    ("function", "output", "told"),
    [
        (rgb, "tumour", "there is no output 'tumour' - choose one of tumor, stroma, other"),
        (rgb, 3, "there is no output 3 - choose one of tumor, stroma, other, or by its index, 0"),
        (
            both,
            "tumor",
            r"there is no output 'tumor' - choose one with output='logits', or a class",
        ),
        (both, ("logits", "tumour"), "there is no output 'tumour' - choose one of tumor, stroma"),
        (both, ("logit", "tumor"), "there is no output 'logit'"),
        (rgb, ("logits", "tumor"), "one Tensor - there is no output 'logits' - choose the class"),
    ],
)
def test_what_is_not_there_is_one_line_that_names_what_is(function, output, told):
    with pytest.raises(ModelOutputError, match=told) as caught:
        load_model(function, output=output, names=NAMES)(PATCHES)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("output", [True, 1.5, (), ("a",), ("a", "b", "c"), ("a", None)])
def test_what_is_no_output_is_said_at_once(output):
    with pytest.raises(ModelLoadError, match="output="):
        load_model(rgb, output=output)


def test_an_activation_can_be_switched_off():
    model = load_model(rgb, activation="softmax")
    plain = load_model(model, activation="none")
    assert (plain.activation, plain.limits) == (None, None)
    assert torch.equal(plain(PATCHES), rgb(PATCHES))
    assert load_model("tissue", activation="none").limits == load_model("tissue").limits
    with pytest.raises(ModelLoadError, match="softmax, sigmoid, none"):
        load_model(rgb, activation="relu")


@pytest.fixture(scope="module")
def slide():
    return noise_slide(96, 128)


def test_a_run_takes_them_as_well(slide):
    every = wh.compute_heatmap(slide, mean_rgb, names=list(NAMES), **QUIET)
    one = wh.compute_heatmap(slide, mean_rgb, names=list(NAMES), output="stroma", **QUIET)
    assert one.names == ("stroma",)
    assert np.array_equal(one.values[0], every.values[1])
    assert one.run["plan"]["output"] == "stroma"
    assert every.names == NAMES


def test_a_wrong_name_stops_a_run_before_it_begins(slide, tmp_path):
    with pytest.raises(ModelOutputError, match="choose one of tumor, stroma, other"):
        wh.compute_heatmap(
            slide, mean_rgb, names=list(NAMES), output="tumour", out=tmp_path / "a.zarr", **QUIET
        )
    assert not (tmp_path / "a.zarr").exists()


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = x.mean((2, 3))
        return means, means.sum(1)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts") / "pair.pt"
    return write_script(path, Pair())


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    import tifffile

    path = tmp_path_factory.mktemp("slides") / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")
    return path


def typed(slide_path, script, out, *words):
    command = ["run", slide_path, "--model", script, "--out", out, "--window", 32, "--level", 0]
    command += ["--tissue", "none", "--batch-size", 4, "--trust", "yes", "--quiet", *words]
    return main([str(word) for word in command])


def test_on_the_command_line(slide_path, script, tmp_path, capsys):
    out = tmp_path / "a.zarr"
    words = ["--names", "tumor,stroma,other", "--output", 0, "--output", "stroma"]
    words += ["--activation", "softmax", "--tta", "flips"]
    assert typed(slide_path, script, out, *words) == 0
    heatmap = wh.open_heatmap(out)
    assert heatmap.names == ("stroma", "tta_std", "tta_entropy")
    assert heatmap.run["plan"]["output"] == [0, "stroma"]
    assert main(["resume", str(out), "--quiet"]) == 0
    capsys.readouterr()
    words[5] = "tumour"
    assert typed(slide_path, script, tmp_path / "b.zarr", *words) == 1
    told = capsys.readouterr().err.strip()
    assert "there is no output 'tumour' - choose one of tumor, stroma, other" in told
    assert len(told.splitlines()) == 1


class Logits(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


@pytest.fixture
def zoo(tmp_path):
    config = {
        "spec_version": "1.0", "architecture": "x", "num_classes": 3, "class_names": NAMES,
        "patch_size_pixels": 32, "spacing_um_px": 0.5,
        "transform": [{"name": "Resize", "arguments": {"size": 32}}, {"name": "ToTensor"}],
    }  # fmt: skip
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "config.json").write_text(json.dumps(config))
    write_script(tmp_path / "zoo" / "torchscript_model.pt", Logits())
    return tmp_path / "zoo"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, rgb(PATCHES).softmax(1)),
        ({"output": "stroma"}, rgb(PATCHES).softmax(1)[:, 1:2]),
        ({"output": "stroma", "activation": "none"}, rgb(PATCHES)[:, 1:2]),
        ({"activation": "sigmoid"}, rgb(PATCHES).sigmoid()),
    ],
)
def test_what_is_chosen_wins_over_the_files_and_a_record_keeps_it(zoo, chosen, expected):
    model = load_model(zoo, trust=True, **chosen)
    again = load_again(json.loads(json.dumps(spec_of(model))))
    for one in (model, again):
        torch.testing.assert_close(one(PATCHES), expected)
        assert one.limits == (None if chosen.get("activation") == "none" else (0, 1))
    assert again.sha256 == model.sha256


def test_a_record_keeps_a_pair_and_the_views(script):
    model = load_model(script, trust=True, output=(0, 2), tta="flips")
    again = load_again(json.loads(json.dumps(spec_of(model))))
    assert (again.output, again.tta) == ((0, 2), "flips")
    assert torch.equal(again(PATCHES), model(PATCHES))
