"""Slides, models and loops that tests make: every clone can run what uses only these."""

from __future__ import annotations

import threading

import numpy as np
import torch

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides.array import ArraySlide


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8 without structure: a window a pixel off differs."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise_slide(height: int = 600, width: int = 900, mpp: float | None = 0.5) -> ArraySlide:
    return ArraySlide([noise(height, width)], mpp=mpp, name="noise", background=(200, 210, 220))


def pyramid_slide(height: int = 1500, width: int = 1000, mpp: float | None = 0.25) -> ArraySlide:
    """Three levels; the last downsample, 15.9, is no whole number."""
    shapes = [(height, width), (height // 4, width // 4), (94, 62)]
    arrays = [noise(*shape, seed=i) for i, shape in enumerate(shapes)]
    return ArraySlide(arrays, mpp=mpp, name="pyramid", background=(240, 240, 240))


def mean_grey(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N,): the simplest model whose answer anybody can check."""
    return batch.double().mean((1, 2, 3))


def mean_rgb(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 3)."""
    return batch.double().mean((2, 3))


def quarter_means(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 3, 4, 4): a dense model, cells of a quarter window."""
    return torch.nn.functional.avg_pool2d(batch, (batch.shape[2] // 4, batch.shape[3] // 4))


def naive(heatmap, slide, function) -> np.ndarray:
    """One read per window, one call per window: what every run must equal. (C, Y, X)."""
    spec = heatmap.grid.spec
    index = np.arange(heatmap.grid.size)
    values = []
    for y, x in heatmap.grid.origins(index).tolist():
        patch = slide.read_region(spec.level, y, x, *spec.footprint)
        batch = torch.from_numpy(patch).permute(2, 0, 1)[None].float() / 255
        values.append(np.atleast_1d(function(batch)[0].numpy()))
    return np.array(values, np.float32).T.reshape(-1, *heatmap.grid.shape)


class FaultySlide(ArraySlide.__mro__[1]):
    """A slide around another one, whose reads fail or hang where they are told to.

    Attributes
    ----------
    bad : set of (y, x)
        Level-0 pixels that cannot be read: a read that holds one fails.
    gate : threading.Event
        Reads wait for it.
    """

    backend = "faulty"

    def __init__(self, slide, bad=()):
        self._slide = slide
        for name in ("path", "name", "levels", "mpp", "bounds", "background", "properties"):
            setattr(self, name, getattr(slide, name))
        self.bad = set(bad)
        self.gate = threading.Event()
        self.gate.set()
        self.reads = 0
        self.reason = None

    def _read(self, level, y, x, height, width):
        self.reads += 1
        self.gate.wait()
        for by, bx in self.bad:
            if y <= by < y + height and x <= bx < x + width:
                raise SlideReadError("a tile is damaged", f"{self.path}, level {level}")
        return self._slide._read(level, y, x, height, width)

    @property
    def fingerprint(self):
        return self._slide.fingerprint

    def changed(self):
        return self.reason

    def close(self):
        self._slide.close()
