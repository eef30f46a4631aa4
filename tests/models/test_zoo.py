"""Models of the WSInfer zoo: what their config says, and what it may not say."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from torch import nn

from contracts import ModelContract
from napari_wsi_heatmap.errors import ModelLoadError, UntrustedModelError
from napari_wsi_heatmap.models import load_model, trust
from napari_wsi_heatmap.models.again import load_again, spec_of
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.normalize import Normalize
from napari_wsi_heatmap.models.zooconfig import read_config

CPU = torch.device("cpu")
REVISION = "0123456789abcdef0123456789abcdef01234567"
MEAN, STD = [0.7, 0.5, 0.6], [0.2, 0.25, 0.3]
CONFIG = {
    "spec_version": "1.0",
    "architecture": "resnet34",
    "num_classes": 2,
    "class_names": ["other", "tumor"],
    "patch_size_pixels": 350,
    "spacing_um_px": 0.25,
    "transform": [
        {"name": "Resize", "arguments": {"size": 32}},
        {"name": "ToTensor"},
        {"name": "Normalize", "arguments": {"mean": MEAN, "std": STD}},
    ],
}


@pytest.fixture(autouse=True)
def trusted(tmp_path_factory, monkeypatch):
    """Consent that tests give stays out of the user's folder."""
    folder = tmp_path_factory.mktemp("trusted")
    monkeypatch.setattr(trust, "folder", lambda: folder)
    return folder


class Net(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, outputs)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def made_net(outputs=2, seed=0):
    torch.manual_seed(seed)
    return Net(outputs).eval()


