"""A segmentation network of the bioimage.io zoo: one channel in, one map out, as TorchScript."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_wsi_heatmap.launch import compute_heatmap
from napari_wsi_heatmap.models import load_model, trust
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.slides.array import ArraySlide

FOLDER = "models/bioimageio_unet2d_nuclei_broad"
LARGEST = np.float32(4095)
"""Of the golden input, which is brought to 0…1 by it."""
REACH = 56
"""Pixels that an output sees beyond itself: the declared halo, 32, is not enough for exactness."""


@pytest.fixture(autouse=True)
def trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "folder", lambda: tmp_path)


@pytest.fixture
def folder(data_dir):
    return data_dir / FOLDER


class Standardized(torch.nn.Module):
    """RGB -> one channel of fixed mean and spread: a window's own would differ from window to
    window, and with them the map."""

    def __init__(self, image):
        super().__init__()
        self.mean = float(image.mean(dtype=np.float64))
        self.spread = float(image.std(dtype=np.float64)) + 1e-6 / 4095
        self.eval()

    def forward(self, batch):
        return (batch[:, :1] - self.mean) / self.spread

    def extra_repr(self):
        return f"{self.mean} {self.spread}"


def load(folder, image, window):
    return load_model(
        folder / "weights.pt", trust=True, window=window, transform=Standardized(image),
        activation="sigmoid", names="nucleus", batch_size=4,
    )  # fmt: skip


def predicted(model, image):
    """(H, W) of a grey image (H, W) in 0…1, in one forward pass."""
    batch = torch.from_numpy(image)[None, None].repeat(1, 3, 1, 1)
    with inference(torch.device("cpu")):
        return model(batch)[0, 0].numpy()


def test_its_golden_output(folder):
    image = np.load(folder / "test_input.npy")[0, 0] / LARGEST
    given = predicted(load(folder, image, 512), image)
    wanted = np.load(folder / "test_output.npy")[0, 0]
    assert wanted.max() > 0.9
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5)


@pytest.fixture
def slide_and_whole(folder):
    """A grey slide, a model of half its size, and the map of one pass over all of it."""
    golden = np.load(folder / "test_input.npy")[0, 0]
    grey = np.round((golden - golden.min()) / np.ptp(golden) * 255).astype(np.uint8)
    image = grey / np.float32(255)
    model = load(folder, image, 256)
    slide = ArraySlide([np.repeat(grey[:, :, None], 3, 2)], mpp=0.5, name="nuclei")
    return slide, model, predicted(model, image)


def far_from_borders(side, stride, reach):
    """Where no window that covers a pixel begins or ends within `reach`, but at the slide's end."""
    inner = np.arange(stride, side, stride)
    far = np.abs(np.arange(side)[:, None] + 0.5 - inner).min(1) > reach
    return np.ix_(far, far)


@pytest.mark.parametrize(("blend", "anywhere"), [("gaussian", 1e-3), ("mean", 0.5)])
def test_blended_windows_are_one_pass_over_the_whole(slide_and_whole, blend, anywhere):
    """Beyond its reach a border changes nothing. Nearer, the window's error enters the blend by
    its weight: gaussian, whose weight is small there, stays within 1e-3, measured 2.9e-4; mean
    gives a border a quarter and more of the weight, measured 0.32."""
    slide, model, whole = slide_and_whole
    heatmap = compute_heatmap(slide, model, stride=128, tissue="none", blend=blend, progress=False)
    difference = np.abs(heatmap.values[0] - whole)
    assert difference.shape == (512, 512)
    exact = difference[far_from_borders(512, 128, REACH)]
    assert exact.size > 20_000
    assert exact.max() < 1e-5
    assert difference.max() < anywhere
