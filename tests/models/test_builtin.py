"""Builtin models against formulas written again in numpy and scipy, in float64."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from contracts import ModelContract
from napari_wsi_heatmap.models import BUILTIN, builtin_names, load_model
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.builtin import NETS
from napari_wsi_heatmap.models.filters import gaussian, peaks
from napari_wsi_heatmap.models.nuclei import NucleiDensity
from napari_wsi_heatmap.models.stains import unmixing

CMU = "slides/aperio/CMU-1-Small-Region.svs"
WINDOWS = [64, 33, 7, 1, (9, 40)]
HEMATOXYLIN = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11]) / np.linalg.norm([0.07, 0.99, 0.11])


def run(name, rgb, **settings):
    """Values of (N, H, W, 3) uint8 windows, in batches of 32."""
    model = load_model(name, **settings)
    patches = torch.from_numpy(rgb.transpose(0, 3, 1, 2) / np.float32(255))
    with inference(torch.device("cpu")):
        return torch.cat([model(part) for part in patches.split(32)])[:, 0].numpy()


def densities(rgb):
    return -np.log10((rgb.astype(float) + 1) / 256)


def amounts(rgb):
    rows = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    rows /= np.sqrt((rows**2).sum(1, keepdims=True))
    return densities(rgb) @ np.linalg.inv(rows)


def naive_stain(rgb, column):
    return amounts(rgb)[..., column].mean()


def naive_tissue(rgb):
    return (densities(rgb) >= 0.15).any(-1).mean()


def naive_focus(rgb):
    grey = rgb / 255 @ [0.2125, 0.7154, 0.0721]
    return ndimage.laplace(grey, mode="nearest").var() / (grey.var() + 0.07**2)


def naive_nuclei(rgb):
    height, width = (n // 2 * 2 for n in rgb.shape[:2])
    pooled = rgb[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    amount = np.maximum(amounts(pooled)[..., 0], 0)
    sigma = 3.5 / np.sqrt(2)
    response = ndimage.laplace(
        ndimage.gaussian_filter(amount, sigma, mode="nearest"), mode="nearest"
    )
    response *= -(sigma**2)
    highest = ndimage.maximum_filter(response, 9, mode="constant", cval=-np.inf)
    frame = ((response == highest) & (response > 0.15))[4:-4, 4:-4]
    return frame.sum() / (frame.size * 1e-6)


NAIVE = {
    "hematoxylin": lambda rgb: naive_stain(rgb, 0),
    "eosin": lambda rgb: naive_stain(rgb, 1),
    "dab": lambda rgb: naive_stain(rgb, 2),
    "focus": naive_focus,
    "tissue": naive_tissue,
    "nuclei": naive_nuclei,
}
PER_PIXEL = [name for name in NAIVE if name != "nuclei"]


@pytest.fixture(scope="session")
def cmu(data_dir):
    """(H, W, 3) uint8, the whole of a real H&E slide."""
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(str(data_dir / CMU)) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def cut(image, window):
    """All windows of an image side by side, (N, window, window, 3)."""
    rows, columns = (n // window for n in image.shape[:2])
    image = image[: rows * window, : columns * window]
    image = image.reshape(rows, window, columns, window, 3)
    return image.swapaxes(1, 2).reshape(-1, window, window, 3)


def noise(window, n=5):
    height, width = window if isinstance(window, tuple) else (window, window)
    return np.random.default_rng(3).integers(0, 256, (n, height, width, 3), np.uint8)


@pytest.mark.parametrize("name", BUILTIN)
class TestEveryBuiltin(ModelContract):
    @pytest.fixture(autouse=True)
    def _take_name(self, name):
        self.name = name

    def make(self):
        return load_model(self.name)

    def make_other(self):
        return load_model(self.name, activation="sigmoid")


def test_table_and_nets_agree():
    assert builtin_names() == tuple(BUILTIN) == tuple(NETS)
    assert len({load_model(name).sha256 for name in BUILTIN}) == len(BUILTIN)


@pytest.mark.parametrize("name", BUILTIN)
def test_states_names_unit_limits(name):
    model = load_model(name)
    assert model.names == (name,)
    assert model.batch_size == 32
    assert model.limits is not None
    assert isinstance(model.unit, str)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", PER_PIXEL)
def test_equals_formula_on_noise_of_any_size(name, window):
    rgb = noise(window)
    expected = [NAIVE[name](one) for one in rgb]
    np.testing.assert_allclose(run(name, rgb, window=window), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [64, 224])
@pytest.mark.parametrize("name", PER_PIXEL)
def test_equals_formula_on_tissue(name, window, cmu):
    rgb = cut(cmu, window)
    expected = [NAIVE[name](one) for one in rgb]
    np.testing.assert_allclose(run(name, rgb, window=window), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [128, 65])
def test_nuclei_equal_formula_on_tissue(window, cmu):
    rgb = cut(cmu, window)
    expected = np.array([naive_nuclei(one) for one in rgb])
    assert expected.max() > 5000
    np.testing.assert_allclose(run("nuclei", rgb, window=window), expected, rtol=1e-6)


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("window", WINDOWS)
def test_batch_of_one_and_of_many_give_the_same_bits(name, window):
    rgb = noise(window, 37)
    singly = np.concatenate([run(name, rgb[i : i + 1], window=window) for i in range(37)])
    np.testing.assert_array_equal(run(name, rgb, window=window), singly)


@pytest.mark.parametrize("name", BUILTIN)
def test_lower_precision_leaves_it_exact(name):
    patches = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = load_model(name)
    with inference(torch.device("cpu"), torch.bfloat16):
        lower = model(patches)
    assert torch.equal(lower, model(patches))


@pytest.mark.parametrize("name", BUILTIN)
def test_blank_background_is_zero(name):
    white = np.full((2, 64, 64, 3), 255, np.uint8)
    np.testing.assert_allclose(run(name, white), 0, atol=1e-6)


@pytest.mark.parametrize("name", ["nuclei", "focus", "tissue"])
def test_noisy_background_is_near_zero(name):
    grey = np.random.default_rng(0).normal(240, 1, (4, 128, 128, 3))
    assert run(name, grey.round().astype(np.uint8)).max() < 0.1


def test_weights_of_the_stains():
    np.testing.assert_allclose(unmixing("hematoxylin"), (1.8748, -0.0658, -0.6009), atol=5e-5)


@pytest.mark.parametrize(("name", "stain"), [("hematoxylin", HEMATOXYLIN), ("eosin", EOSIN)])
def test_pure_stain_gives_its_amount(name, stain):
    rgb = np.round(256 * 10 ** (-0.5 * stain) - 1).astype(np.uint8)
    assert run(name, np.broadcast_to(rgb, (1, 16, 16, 3)))[0] == pytest.approx(0.5, abs=0.01)


def test_hematoxylin_equals_the_golden_run_of_wsinfer(cmu, data_dir):
    folder = data_dir / "golden/wsinfer_cmu_hema/model-outputs-csv"
    with (folder / "CMU-1-Small-Region.csv").open() as file:
        rows = list(csv.DictReader(file))
    patches = []
    for row in rows:
        x, y = int(row["minx"]), int(row["miny"])
        window = Image.fromarray(cmu[y : y + 192, x : x + 192])
        patches.append(np.asarray(window.resize((128, 128), Image.Resampling.BILINEAR)))
    values = run("hematoxylin", np.stack(patches), window=128, mpp=0.75, activation="sigmoid")
    golden = [float(row["prob_hema"]) for row in rows]
    assert len(golden) == 65
    np.testing.assert_allclose(values, golden, rtol=0, atol=1e-6)


def scene(size, mpp, radius_um, seed, count, colour=HEMATOXYLIN):
    """`count` blurred discs of haematoxylin that do not touch, on pale eosin, and their centres."""
    rng = np.random.default_rng(seed)
    centres = np.empty((0, 2))
    while len(centres) < count:
        new = rng.uniform(0, size * mpp, 2)
        if not len(centres) or np.hypot(*(centres - new).T).min() > 3 * radius_um:
            centres = np.vstack([centres, new])
    grid = np.stack(np.mgrid[:size, :size], -1) * mpp + mpp / 2
    nearest = np.min([np.hypot(*(grid - c).T).T for c in centres], axis=0)
    disc = ndimage.gaussian_filter((nearest < radius_um).astype(float), 0.5 / mpp)
    density = 0.6 * disc[..., None] * colour + 0.1 * EOSIN
    return np.round(256 * 10**-density - 1).clip(0, 255).astype(np.uint8), centres


@pytest.mark.parametrize("radius", [2.5, 3.5, 4.5])
@pytest.mark.parametrize(("mpp", "size"), [(0.5, 256), (0.25, 512), (1.0, 128)])
def test_counts_the_nuclei_of_a_known_scene(mpp, size, radius):
    rgb, centres = scene(size, mpp, radius, seed=5, count=40)
    inside = ((centres >= 4) & (centres < 124)).all(1).sum()
    counted = run("nuclei", rgb[None], window=size, mpp=mpp)[0] * 0.120**2
    assert counted == pytest.approx(inside, abs=1.01)


def test_density_does_not_depend_on_how_windows_cut_the_scene():
    rgb, centres = scene(512, 0.5, 3.5, seed=1, count=160)
    density = run("nuclei", cut(rgb, 128)).mean()
    assert density == pytest.approx(len(centres) / 0.256**2, rel=0.1)


def test_counterstain_is_no_nucleus():
    rgb, _ = scene(256, 0.5, 3.5, seed=5, count=40, colour=EOSIN)
    assert run("nuclei", rgb[None], window=256)[0] == 0


def test_pixel_size_belongs_to_the_identity_of_the_count_alone():
    finer = load_model("nuclei", mpp=0.25)
    assert isinstance(finer.net, NucleiDensity)
    assert finer.net.mpp == 0.25
    assert finer.sha256 != load_model("nuclei").sha256
    assert load_model("eosin", mpp=0.25).sha256 == load_model("eosin").sha256


@pytest.mark.parametrize(
    ("image", "count"),
    [
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], 1),
        ([[0, 1, 1], [0, 1, 1], [0, 0, 0]], 1),
        ([[1, 0, 0], [1, 0, 0], [1, 0, 0]], 1),
        ([[1, 0, 0, 0, 0, 1]], 2),
        ([[1, 0, 0.5, 0, 0, 1]], 2),
        ([[0.1, 0.1, 0.1]], 0),
    ],
)
def test_a_plateau_is_one_peak(image, count):
    found = peaks(torch.tensor([image]), reach=2, threshold=0.2)
    assert found.sum() == count


@pytest.mark.parametrize("sigma", [0.6, 2.47, 5.0])
def test_blur_equals_scipy(sigma):
    image = np.random.default_rng(0).random((2, 40, 23))
    expected = ndimage.gaussian_filter(
        image, (0, sigma, sigma), mode="nearest", radius=int(np.ceil(4 * sigma))
    )
    blurred = gaussian(torch.from_numpy(image).float(), sigma).numpy()
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize("corner", [(600, 1000), (1200, 1100), (2400, 700)])
def test_focus_falls_with_blur_on_tissue(corner, cmu):
    y, x = corner
    window = cmu[y : y + 128, x : x + 128]
    blurs = [0, 0.5, 1, 1.5, 2, 3, 5]
    blurred = np.stack([ndimage.gaussian_filter(window, (s, s, 0)) for s in blurs])
    values = run("focus", blurred)
    assert naive_tissue(window) > 0.5
    assert (np.diff(values) < 0).all()
    assert values[4] < values[0] / 10


def test_focus_tells_sharp_tissue_from_background_and_blur(cmu):
    rgb = cut(cmu, 128)
    tissue = np.array([naive_tissue(one) for one in rgb])
    sharp = run("focus", rgb)
    blurred = run("focus", ndimage.gaussian_filter(rgb, (0, 2, 2, 0)))
    assert np.quantile(sharp[tissue > 0.5], 0.05) > 2 * np.quantile(blurred[tissue > 0.5], 0.95)
    assert np.quantile(sharp[tissue < 0.001], 0.95) < np.quantile(sharp[tissue > 0.5], 0.05)
