"""Foundation encoders: how outputs become vectors, what is drawn, and where weights come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from contracts import ModelContract
from made import noise_slide
from napari_wsi_heatmap.errors import ModelLoadError, ModelOutputError
from napari_wsi_heatmap.launch import compute_heatmap
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.again import load_again, spec_of
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.encoders import LAYERS, POOLS, EncoderModel, load_encoder
from napari_wsi_heatmap.models.encodertable import ENCODERS, IMAGENET, Encoder, encoder_in
from timm_here import import_timm

CPU = torch.device("cpu")
REVISION = "0123456789abcdef0123456789abcdef01234567"
MADE = Encoder(
    "made", "", 32, ("owner", "made"), size=32, field_um=16.0, pool="class+mean", prefix=3,
)  # fmt: skip
TINY = Encoder(
    "tiny", "vit_tiny_patch16_224", 32, ("Owner", "Tiny"), "model.safetensors",
    {"img_size": 32, "depth": 1, "embed_dim": 16, "num_heads": 2, "num_classes": 0,
     "global_pool": "", "reg_tokens": 2, "mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"},
    size=32, pool="class+mean", prefix=3,
)  # fmt: skip


class Tokens(nn.Module):
    """A class token, two registers and four patches of 16 numbers each."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.patches, self.norm = nn.Conv2d(3, 16, 16, stride=16), nn.LayerNorm(16)
        self.first = nn.Parameter(torch.randn(1, 3, 16))

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first + patches.mean(1, keepdim=True), patches], 1)
        return self.norm(tokens)


class TestEncoder(ModelContract):
    def make(self, seed=0):
        return EncoderModel("made", MADE, Tokens(seed))

    def make_other(self):
        return self.make(1)


def patches(n=4, side=32):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def column(values):
    return torch.tensor(values)[:, None, None]


def test_the_map_is_the_norm_and_the_vectors_are_features():
    model, net = EncoderModel("made", MADE, Tokens()), Tokens().eval()
    assert (model.name, model.names, model.window) == ("made", ("L2 norm",), (32, 32))
    assert model.unit == "L2 norm of the features"
    assert model.mpp == 0.5
    with inference(CPU):
        tokens = net((patches() - column(IMAGENET[0])) / column(IMAGENET[1]))
        wanted = torch.cat([tokens[:, 0], tokens[:, 3:].mean(1)], 1)
        values, vectors = model.outputs(patches())
        torch.testing.assert_close(vectors, wanted, rtol=0, atol=1e-6)
        norm = wanted.square().sum(1).sqrt()
        torch.testing.assert_close(values[:, 0], norm, rtol=1e-5, atol=1e-6)


def test_vectors_may_be_the_map_too():
    model = load_model(EncoderModel("made", MADE, Tokens()), output="features")
    assert model.names == tuple(f"latent_{d}" for d in range(32))
    assert model.unit == ""
    with inference(CPU):
        assert model(patches()).shape == (4, 32)


def test_pools():
    tokens = torch.arange(2 * 5 * 3.0).reshape(2, 5, 3)
    assert torch.equal(POOLS["class"](tokens, 1), tokens[:, 0])
    both = POOLS["class+mean"](tokens, 2)
    assert both[0].tolist() == [0, 1, 2, 9, 10, 11]  # the mean of tokens 2, 3 and 4
    cells = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    assert POOLS["mean"]([cells], 1)[0].tolist() == [1.5, 5.5, 9.5]
    assert torch.equal(POOLS["vector"](tokens[:, 0], 1), tokens[:, 0])


def test_how_vectors_are_made_belongs_to_its_identity():
    kinds = [MADE, Encoder(**(vars(MADE) | {"prefix": 1})),
             Encoder(**(vars(MADE) | {"statistics": ((0, 0, 0), (1, 1, 1))}))]  # fmt: skip
    models = [EncoderModel("made", kind, Tokens()) for kind in kinds]
    assert len({model.sha256 for model in models}) == 3
    assert load_model(models[0], activation="sigmoid").sha256 != models[0].sha256


