"""Epithelium on the layout: solid tumour nests, malignant glands, crypts of the mucosa."""

from __future__ import annotations

import numpy as np

from napari_wsi_heatmap.sample.noise import CELL, Field, band_noise, smooth_noise, smoothstep
from napari_wsi_heatmap.sample.shapes import (
    FAR,
    Capsules,
    Frame,
    draw,
    lattice,
    signed_distance,
)


def solid_nests(rng: np.random.Generator, frame: Frame, island: Field) -> Field:
    """Return solid nests: dense in the island's depth, broken up towards its border."""
    lumps = band_noise(rng, frame.shape, 26) + 0.30 * band_noise(rng, frame.shape, 6)
    zone = smooth_noise(rng, frame.shape, 0.10 * frame.unit / CELL)
    depth = smoothstep(100, 0.16 * frame.unit, island)
    threshold = 1.5 - 1.35 * depth - 0.45 * zone
    return signed_distance((lumps > threshold) & (island > 60))


def glands_and_lumens(
    rng: np.random.Generator,
    frame: Frame,
    zones: tuple[Field, Field],
    nest: Field,
    follicle: Field,
) -> tuple[Field, Field]:
    """Return glands and their lumens: irregular in the tumour, round crypts in the mucosa."""
    tumour, mucosa = zones
    gland, lumen = frame.blank(FAR), frame.blank(FAR)
    wy, wx = (smooth_noise(rng, frame.shape, 7) * 13 for _ in range(2))
    crypts = _crypts(rng, frame, mucosa, follicle)
    draw(gland, crypts, (wy * 0.5, wx * 0.5))
    draw(lumen, crypts, (wy * 0.3, wx * 0.3), crypts.radius * rng.uniform(0.72, 0.86, len(crypts)))
    irregular = _tumour_glands(rng, frame, tumour, np.maximum(nest, follicle))
    draw(gland, irregular, (wy, wx))
    draw(lumen, irregular, (wy * 1.6, wx * 1.6), rng.uniform(52, 84, len(irregular)))
    np.maximum(lumen, _punched_out(rng, frame, nest), out=lumen)
    return gland, lumen


def _punched_out(rng: np.random.Generator, frame: Frame, nest: Field) -> Field:
    """Return the small round lumens of a cribriform pattern, in the depth of nests only."""
    return np.minimum((band_noise(rng, frame.shape, 4.5) - 1.75) * 22, nest - 70)


def _crypts(rng: np.random.Generator, frame: Frame, zone: Field, follicle: Field) -> Capsules:
    y, x = lattice(rng, frame.size, 222, 0.14)
    at = frame.cell_of(y, x)
    keep = (zone[at] > 120) & (follicle[at] < -70) & (rng.random(len(y)) < 0.95)
    y, x = y[keep], x[keep]
    lean = smooth_noise(rng, frame.shape, 60)[frame.cell_of(y, x)] * 0.8
    angle = lean + rng.normal(0, 0.3, len(y))
    half_length = rng.gamma(1.2, 14, len(y)).clip(0, 70)
    return Capsules.of(y, x, angle, half_length, rng.uniform(80, 100, len(y)))


def _tumour_glands(rng: np.random.Generator, frame: Frame, island: Field, taken: Field) -> Capsules:
    y, x = lattice(rng, frame.size, 360, 0.33)
    at = frame.cell_of(y, x)
    crowd = smooth_noise(rng, frame.shape, 0.05 * frame.unit / CELL)[at]
    keep = (island[at] > 190) & (taken[at] < -60) & (rng.random(len(y)) < 0.5 + 0.42 * crowd)
    y, x, room = y[keep], x[keep], -taken[at][keep]
    radius = np.minimum(65 + rng.gamma(2.0, 32, len(y)).clip(0, 150), room * 0.7 + 50)
    half_length = rng.gamma(1.3, 55, len(y)).clip(0, 260)
    return Capsules.of(y, x, rng.uniform(0, np.pi, len(y)), half_length, radius)
