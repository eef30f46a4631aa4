"""The notebooks' VAE2: its checkpoint, and what it gives, against its layers written out again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from contracts import ModelContract, same_bits
from made import noise_slide
from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.launch import compute_heatmap
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.again import load_again, spec_of
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.vae import VaeModel
from napari_wsi_heatmap.models.vaenet import NAMES_OF_WEIGHTS, VAE2

CPU = torch.device("cpu")
PATCHES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SHAPES = {
    "encoder.0.weight": (32, 3, 4, 4), "encoder.2.weight": (64, 32, 4, 4),
    "encoder.4.weight": (128, 64, 4, 4), "encoder.7.weight": (256, 128, 4, 4),
    "fc1.weight": (32, 1024), "fc2.weight": (32, 1024), "fc3.weight": (1024, 32),
    "decoder.1.weight": (1024, 128, 5, 5), "decoder.3.weight": (128, 64, 5, 5),
    "decoder.6.weight": (64, 32, 6, 6), "decoder.8.weight": (32, 3, 6, 6),
}  # fmt: skip
"""As the notebooks' checkpoint has them."""


def made_state(seed=0):
    """Weights, with statistics of its norms as after training."""
    torch.manual_seed(seed)
    state = VAE2().state_dict()
    for name in ("encoder.5", "decoder.4"):
        state[f"{name}.running_mean"].uniform_(-0.1, 0.1)
        state[f"{name}.running_var"].uniform_(0.5, 2)
        state[f"{name}.num_batches_tracked"].fill_(900)
    return state


def save_as_the_notebook(path, state):
    """From DataParallel, in a wrapper, beside other things."""
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 20, "state_dict": prefixed, "best_loss": 0.1}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return save_as_the_notebook(tmp_path / "M2_WEIGHTS.PT", made_state())


def plain_mu(state, x):
    """Means of the latent variables, layer by layer."""
    s = state
    x = F.conv2d(x, s["encoder.0.weight"], s["encoder.0.bias"], 2).relu()
    x = F.conv2d(x, s["encoder.2.weight"], s["encoder.2.bias"], 2).relu()
    x = F.conv2d(x, s["encoder.4.weight"], s["encoder.4.bias"], 2)
    x = norm(s, "encoder.5", x).relu()
    x = F.conv2d(x, s["encoder.7.weight"], s["encoder.7.bias"], 2).relu()
    return F.linear(x.reshape(len(x), 1024), s["fc1.weight"], s["fc1.bias"])


def plain_reconstruction(state, mu):
    s = state
    x = F.linear(mu, s["fc3.weight"], s["fc3.bias"]).reshape(-1, 1024, 1, 1)
    x = F.conv_transpose2d(x, s["decoder.1.weight"], s["decoder.1.bias"], 2).relu()
    x = F.conv_transpose2d(x, s["decoder.3.weight"], s["decoder.3.bias"], 2)
    x = norm(s, "decoder.4", x).relu()
    x = F.conv_transpose2d(x, s["decoder.6.weight"], s["decoder.6.bias"], 2).relu()
    return F.conv_transpose2d(x, s["decoder.8.weight"], s["decoder.8.bias"], 2).sigmoid()


def norm(state, name, x):
    mean, variance, weight, bias = (
        state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, weight, bias, eps=1e-5)


@pytest.mark.parametrize("output", ["error", "latent", "reconstruction"])
class TestVae(ModelContract):
    @pytest.fixture(autouse=True)
    def _take_output(self, output):
        self.chosen = output

    def make(self, seed=0):
        return VaeModel(made_state(seed), output=self.chosen)

    def make_other(self):
        return self.make(1)


def test_the_layers_are_those_of_the_notebook():
    state = VAE2().state_dict()
    assert set(state) == NAMES_OF_WEIGHTS
    assert len(state) == 32
    assert {name: tuple(state[name].shape) for name in SHAPES} == SHAPES
    assert sum(p.numel() for p in VAE2().parameters()) == 4_348_931


def test_a_checkpoint_of_the_notebook_is_recognised(checkpoint):
    model = load_model(checkpoint)
    assert isinstance(model, VaeModel)
    assert (model.name, model.window, model.names) == ("vae2", (64, 64), ("error",))
    assert model.sha256 == load_model(str(checkpoint), arch="vae2").sha256
    assert model.sha256 == VaeModel(made_state()).sha256


@pytest.mark.parametrize("prefix", ["", "module.", "model.module."])
def test_bare_weights_and_safetensors_too(tmp_path, prefix):
    state = {prefix + name: tensor for name, tensor in made_state().items()}
    torch.save(state, tmp_path / "vae.pth")
    save_file(state, tmp_path / "vae.safetensors")
    for name in ("vae.pth", "vae.safetensors"):
        assert load_model(tmp_path / name).sha256 == VaeModel(made_state()).sha256


