"""Model files of each kind give what the network gives, keep the contract and say what they are."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
import torch

from contracts import ModelContract
from made_files import (
    small,
    write_program,
    write_safetensors,
    write_script,
    write_weights,
)
from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.again import load_again, spec_of
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.sniff import sniff
from napari_wsi_heatmap.models.statedict import without_prefix
from napari_wsi_heatmap.models.tensors import WRAPPERS, read_state

CPU = torch.device("cpu")


class FileContract(ModelContract):
    """Subclasses give `write` and `load`."""

    def write(self, path, module):
        raise NotImplementedError

    def load(self, path):
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.tmp_path = tmp_path

    def make(self):
        return self.load(self.written(0))

    def make_other(self):
        return self.load(self.written(1))

    def written(self, seed):
        """A file is written once: no two of torch.export are the same bytes."""
        path = self.tmp_path / str(seed) / "net.pt"
        if path.parent.exists():
            return path
        path.parent.mkdir()
        return self.write(path, small(seed))

    def test_gives_what_the_network_gives(self, model, patches):
        with inference(CPU):
            assert torch.allclose(model(patches), small(0)(patches), rtol=0, atol=1e-6)

    def test_any_size_of_batch(self, model, patches):
        whole = model(patches)
        for n in (1, 3, 5, 7):
            assert torch.allclose(model(patches[:n]), whole[:n], rtol=0, atol=1e-6)

    def test_bears_the_name_of_its_file(self, model):
        assert model.name == "net"


class TestSafetensors(FileContract):
    def write(self, path, module):
        return write_safetensors(path, module)

    def load(self, path):
        return load_model(path, arch=small(9), window=32)


class TestWeights(TestSafetensors):
    def write(self, path, module):
        return write_weights(path, module, wrapper="state_dict", prefix="module.")


class TestLegacyWeights(TestSafetensors):
    def write(self, path, module):
        return write_weights(path, module, legacy=True)


class TestTorchScript(FileContract):
    def write(self, path, module):
        return write_script(path, module)

    def load(self, path):
        return load_model(path, trust=True, window=32)


class TestExportedForOneBatch(FileContract):
    def write(self, path, module):
        return write_program(path, module, batch=4)

    def load(self, path):
        return load_model(path, trust=True)

    def test_says_its_shapes(self, model):
        assert model.window == (32, 32)
        assert model.batch_size == 4


class TestExportedForASingleWindow(TestExportedForOneBatch):
    def write(self, path, module):
        return write_program(path, module, batch=1)

    def test_says_its_shapes(self, model):
        assert model.window == (32, 32)
        assert model.batch_size is None


class TestExportedForManyBatches(TestExportedForOneBatch):
    def write(self, path, module):
        return write_program(path, module, least=2, most=6)

    def test_says_its_shapes(self, model):
        assert model.window == (32, 32)
        assert model.batch_size is None


def test_each_kind_is_known_by_its_content_not_its_name(tmp_path):
    path, net = tmp_path / "model.txt", small()
    assert sniff(write_safetensors(path, net)) == "safetensors"
    assert sniff(write_weights(path, net)) == "weights"
    assert sniff(write_weights(path, net, legacy=True)) == "legacy weights"
    assert sniff(write_script(path, net)) == "TorchScript"
    assert sniff(write_program(path, net)) == "torch.export"


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module."])
def test_wrappers_and_prefixes_are_undone(tmp_path, wrapper, prefix):
    path = write_weights(tmp_path / "a.pt", small(3), wrapper=wrapper, prefix=prefix)
    module = small(4)
    assert load_model(module, weights=path).function is module
    for name, value in small(3).state_dict().items():
        assert torch.equal(module.state_dict()[name], value)


def test_a_prefix_that_belongs_to_the_names_stays():
    state = {"model.a": torch.zeros(1), "model.b": torch.zeros(1)}
    assert without_prefix(state, ["model.a", "model.b"]) is state
    assert without_prefix({f"module.{k}": v for k, v in state.items()}, ["model.a"]) == state


def test_a_mismatch_names_the_weights(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", torch.nn.Linear(2, 3))
    before = small().state_dict()
    net = small()
    with pytest.raises(
        ModelLoadError, match=r"6 missing .*body\.0\.weight.*2 not expected"
    ) as caught:
        load_model(net, weights=path)
    assert len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_another_number_of_classes_is_said(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", small(classes=5))
    with pytest.raises(ModelLoadError, match=r"head.weight has shape \(5, 5\), and \(2, 5\)"):
        load_model(path, arch=small())


def test_weights_of_whole_numbers_are_refused(tmp_path):
    state = {k: v.to(torch.int64) for k, v in small().state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ModelLoadError, match=r"is of torch\.int64"):
        load_model(tmp_path / "a.pt", arch=small())


def test_half_precision_is_taken(tmp_path):
    net = small()
    write_safetensors(tmp_path / "a.safetensors", small().half())
    load_model(net, weights=tmp_path / "a.safetensors")
    assert net.head.weight.dtype == torch.float32


def test_weights_without_an_architecture_say_what_to_give(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", small())
    with pytest.raises(ModelLoadError, match="arch='resnet18'"):
        load_model(path)


def test_code_has_its_own_architecture(tmp_path):
    with pytest.raises(ModelLoadError, match="leave arch= away"):
        load_model(write_script(tmp_path / "a.pt", small()), arch="resnet18", trust=True)


def test_weights_cannot_come_from_code(tmp_path):
    path = write_script(tmp_path / "a.pt", small())
    with pytest.raises(ModelLoadError, match="TorchScript file"):
        load_model(small(), weights=path, trust=True)


def test_without_timm_the_way_out_is_said(tmp_path):
    path = write_safetensors(tmp_path / "a.safetensors", small())
    code = (
        "import sys\nsys.modules['timm'] = None\n"
        "from napari_wsi_heatmap.models import load_model\n"
        "from napari_wsi_heatmap.errors import ModelLoadError\n"
        f"try:\n    load_model({str(path)!r}, arch='resnet18')\n"
        "except ModelLoadError as error:\n    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs timm" in told.stdout
    assert "napari-wsi-heatmap[encoders]" in told.stdout


def test_a_program_for_other_windows_says_so(tmp_path):
    path = write_program(tmp_path / "a.pt2", small())
    with pytest.raises(ModelLoadError, match="exported for windows of 32 x 32 px"):
        load_model(path, trust=True, window=64)


def test_a_program_of_two_inputs_is_refused(tmp_path):
    class Two(torch.nn.Module):
        def forward(self, x, y):
            return x + y

    example = (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    torch.export.save(torch.export.export(Two(), example), path := tmp_path / "a.pt2")
    with pytest.raises(ModelLoadError, match="takes 2 inputs"):
        load_model(path, trust=True)


def test_a_program_may_return_a_dict(tmp_path):
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x):
            return {"logits": self.net(x), "mean": x.mean((2, 3))}

    path = write_program(tmp_path / "a.pt2", Both(), batch=2)
    model = load_model(path, trust=True, output="logits", features="mean")
    x = torch.rand(5, 3, 32, 32)
    with inference(CPU):
        values, vectors = model.outputs(x)
        assert torch.allclose(values, small()(x), atol=1e-6)
        assert torch.allclose(vectors, x.mean((2, 3)), atol=1e-6)


def test_a_replica_has_layers_of_its_own(tmp_path):
    x = torch.rand(4, 3, 32, 32)
    model = load_model(write_script(tmp_path / "a.pt", small()), trust=True)
    twin = model.replica()
    assert twin.module is not model.module
    with inference(CPU):
        assert torch.equal(twin(x), model(x))


def test_what_a_record_keeps_makes_the_model_again(tmp_path):
    path = write_script(tmp_path / "a.pt", small())
    model = load_model(path, trust=True, activation="softmax", names=["a", "b"], window=32)
    spec = spec_of(model)
    assert spec["path"] == str(path)
    again = load_again(spec)
    assert again.sha256 == model.sha256
    assert again.names == ("a", "b")
    moved = path.rename(tmp_path / "elsewhere.pt")
    assert load_again(spec, given=moved).sha256 == model.sha256
    with pytest.raises(ModelLoadError, match="no such model file"):
        load_again(spec)


def test_a_model_with_parts_from_python_is_not_made_again(tmp_path):
    path = write_script(tmp_path / "a.pt", small())
    assert spec_of(load_model(path, trust=True, transform=lambda x: x)) is None
    weights = write_safetensors(tmp_path / "a.safetensors", small())
    assert spec_of(load_model(weights, arch=small())) is None


@pytest.mark.parametrize("key", ["trust", "weights", "transform", "anything"])
def test_a_record_gives_no_consent(tmp_path, key):
    path = write_script(tmp_path / "a.pt", small())
    with pytest.raises(ModelLoadError, match="the record does not say"):
        load_again({"path": str(path), key: True})


def test_reading_weights_does_not_depend_on_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = write_weights(tmp_path / "a.pt", small())
    assert read_state(path).keys() == small().state_dict().keys()
    buffer = io.BytesIO()
    torch.save(small(), buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ModelLoadError, match="it is a pickled model"):
        read_state(path)
