"""What lies where on the slide: islands, tumour nests, glands, vessels, fat, pen, blur.

Everything here is drawn on the layout's coarse grid (one value per 8 px) and enlarged
smoothly where a block is painted; cells and fibres are finer and come later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Callable

# One ellipse a row: centre (y, x) in fractions of the slide, radii (y, x) in units, angle.
# Neighbouring ellipses of a kind melt into one island.
TUMOUR = (
    (0.44, 0.265, 0.300, 0.230, 0.30),
    (0.64, 0.360, 0.230, 0.270, 0.50),
    (0.27, 0.370, 0.170, 0.210, -0.40),
)
MUCOSA = (
    (0.17, 0.660, 0.095, 0.150, 0.25),
    (0.24, 0.760, 0.115, 0.150, 0.55),
    (0.37, 0.850, 0.120, 0.150, 1.05),
)
CRYPTS = (  # the part of the mucosa that has crypts; under it lies fibrous tissue
    (0.115, 0.715, 0.100, 0.190, 0.25),
    (0.200, 0.815, 0.115, 0.150, 0.55),
    (0.345, 0.910, 0.110, 0.150, 1.05),
)
FATTY = (
    (0.73, 0.730, 0.150, 0.190, -0.25),
    (0.66, 0.850, 0.140, 0.120, 0.30),
    (0.84, 0.640, 0.070, 0.100, -0.60),
)
FRAGMENTS = (
    (0.90, 0.510, 0.016, 0.040, 0.60),
    (0.52, 0.600, 0.014, 0.030, -0.70),
    (0.08, 0.520, 0.010, 0.022, 0.20),
)
FOLLICLES = (  # y, x, radius in units: lymphoid aggregates
    (0.200, 0.225, 0.042),
    (0.600, 0.140, 0.036),
    (0.800, 0.310, 0.046),
    (0.470, 0.470, 0.040),
    (0.265, 0.745, 0.030),
    (0.735, 0.640, 0.024),
)
BLUR = (0.69, 0.410, 0.115)  # y, x, radius in units: out of focus
PEN = (
    (0.700, 0.052), (0.775, 0.070), (0.840, 0.100), (0.893, 0.142),
    (0.928, 0.195), (0.943, 0.250), (0.936, 0.305), (0.912, 0.355),
)  # fmt: skip
PEN_RADIUS = 0.0125
FOLD = ((0.395, 0.290), (0.43, 0.325), (0.465, 0.35), (0.50, 0.372), (0.55, 0.385))
FOLD_RADIUS = 0.0035


@dataclass(frozen=True)
class Layout:
    """Coarse fields of the whole slide. Distances are signed, px, positive inside."""

    frame: Frame
    tissue: Field
    tumour: Field  # 1 in the tumour's island
    mucosa: Field  # 1 where crypts are
    fatty: Field  # where fat cells are
    nest: Field  # solid tumour nests
    gland: Field  # glands and crypts, their lumen included
    epithelium: Field  # nests and glands
    lumen: Field
    vessel: Field
    lymph: Field  # 0..1: density of lymphocytes
    centre: Field  # 0..1: germinal centres
    tone: Field  # slow variation of thickness and stain, around 0
    pen: Field
    fold: Field
    blur: Field  # 0..1


def build_layout(rng: np.random.Generator, frame: Frame, check: Callable[[], None]) -> Layout:
    """Return the slide's layout; `check` is called between the steps and may raise."""
    rough = _rough(rng, frame)
    kinds = [_islands(frame, kind, rough) for kind in (TUMOUR, MUCOSA, FATTY, FRAGMENTS)]
    tissue = np.maximum.reduce(kinds)
    check()
    follicle, centre = _follicles(rng, frame)
    nest = np.minimum(_nests(rng, frame, kinds[0]), -follicle - 20)
    check()
    crypts = np.minimum(kinds[1], _islands(frame, CRYPTS, rough))
    gland, lumen = _glands(rng, frame, (kinds[0], crypts), nest, follicle)
    epithelium = np.maximum(nest, gland)
    check()
    lymph = _lymph(rng, frame, tissue, epithelium, follicle, crypts)
    fat = _fat(rng, frame, kinds[2])
    vessel = _vessels(rng, frame, tissue, np.maximum(epithelium, fat))
    check()
    return Layout(
        frame=frame, tissue=tissue, tumour=smoothstep(-40, 40, kinds[0]), mucosa=smoothstep(-40, 40, crypts), fatty=fat,
        nest=nest, gland=gland, epithelium=epithelium, lumen=lumen, vessel=vessel,
        lymph=lymph, centre=smoothstep(-20, 30, centre),
        tone=smooth_noise(rng, frame.shape, 60) * 0.6 + smooth_noise(rng, frame.shape, 15) * 0.4,
        pen=_stroke(frame, PEN, PEN_RADIUS, rough, 0.12),
        fold=_stroke(frame, FOLD, FOLD_RADIUS, rough, 0.35),
        blur=_blob(frame, BLUR, rough),
    )  # fmt: skip