def save_script(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(net).save(str(path))


def make_zoo(folder, outputs=2, seed=0, file="torchscript_model.pt", **changes):
    folder.mkdir(exist_ok=True, parents=True)
    names = {"num_classes": outputs, "class_names": ["other", "tumor"][-outputs:]}
    (folder / "config.json").write_text(json.dumps(CONFIG | names | changes))
    save_script(made_net(outputs, seed), folder / file)
    return folder


class TestZooModel(ModelContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def make(self):
        return load_model(make_zoo(self.folder / "zoo"), trust=True)

    def make_other(self):
        return load_model(make_zoo(self.folder / "zoo", seed=1), trust=True)


@pytest.mark.parametrize("outputs", [1, 2])
def test_probabilities_are_those_of_the_net(tmp_path, outputs):
    model = load_model(str(make_zoo(tmp_path / "zoo", outputs)), trust=True)
    patches = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with inference(CPU):
        logits = made_net(outputs)((patches - column(MEAN)) / column(STD))
        wanted = logits.softmax(1) if outputs > 1 else logits.sigmoid()
        torch.testing.assert_close(model(patches), wanted, rtol=0, atol=1e-6)


def column(values):
    return torch.tensor(values)[:, None, None]


def test_what_it_says_of_itself(tmp_path):
    model = load_model(make_zoo(tmp_path / "breast-tumor"), trust=True)
    assert model.name == "breast-tumor"
    assert model.window == (32, 32)
    assert model.mpp == pytest.approx(0.25 * 350 / 32)  # what 350 px of 0.25 µm become
    assert model.names == ("other", "tumor")
    assert model.limits == (0.0, 1.0)


def test_settings_win(tmp_path):
    model = load_model(make_zoo(tmp_path / "zoo"), trust=True, mpp=1.0, window=16, names=("a", "b"))
    assert (model.mpp, model.window, model.names) == (1.0, (16, 16), ("a", "b"))


def test_without_a_resize_patches_have_their_own_size(tmp_path):
    zoo = make_zoo(tmp_path / "zoo", transform=[{"name": "ToTensor"}], patch_size_pixels=48)
    model = load_model(zoo, trust=True)
    assert (model.window, model.mpp, model.transform) == ((48, 48), 0.25, None)


def test_its_code_needs_consent(tmp_path):
    zoo = make_zoo(tmp_path / "zoo")
    with pytest.raises(UntrustedModelError, match=r"torchscript_model\.pt") as caught:
        load_model(zoo)
    load_model(zoo, trust=caught.value.sha256)
    assert load_model(zoo).names == ("other", "tumor")  # consent is remembered
    make_zoo(tmp_path / "zoo", seed=1)
    with pytest.raises(UntrustedModelError):
        load_model(zoo)


def test_it_is_made_again_from_its_record(tmp_path):
    for settings in ({}, {"names": ("a", "b"), "activation": "sigmoid"}):
        model = load_model(make_zoo(tmp_path / "zoo"), trust=True, **settings)
        again = load_again(json.loads(json.dumps(spec_of(model))))
        assert again.sha256 == model.sha256
        assert (again.names, again.name) == (model.names, model.name)
    assert spec_of(load_model(model, transform=torch.sqrt)) is None


def test_statistics_belong_to_its_identity(tmp_path):
    one = load_model(make_zoo(tmp_path / "zoo"), trust=True)
    steps = [
        *CONFIG["transform"][:2],
        {"name": "Normalize", "arguments": {"mean": STD, "std": STD}},
    ]
    other = load_model(make_zoo(tmp_path / "zoo", transform=steps), trust=True)
    assert one.sha256 != other.sha256


def test_the_only_file_of_another_name_is_taken(tmp_path):
    zoo = make_zoo(tmp_path / "zoo", file="model.pt")
    assert load_model(zoo, trust=True).name == "zoo"
    save_script(made_net(seed=1), zoo / "second.pt")
    with pytest.raises(ModelLoadError, match=r"2 \.pt files.*one TorchScript file"):
        load_model(zoo, trust=True)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ModelLoadError, match=r"no \.pt file"):
        load_model(tmp_path)


def test_a_repository_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    make_zoo(tmp_path / f"models--kaczmarj--breast/snapshots/{REVISION}")
    spec = f"hf://kaczmarj/breast@{REVISION}"
    with pytest.raises(UntrustedModelError):
        load_model(spec)
    model = load_model(spec, trust=True)
    assert model.name == "breast"
    assert spec_of(model)["path"] == spec
    assert load_again(spec_of(model)).sha256 == model.sha256


WRONG = [
    ({"num_classes": 3}, "class_names must be 3"),
    ({"class_names": ["a", "a"]}, "2 different texts"),
    ({"class_names": "ab"}, "a list of texts"),
    ({"class_names": ["a", 1]}, "a list of texts"),
    ({"patch_size_pixels": 0}, "patch_size_pixels=0"),
    ({"patch_size_pixels": 2.5}, r"patch_size_pixels=2\.5"),
    ({"patch_size_pixels": True}, "patch_size_pixels=True"),
    ({"spacing_um_px": -1}, "spacing_um_px=-1"),
    ({"spacing_um_px": "0.5"}, "spacing_um_px='0.5'"),
    ({"spacing_um_px": float("nan")}, "spacing_um_px=nan"),
    ({"transform": {}}, "a list of objects"),
    ({"transform": []}, "Resize, ToTensor, Normalize in this order"),
    ({"transform": [{"name": "ToTensor"}, {"name": "Resize"}]}, "in this order"),
    ({"transform": [{"name": "ToTensor"}, {"name": "ToTensor"}]}, "in this order"),
    ({"transform": [{"name": "CenterCrop"}, {"name": "ToTensor"}]}, "in this order"),
    ({"transform": [{"name": ["x"]}, {"name": "ToTensor"}]}, "in this order"),
    ({"transform": [{"name": "ToTensor", "arguments": [1]}]}, "must be an object"),
    ({"transform": [{"name": "Resize"}, {"name": "ToTensor"}]}, "size of Resize=None"),
    (
        {"transform": [{"name": "Resize", "arguments": {"size": [32, 64]}}, {"name": "ToTensor"}]},
        r"size of Resize=\[32, 64\]",
    ),
    ({"transform": [{"name": "ToTensor"}, {"name": "Normalize"}]}, "three numbers each"),
    (
        {"transform": [{"name": "ToTensor"},
                       {"name": "Normalize", "arguments": {"mean": MEAN, "std": [1, 0, 1]}}]},
        "std of Normalize must be above 0",
    ),
    (
        {"transform": [{"name": "ToTensor"},
                       {"name": "Normalize", "arguments": {"mean": [0, 0], "std": STD}}]},
        "three numbers each",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "why"), WRONG)
def test_a_config_that_cannot_be_is_refused(tmp_path, changes, why):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    with pytest.raises(ModelLoadError, match=f"no config of a WSInfer model.*{why}") as caught:
        load_model(tmp_path, trust=True)
    assert len(str(caught.value).splitlines()) == 1
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "\xff", "[" * 100_000, "x" * (2 << 20)])
def test_what_is_no_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelLoadError, match="no config of a WSInfer model"):
        load_model(tmp_path, trust=True)


@pytest.mark.parametrize("key", ["num_classes", "class_names", "spacing_um_px", "transform"])
def test_a_missing_key_is_named(tmp_path, key):
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in CONFIG.items() if k != key}))
    with pytest.raises(ModelLoadError, match=f"{key} missing"):
        load_model(tmp_path, trust=True)


def test_a_local_config_needs_no_version_nor_architecture(tmp_path):
    short = {k: v for k, v in CONFIG.items() if k not in ("spec_version", "architecture")}
    (tmp_path / "config.json").write_text(json.dumps(short))
    assert read_config(tmp_path / "config.json").names == ("other", "tumor")


def test_normalize_is_that_of_torchvision():
    patches = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    given = Normalize(MEAN, STD)(patches)
    for c in range(3):
        assert torch.equal(given[:, c], (patches[:, c] - torch.tensor(MEAN[c])) / STD[c])