def test_a_vector_of_another_length_is_refused():
    encoder = Encoder(**(vars(MADE) | {"dim": 7}))
    with inference(CPU), pytest.raises(ModelOutputError, match=r"\(4, 32\), not \(N, 7\)"):
        EncoderModel("made", encoder, Tokens())(patches())


def test_a_run_keeps_the_vectors_of_all_windows():
    slide, net = noise_slide(96, 128, 0.5), Tokens().eval()
    model = EncoderModel("made", MADE, Tokens())
    heatmap = compute_heatmap(slide, model, tissue="none", progress=False)
    table = heatmap.to_dataframe()
    assert list(table.columns) == ["x", "y", "L2 norm", *(f"latent_{i}" for i in range(32))]
    assert len(table) == 3 * 4
    for row in table.itertuples(index=False):
        patch = torch.from_numpy(slide.read_region(0, int(row.y), int(row.x), 32, 32)) / 255
        with inference(CPU):
            tokens = net((patch.permute(2, 0, 1)[None] - column(IMAGENET[0])) / column(IMAGENET[1]))
        wanted = torch.cat([tokens[0, 0], tokens[0, 3:].mean(0)]).numpy()
        np.testing.assert_allclose(row[3:], wanted, rtol=0, atol=1e-5)
        assert row[2] == pytest.approx(np.linalg.norm(wanted), abs=1e-5)


def test_the_table():
    dims = {name: encoder.dim for name, encoder in ENCODERS.items()}
    assert dims["resnet50-clam"] == dims["uni"] == dims["gpfm"] == 1024
    assert dims["uni2"] == dims["gigapath"] == dims["hoptimus0"] == dims["hoptimus1"] == 1536
    assert dims["virchow"] == dims["virchow2"] == 2560
    for encoder in ENCODERS.values():
        assert encoder.pool in POOLS
        assert 0.5 <= encoder.mpp < 0.6
        assert encoder.size == 224
        layers = {v for v in encoder.options.values() if isinstance(v, str) and v[:1].isupper()}
        assert layers <= set(LAYERS)
        assert encoder_in(*encoder.repository) is not None
    assert ENCODERS["uni"].mpp == pytest.approx(0.5 * 256 / 224)
    assert encoder_in("mahmoodlab", "uni2-h") == "uni2"
    assert encoder_in("owner", "name") is None


@pytest.mark.parametrize("name", ["uni", "resnet50-clam"])
def test_without_weights_it_says_where_they_are(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelLoadError, match=r"not in the cache.*weights='hf://.*@<commit>'") as e:
        load_model(name)
    assert len(str(e.value).splitlines()) == 1


def test_weights_come_from_a_pinned_revision_only():
    for revision in ("", "@main"):
        with pytest.raises(ModelLoadError, match="not pinned"):
            load_model(f"hf://MahmoodLab/UNI{revision}")
        with pytest.raises(ModelLoadError, match="not pinned"):
            load_model("uni", weights=f"hf://someone/else{revision}")
    with pytest.raises(ModelLoadError, match=r"no encoder 'unni'.*there are resnet50-clam, uni"):
        load_model(f"hf://someone/else@{REVISION}", arch="unni")


@pytest.fixture
def timm():
    return import_timm()