def _rough(rng: np.random.Generator, frame: Frame) -> tuple[Field, Field]:
    """Return the shift, px, that makes outlines organic: large, middle and small lobes."""
    scales = ((0.060, 0.022), (0.018, 0.008), (0.005, 0.0022))  # (width, shift) in units

    def shift() -> Field:
        parts = [
            smooth_noise(rng, frame.shape, width * frame.unit / CELL) * (amount * frame.unit)
            for width, amount in scales
        ]
        return np.add.reduce(parts)

    return shift(), shift()


def _islands(
    frame: Frame, ellipses: tuple[tuple[float, ...], ...], rough: tuple[Field, Field]
) -> Field:
    """Return the signed distance (roughly) to ellipses that melt into each other."""
    y, x = frame.positions()
    y, x = y + rough[0], x + rough[1]
    melt = 0.03 * frame.unit
    total = np.zeros(frame.shape, np.float32)
    for cy, cx, ry, rx, angle in ellipses:
        dy, dx = y - cy * frame.size[0], x - cx * frame.size[1]
        sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        across = (dy * cosine - dx * sine) / np.float32(ry * frame.unit)
        along = (dx * cosine + dy * sine) / np.float32(rx * frame.unit)
        depth = (1 - np.hypot(across, along)) * np.float32(min(ry, rx) * frame.unit / melt)
        total += np.exp(np.clip(depth, -60, 60))
    return np.log(total + np.float32(1e-26)) * np.float32(melt)


def _nests(rng: np.random.Generator, frame: Frame, island: Field) -> Field:
    """Return solid nests: dense in the island's depth, broken up towards its border."""
    lumps = band_noise(rng, frame.shape, 26) + 0.30 * band_noise(rng, frame.shape, 6)
    zone = smooth_noise(rng, frame.shape, 0.10 * frame.unit / CELL)
    depth = smoothstep(100, 0.16 * frame.unit, island)
    threshold = 1.5 - 1.35 * depth - 0.45 * zone
    return signed_distance((lumps > threshold) & (island > 60))


def _glands(
    rng: np.random.Generator,
    frame: Frame,
    zones: tuple[Field, Field],
    nest: Field,
    follicle: Field,
) -> tuple[Field, Field]:
    """Return glands and their lumens: irregular in the tumour, round crypts in the mucosa."""
    gland, lumen = frame.blank(FAR), frame.blank(FAR)
    wobble = tuple(smooth_noise(rng, frame.shape, 7) * 13 for _ in range(2))
    crypts = _crypts(rng, frame, zones[1], follicle)
    draw(gland, crypts, (wobble[0] * 0.5, wobble[1] * 0.5))
    inset = (crypts.radius * rng.uniform(0.72, 0.86, len(crypts))).astype(np.float32)
    draw(lumen, crypts, (wobble[0] * 0.3, wobble[1] * 0.3), inset)
    tumour = _tumour_glands(rng, frame, zones[0], np.maximum(nest, follicle))
    draw(gland, tumour, wobble)
    thickness = rng.uniform(52, 84, len(tumour)).astype(np.float32)
    draw(lumen, tumour, (wobble[0] * 1.6, wobble[1] * 1.6), thickness)
    holes = band_noise(rng, frame.shape, 4.5)
    cribriform = (holes - 1.75) * 22  # punched-out spaces in the nests' depth
    np.maximum(lumen, np.minimum(cribriform, nest - 70), out=lumen)
    return gland, lumen


def _crypts(rng: np.random.Generator, frame: Frame, zone: Field, follicle: Field) -> Capsules:
    y, x = lattice(rng, frame.size, 222, 0.14)
    at = frame.cell_of(y, x)
    keep = (zone[at] > 120) & (follicle[at] < -70) & (rng.random(len(y)) < 0.95)
    y, x = y[keep], x[keep]
    lean = smooth_noise(rng, frame.shape, 60)[frame.cell_of(y, x)] * 0.8
    return Capsules(
        y, x,
        (lean + rng.normal(0, 0.3, len(y))).astype(np.float32),
        rng.gamma(1.2, 14, len(y)).clip(0, 70).astype(np.float32),
        rng.uniform(80, 100, len(y)).astype(np.float32),
    )  # fmt: skip