def test_every_weight_is_needed_and_no_other(tmp_path):
    short, long = made_state(), made_state()
    del short["fc2.bias"]
    long["fc4.weight"] = torch.zeros(3)
    for state, why in ((short, r"1 missing \(fc2\.bias"), (long, r"1 not expected \(fc4")):
        path = save_as_the_notebook(tmp_path / "vae.pt", state)
        with pytest.raises(ModelLoadError, match=why):
            load_model(path, arch="vae2")
        with pytest.raises(ModelLoadError, match="does not say of which architecture"):
            load_model(path)


def test_weights_of_another_shape_are_refused():
    state = made_state()
    state["fc1.weight"] = torch.zeros(16, 1024)
    with pytest.raises(ModelLoadError, match=r"fc1\.weight has shape \(16, 1024\)"):
        VaeModel(state)


def test_what_it_gives_is_what_its_layers_give():
    state = made_state()
    model = VaeModel(state)
    with inference(CPU):
        mu = plain_mu(state, PATCHES)
        made = plain_reconstruction(state, mu)
        values, latents = model.outputs(PATCHES)
        close(latents, mu)
        close(values[:, 0], (made - PATCHES).square().mean((1, 2, 3)))
        close(load_model(model, output="latent")(PATCHES), mu)
        close(load_model(model, output="reconstruction")(PATCHES), made)
    close(model.reconstruct(PATCHES), made)


def close(given, wanted):
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-6)


def test_nothing_is_drawn_at_random():
    model = VaeModel(made_state())
    before = torch.random.get_rng_state()
    first = model.reconstruct(PATCHES)
    assert same_bits(first, model.reconstruct(PATCHES))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_names_follow_the_output():
    model = VaeModel(made_state(), output="latent")
    assert model.names[:2] == ("latent_0", "latent_1")
    assert len(model.names) == 32
    assert load_model(model, output="reconstruction").names == ("red", "green", "blue")
    assert VaeModel(made_state(), names=("surprise",)).names == ("surprise",)
    with pytest.raises(ModelLoadError, match=r"output='logvar' - it must be one of error, latent"):
        VaeModel(made_state(), output="logvar")


@pytest.mark.parametrize(("side", "works"), [(61, False), (62, True), (77, True), (78, False)])
def test_sizes_that_the_encoder_takes(side, works):
    model = VaeModel(made_state(), output="latent")
    if not works:
        with pytest.raises(ModelLoadError, match="62 to 77 px each way"):
            load_model(model, window=side)
        return
    with inference(CPU):
        assert load_model(model, window=side)(torch.rand(2, 3, side, side)).shape == (2, 32)
    with pytest.raises(ModelLoadError, match="VAE2 takes 64 px each way"):
        load_model(model, window=side, output="error")


def test_it_is_made_again_from_its_record(checkpoint):
    for settings in ({}, {"output": "latent"}):
        model = load_model(checkpoint, **settings)
        again = load_again(json.loads(json.dumps(spec_of(model))))
        assert (again.sha256, again.names) == (model.sha256, model.names)


def test_the_table_of_latents_equals_a_plain_loop(checkpoint):
    slide, state = noise_slide(400, 500), made_state()
    heatmap = compute_heatmap(slide, checkpoint, tissue="none", progress=False)
    table = heatmap.to_dataframe()
    assert list(table.columns) == ["x", "y", "error", *(f"latent_{i}" for i in range(32))]
    assert len(table) == 7 * 8
    for row in table.itertuples(index=False):
        patch = slide.read_region(0, int(row.y), int(row.x), 64, 64)
        x = torch.from_numpy(patch).permute(2, 0, 1)[None].float() / 255
        mu = plain_mu(state, x)
        np.testing.assert_allclose(row[3:], mu[0].numpy(), rtol=0, atol=1e-6)
        error = (plain_reconstruction(state, mu) - x).square().mean().item()
        assert row.error == pytest.approx(error, abs=1e-6)


def test_latents_and_reconstruction_as_maps(checkpoint):
    slide, state = noise_slide(128, 192), made_state()
    settings = {"tissue": "none", "progress": False}
    latents = compute_heatmap(slide, load_model(checkpoint, output="latent"), **settings)
    assert latents.values.shape == (32, 2, 3)
    made = compute_heatmap(slide, load_model(checkpoint, output="reconstruction"), **settings)
    assert made.values.shape == (3, 128, 192)
    patch = torch.from_numpy(slide.read_region(0, 64, 128, 64, 64)).permute(2, 0, 1)[None] / 255
    wanted = plain_reconstruction(state, plain_mu(state, patch))[0]
    np.testing.assert_allclose(made.values[:, 64:, 128:], wanted, rtol=0, atol=1e-6)