@pytest.fixture
def tiny(timm, tmp_path, monkeypatch):
    """Weights of an encoder that the table has for this test."""
    monkeypatch.setitem(ENCODERS, "tiny", TINY)
    torch.manual_seed(0)
    options = TINY.options | {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    net = timm.create_model(TINY.arch, **options).eval()
    save_file(net.state_dict(), tmp_path / "tiny.safetensors")
    return net, tmp_path / "tiny.safetensors"


class TestTimmEncoder(ModelContract):
    @pytest.fixture(autouse=True)
    def _weights(self, tiny):
        self.path = tiny[1]

    def make(self):
        return load_model("tiny", weights=self.path)

    def make_other(self):
        return load_model("tiny", weights=self.path, activation="sigmoid")


@pytest.mark.parametrize("name", ENCODERS)
def test_each_gives_vectors_of_its_length(timm, name):
    """On the meta device: the layers of the largest would take 4.5 GB."""
    encoder = ENCODERS[name]
    options = {
        k: (timm.layers.SwiGLUPacked if v == "SwiGLUPacked" else nn.SiLU if v == "SiLU" else v)
        for k, v in encoder.options.items()
    }
    with torch.device("meta"), torch.inference_mode():
        net = timm.create_model(encoder.arch, **options).eval()
        output = net(torch.empty(2, 3, encoder.size, encoder.size))
    assert POOLS[encoder.pool](output, encoder.prefix).shape == (2, encoder.dim)


def test_weights_of_a_file_of_the_cache_and_of_a_pinned_revision(tiny, tmp_path, monkeypatch):
    net, path = tiny
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    there = tmp_path / f"models--Owner--Tiny/snapshots/{REVISION}/model.safetensors"
    there.parent.mkdir(parents=True)
    there.write_bytes(path.read_bytes())
    specs = [("tiny", {"weights": path}), ("tiny", {}), (path, {"arch": "tiny"}),
             (f"hf://owner/tiny@{REVISION}", {}), (there, {"arch": "tiny"}),
             ("tiny", {"weights": f"hf://Owner/Tiny@{REVISION}"})]  # fmt: skip
    models = [load_model(spec, **settings) for spec, settings in specs]
    assert len({model.sha256 for model in models}) == 1
    with inference(CPU):
        tokens = net((patches() - column(IMAGENET[0])) / column(IMAGENET[1]))
        wanted = torch.cat([tokens[:, 0], tokens[:, 3:].mean(1)], 1)
        torch.testing.assert_close(models[0].outputs(patches())[1], wanted, rtol=0, atol=1e-6)


def test_it_is_made_again_from_its_record(tiny):
    model = load_model("tiny", weights=tiny[1])
    spec = json.loads(json.dumps(spec_of(model)))
    assert load_again(spec).sha256 == model.sha256


def test_prefixes_and_what_stands_beside_are_left_out(tiny, tmp_path):
    net, path = tiny
    state = {f"backbone.{k}": v.half() for k, v in net.state_dict().items()}
    save_file(state | {"dino_head.weight": torch.zeros(3)}, tmp_path / "teacher.safetensors")
    model = load_encoder(tmp_path / "teacher.safetensors", "tiny")
    assert all(v.dtype == torch.float32 for v in model.module.state_dict().values())
    torch.testing.assert_close(
        model.module.state_dict(), load_encoder(path, "tiny").module.state_dict(),
        rtol=1e-2, atol=1e-3,
    )  # fmt: skip


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    net, _ = tiny
    state = net.state_dict()
    del state["norm.weight"]
    save_file(state, tmp_path / "short.safetensors")
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    for file, why in (("short", r"norm\.weight"), ("other", "weights are not those of tiny")):
        with pytest.raises(ModelLoadError, match=why) as caught:
            load_encoder(tmp_path / f"{file}.safetensors", "tiny")
        assert f"{file}.safetensors" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_the_truncated_resnet_takes_weights_of_the_whole_one(timm, tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("resnet50", pretrained=False).eval()
    save_file(whole.state_dict(), tmp_path / "resnet50.safetensors")
    model = load_model("resnet50-clam", weights=tmp_path / "resnet50.safetensors")
    x = patches(2, 224)
    with inference(CPU):
        y = whole.maxpool(whole.act1(whole.bn1(whole.conv1(model.transform(x)))))
        wanted = whole.layer3(whole.layer2(whole.layer1(y))).mean((2, 3))
        values, vectors = model.outputs(x)
        assert values.shape == (2, 1)
        torch.testing.assert_close(vectors, wanted, rtol=0, atol=1e-5)


def test_timm_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelLoadError, match=r"timm.*napari-wsi-heatmap\[encoders\]"):
        load_model("uni", weights=tmp_path / "a.safetensors")
