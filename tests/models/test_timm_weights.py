"""State dicts put into architectures that timm knows by name; skipped where timm is absent."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from contracts import ModelContract
from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.again import load_again, spec_of
from timm_here import import_timm

ARCH = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def timm():
    return import_timm()


def net_of(timm, arch=ARCH, classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(arch, pretrained=False, num_classes=classes).eval()


def write(path, net, prefix=""):
    save_file({prefix + k: v.contiguous() for k, v in net.state_dict().items()}, path)
    return path


class TestNamedArchitecture(ModelContract):
    @pytest.fixture(autouse=True)
    def folder(self, timm, tmp_path):
        self.timm, self.tmp_path = timm, tmp_path

    def make(self, seed=0):
        path = write(self.tmp_path / "a.safetensors", net_of(self.timm, seed=seed))
        return load_model(path, arch=ARCH, window=64)

    def make_other(self):
        return self.make(1)


@pytest.mark.parametrize("classes", [0, 1, 7])
@pytest.mark.parametrize("arch", [ARCH, "resnet10t", "vit_tiny_patch16_224"])
def test_the_head_says_how_many_classes(timm, tmp_path, arch, classes):
    net = net_of(timm, arch, classes)
    path = write(tmp_path / "a.safetensors", net, "module.model.")
    model = load_model(path, arch=arch)
    x = torch.rand(2, 3, *model.window)
    with torch.inference_mode():
        assert torch.equal(model(x), net(model.transform(x)).float())


def test_what_timm_states_is_taken(timm, tmp_path):
    path = write(tmp_path / "a.safetensors", net_of(timm))
    stated = timm.get_pretrained_cfg(ARCH)
    model = load_model(ARCH, weights=path)
    assert model.window == stated.input_size[1:]
    assert model.transform.mean == stated.mean
    assert model.transform.std == stated.std
    assert load_model(ARCH, weights=path, window=96).window == (96, 96)
    assert load_again(spec_of(model)).sha256 == model.sha256


def test_another_architecture_is_refused(timm, tmp_path):
    path = write(tmp_path / "a.safetensors", net_of(timm))
    with pytest.raises(ModelLoadError, match=r"missing .* not expected"):
        load_model(path, arch="resnet10t")
    with pytest.raises(
        ModelLoadError, match=r"no architecture 'resnet10' - .*there are resnet10t,"
    ):
        load_model(path, arch="resnet10")


@pytest.mark.parametrize("cached", [False, True])
def test_weights_of_the_zoo_that_are_data_need_no_consent(timm, tmp_path, monkeypatch, cached):
    folder = tmp_path
    if cached:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        folder = tmp_path / "models--lab--tumor" / "snapshots" / ("0" * 40)
        folder.mkdir(parents=True)
    net = net_of(timm)
    write(folder / "model.safetensors", net)
    config = {
        "architecture": ARCH, "num_classes": 3, "class_names": ["a", "b", "c"],
        "patch_size_pixels": 64, "spacing_um_px": 0.5, "transform": [{"name": "ToTensor"}],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    model = load_model(f"hf://lab/tumor@{'0' * 40}" if cached else folder)
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(x), net(x).softmax(1))
    assert (model.window, model.mpp, model.names) == ((64, 64), 0.5, ("a", "b", "c"))
    assert load_again(spec_of(model)).sha256 == model.sha256
    (folder / "config.json").write_text(json.dumps(config | {"architecture": ""}))
    if not cached:
        with pytest.raises(ModelLoadError, match=r"holds no \.pt file"):
            load_model(folder)


@pytest.mark.parametrize("shape", [(1 << 40, 0), (3, 1), (9,), ()])
def test_a_head_of_another_shape_takes_no_memory(timm, tmp_path, shape):
    state = net_of(timm).state_dict() | {"classifier.weight": torch.zeros(shape)}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ModelLoadError, match=r"classifier.* has shape"):
        load_model(tmp_path / "a.pt", arch=ARCH)
