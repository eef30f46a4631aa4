"""What lies where on the slide: islands, tumour nests, glands, vessels, fat, pen, blur.

Everything here is drawn on the layout's coarse grid (one value per 8 px) and enlarged
smoothly where a block is painted; cells and fibres are finer and come later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_wsi_heatmap.sample.glands import glands_and_lumens, solid_nests
from napari_wsi_heatmap.sample.noise import CELL, Field, smooth_noise, smoothstep
from napari_wsi_heatmap.sample.shapes import (
    FAR,
    Capsules,
    Frame,
    draw,
    lattice,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Ellipse: TypeAlias = "tuple[float, float, float, float, float]"

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


def build_layout(rng: np.random.Generator, frame: Frame, step: Callable[[], None]) -> Layout:
    """Return the slide's layout; `step` is called between the steps and may raise."""
    rough = _rough(rng, frame)
    kinds = [_islands(frame, kind, rough) for kind in (TUMOUR, MUCOSA, FATTY, FRAGMENTS)]
    tissue = np.maximum.reduce(kinds)
    step()
    follicle, centre = _follicles(rng, frame)
    nest = np.minimum(solid_nests(rng, frame, kinds[0]), -follicle - 20)
    step()
    crypts = np.minimum(kinds[1], _islands(frame, CRYPTS, rough))
    gland, lumen = glands_and_lumens(rng, frame, (kinds[0], crypts), nest, follicle)
    epithelium = np.maximum(nest, gland)
    step()
    lymph = _lymph(rng, frame, tissue, epithelium, follicle, crypts)
    fat = _fat(rng, frame, kinds[2])
    vessel = _vessels(rng, frame, tissue, np.maximum(epithelium, fat))
    step()
    return Layout(
        frame=frame,
        tissue=tissue,
        tumour=smoothstep(-40, 40, kinds[0]),
        mucosa=smoothstep(-40, 40, crypts),
        fatty=fat,
        nest=nest,
        gland=gland,
        epithelium=epithelium,
        lumen=lumen,
        vessel=vessel,
        lymph=lymph,
        centre=smoothstep(-20, 30, centre),
        tone=smooth_noise(rng, frame.shape, 60) * 0.6 + smooth_noise(rng, frame.shape, 15) * 0.4,
        pen=_stroke(frame, PEN, PEN_RADIUS, rough, 0.12),
        fold=_stroke(frame, FOLD, FOLD_RADIUS, rough, 0.35),
        blur=_blob(frame, BLUR, rough),
    )


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


def _islands(frame: Frame, ellipses: tuple[Ellipse, ...], rough: tuple[Field, Field]) -> Field:
    """Return the signed distance (roughly) to ellipses that melt into each other."""
    y, x = frame.positions()
    y, x = y + rough[0], x + rough[1]
    melt = np.float32(0.03 * frame.unit)
    total = frame.blank(1e-26)
    for ellipse in ellipses:
        total += np.exp(np.clip(_depth(frame, ellipse, y, x) / melt, -60, 60))
    return np.log(total) * melt


def _depth(frame: Frame, ellipse: Ellipse, y: Field, x: Field) -> Field:
    """Return about how far inside an ellipse positions lie, px."""
    cy, cx, ry, rx, angle = (np.float32(value) for value in ellipse)
    dy, dx = y - cy * np.float32(frame.size[0]), x - cx * np.float32(frame.size[1])
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / ry
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / rx
    unit = np.float32(frame.unit)
    depth: Field = (unit - np.hypot(across, along)) * min(ry, rx)
    return depth


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
    rng: np.random.Generator,
    frame: Frame,
    tissue: Field,
    epithelium: Field,
    follicle: Field,
    crypts: Field,
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
    half_length = radius * rng.uniform(0, 2.2, len(y))
    bars = Capsules.of(y, x, rng.uniform(0, np.pi, len(y)), half_length, radius)
    vessel = frame.blank(FAR)
    wobble = (smooth_noise(rng, frame.shape, 6) * 9, smooth_noise(rng, frame.shape, 6) * 9)
    draw(vessel, bars.where(keep), wobble)
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
    middle = (y[:-1] + dy / 2, x[:-1] + dx / 2)
    bars = Capsules.of(*middle, np.arctan2(dy, dx), np.hypot(dy, dx) / 2, radius * frame.unit)
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
