"""Dust on the glass: specks, soft spots out of focus, hairs. Grey, in optical density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.cells import Cells
from napari_wsi_heatmap.sample.nuclei import Kind, stamps_of

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.noise import Field, Numbers

_SPECKS = (
    Kind("speck", (1.6, 5.5), (1.2, 3.6), 0.50, 0.4, 1.5, 0.1, 0.0, 0.12),
    Kind("crumb", (6.0, 13.0), (4.0, 9.0), 0.42, 0.5, 2.5, 0.2, 0.0, 0.25),
    Kind("hair", (4.6, 5.4), (4.4, 5.0), 0.42, 0.06, 1.5, 0.0, 0.0, 0.02),
)
_PER_MEGAPIXEL = (3.2, 0.35)  # specks, crumbs
_SOFT = 2.2  # soft spots per megapixel
_HAIRS = 0.05  # per megapixel
_STEP = 3.0  # px between the stamps of a hair


def build_specks(rng: np.random.Generator) -> list[Field]:
    """Return stamps: specks, crumbs, the cross-section of a hair, soft spots."""
    return [*(stamps_of(rng, kind) for kind in _SPECKS), _soft_spots(rng)]


def _soft_spots(rng: np.random.Generator) -> Field:
    line = np.arange(64, dtype=np.float32) - 31.5
    radius = rng.uniform(5, 11, 16).astype(np.float32)[:, None, None]
    return np.exp(-(line[:, None] ** 2 + line**2) / (2 * radius**2)).astype(np.float32)


def place_dust(rng: np.random.Generator, size: tuple[int, int]) -> Cells:
    """Return the dust of a slide of `size` (height, width) px."""
    area = size[0] * size[1] / 1e6
    parts = [
        _scattered(rng, size, number, max(2, round(rate * area)), 0.35, 1.1)
        for number, rate in enumerate(_PER_MEGAPIXEL)
    ]
    parts.append(_scattered(rng, size, len(_SPECKS), max(2, round(_SOFT * area)), 0.02, 0.10))
    parts += [_hair(rng, size) for _ in range(max(1, round(_HAIRS * area)))]
    return Cells.joined(parts)


def _scattered(
    rng: np.random.Generator, size: tuple[int, int], kind: int, count: int, low: float, high: float
) -> Cells:
    y, x = (rng.uniform(0, n, count) for n in size)
    return _cells(rng, y, x, kind, rng.uniform(low, high, count))


def _hair(rng: np.random.Generator, size: tuple[int, int]) -> Cells:
    """Return a hair: a line that turns slowly."""
    count = int(rng.uniform(120, 420))
    turning = rng.normal(0, 0.004) + 0.012 * np.sin(np.linspace(0, rng.uniform(2, 9), count))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(turning)
    y = rng.uniform(0, size[0]) + np.cumsum(np.sin(heading)) * _STEP
    x = rng.uniform(0, size[1]) + np.cumsum(np.cos(heading)) * _STEP
    amount = rng.uniform(0.6, 1.0) * np.sqrt(np.sin(np.linspace(0.05, np.pi - 0.05, count)))
    return _cells(rng, y, x, 2, amount)


def _cells(rng: np.random.Generator, y: Numbers, x: Numbers, kind: int, amount: Numbers) -> Cells:
    return Cells.of(y, x, kind, rng.integers(0, 16, len(y)), amount)