def _tumour_glands(
    rng: np.random.Generator, frame: Frame, island: Field, taken: Field
) -> Capsules:
    y, x = lattice(rng, frame.size, 360, 0.33)
    at = frame.cell_of(y, x)
    crowd = smooth_noise(rng, frame.shape, 0.05 * frame.unit / CELL)[at]
    keep = (island[at] > 190) & (taken[at] < -60) & (rng.random(len(y)) < 0.5 + 0.42 * crowd)
    y, x, room = y[keep], x[keep], -taken[at][keep]
    radius = np.minimum(65 + rng.gamma(2.0, 32, len(y)).clip(0, 150), room * 0.7 + 50)
    return Capsules(
        y, x,
        rng.uniform(0, np.pi, len(y)).astype(np.float32),
        rng.gamma(1.3, 55, len(y)).clip(0, 260).astype(np.float32),
        radius.astype(np.float32),
    )  # fmt: skip


def _follicles(rng: np.random.Generator, frame: Frame) -> tuple[Field, Field]:
    """Return the signed distances to lymphoid follicles and to their germinal centres."""
    follicle, centre = frame.blank(FAR), frame.blank(FAR)
    y, x = frame.positions()
    sway = smooth_noise(rng, frame.shape, 14) * 30 + smooth_noise(rng, frame.shape, 5) * 8
    for cy, cx, radius in FOLLICLES:
        r = np.hypot(y - cy * frame.size[0], x - cx * frame.size[1]) + sway
        reach = max(radius * frame.unit, 90)
        np.maximum(follicle, reach - r, out=follicle)
        np.maximum(centre, 0.48 * reach - r, out=centre)
    return follicle, centre


def _lymph(
    rng: np.random.Generator, frame: Frame, tissue: Field, epithelium: Field, follicle: Field, crypts: Field
) -> Field:
    """Return the density of lymphocytes, 0..1: follicles, borders of the tumour, mucosa."""
    patchy = smoothstep(0.2, 1.7, smooth_noise(rng, frame.shape, 22))
    border = np.exp(-np.abs(epithelium + 70) / 90)
    density = np.maximum(smoothstep(-70, 30, follicle), 0.8 * patchy * border)
    density = np.maximum(density, 0.42 * smoothstep(-40, 20, crypts))
    lymph: Field = density * smoothstep(10, 60, tissue) * smoothstep(12, -4, epithelium)
    return lymph


def _fat(rng: np.random.Generator, frame: Frame, island: Field) -> Field:
    """Return where fat lies, a soft distance in px: lobules between fibrous septa."""
    lobes = np.abs(smooth_noise(rng, frame.shape, 0.045 * frame.unit / CELL + 6))
    return np.minimum((lobes - 0.30) * 300, island - 60 - 40 * lobes)


def _vessels(rng: np.random.Generator, frame: Frame, tissue: Field, taken: Field) -> Field:
    """Return the vessels' lumens."""
    y, x = lattice(rng, frame.size, 420, 0.35)
    at = frame.cell_of(y, x)
    radius = 18 + rng.gamma(2.0, 9, len(y)).clip(0, 70)
    keep = (tissue[at] > 110) & (taken[at] < -radius - 40) & (rng.random(len(y)) < 0.75)
    bars = Capsules(
        y, x,
        rng.uniform(0, np.pi, len(y)).astype(np.float32),
        (radius * rng.uniform(0, 2.2, len(y))).astype(np.float32),
        radius.astype(np.float32),
    ).where(keep)  # fmt: skip
    vessel = frame.blank(FAR)
    wobble = (smooth_noise(rng, frame.shape, 6) * 9, smooth_noise(rng, frame.shape, 6) * 9)
    draw(vessel, bars, wobble)
    return vessel


def _stroke(
    frame: Frame,
    points: tuple[tuple[float, float], ...],
    radius: float,
    rough: tuple[Field, Field],
    sway: float,
) -> Field:
    """Return the signed distance to a hand-drawn line through `points`."""
    from scipy.interpolate import make_interp_spline

    drawn = make_interp_spline(np.linspace(0, 1, len(points)), np.array(points) * frame.size)
    y, x = drawn(np.linspace(0, 1, 60)).T
    dy, dx = np.diff(y), np.diff(x)
    bars = Capsules(
        (y[:-1] + dy / 2).astype(np.float32),
        (x[:-1] + dx / 2).astype(np.float32),
        np.arctan2(dy, dx).astype(np.float32),
        (np.hypot(dy, dx) / 2).astype(np.float32),
        np.full(len(dy), radius * frame.unit, np.float32),
    )
    field = frame.blank(FAR)
    draw(field, bars, (rough[0] * sway, rough[1] * sway))
    return field


def _blob(frame: Frame, blob: tuple[float, float, float], rough: tuple[Field, Field]) -> Field:
    """Return 1 in a round patch, falling to 0 over its outer third."""
    y, x = frame.positions()
    cy, cx, radius = blob
    dy, dx = y - cy * frame.size[0] + rough[0], x - cx * frame.size[1] + rough[1]
    depth = radius * frame.unit - np.hypot(dy, dx)
    blur: Field = smoothstep(0, radius * frame.unit / 3, depth)
    return blur
