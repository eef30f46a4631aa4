"""Where nuclei, goblet cells and blood lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.cells import Cells, Spots, oriented, slope, thinned
from napari_wsi_heatmap.sample.noise import Field, Numbers, smooth_noise, smoothstep
from napari_wsi_heatmap.sample.nuclei import SHAPES, kind_number
from napari_wsi_heatmap.sample.shapes import FAR

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.layout import Layout


def place_nuclei(rng: np.random.Generator, layout: Layout, fibres: Field) -> Cells:
    """Return the nuclei of the slide; of two that collide the earlier kind remains."""
    solid = np.minimum(layout.tissue - 12, -np.maximum(layout.lumen, layout.vessel) - 7)
    crypts = np.where(layout.mucosa > 0.5, layout.gland, FAR)
    glands = np.where(layout.tumour > 0.5, layout.gland, FAR)
    parts = [
        *_tumour(rng, layout, solid),
        _lining(rng, layout, solid, "crypt", crypts, (14, 2, 28), 10.5),
        _lining(rng, layout, solid, "columnar", glands, (17, 10, 67), 11.5),
        *_lymphocytes(rng, layout, solid),
        _endothelium(rng, layout, solid),
        _spindles(rng, layout, solid, fibres),
    ]
    cells = Cells.joined(parts)
    return cells.where(thinned(cells.y, cells.x, 9.5, np.arange(len(cells))))


def _nuclei(
    rng: np.random.Generator, name: str, spots: Spots, vary: float, angle: Numbers | None = None
) -> Cells:
    """Return nuclei of a kind; `angle` of their long axis, any without it."""
    turn = rng.uniform(0, np.pi, len(spots)) if angle is None else angle
    amount = rng.normal(1, vary, len(spots)).clip(0.55, 1.6)
    return Cells.of(spots.y, spots.x, kind_number(name), oriented(rng, turn, SHAPES), amount)


def _candidates(
    rng: np.random.Generator, layout: Layout, solid: Field, spacing: float, jitter: float
) -> Spots:
    spots = Spots.scattered(rng, layout.frame, spacing, jitter)
    return spots.where(solid[spots.at] > 0)


def _tumour(rng: np.random.Generator, layout: Layout, solid: Field) -> list[Cells]:
    """Return the nuclei of solid nests: crowded, uneven, some giant, some dying or dividing."""
    spots = _candidates(rng, layout, solid, 21.5, 0.30)
    crowd = 0.90 + 0.06 * smooth_noise(rng, layout.frame.shape, 18)[spots.at]
    keep = (layout.nest[spots.at] > 5) & (layout.gland[spots.at] < -2)
    spots = spots.where(keep & (rng.random(len(spots)) < crowd)).apart(rng, 14.5)
    wild = smooth_noise(rng, layout.frame.shape, 25)[spots.at]
    lot = rng.random(len(spots)) - 0.04 * wild
    shares = (("pyknotic", -9.0, 0.015), ("giant", 0.015, 0.09), ("tumour", 0.09, 9.0))
    return [
        _nuclei(rng, name, spots.where((lot >= low) & (lot < high)), 0.2)
        for name, low, high in shares
    ]


def _lining(
    rng: np.random.Generator,
    layout: Layout,
    solid: Field,
    name: str,
    gland: Field,
    depths: tuple[float, float, float],
    apart: float,
) -> Cells:
    """Line glands with nuclei that stand upright on their border.

    `depths`: mean and spread of their depth, and how deep to look for places, px.
    """
    mean, spread, deepest = depths
    spots = Spots.scattered(rng, layout.frame, 9.0, 0.4)
    spots = spots.where((gland[spots.at] > -6) & (gland[spots.at] < deepest))
    dy, dx = (g[spots.at] for g in slope(layout.gland))
    steep = np.hypot(dy, dx) + 1e-3
    wanted = rng.normal(mean, spread, len(spots)).clip(8, mean + 2 * spread + 4)
    move = np.clip(wanted - layout.gland[spots.at], -25, 25) / steep
    spots = Spots.on(layout.frame, spots.y + dy * move, spots.x + dx * move)
    keep = thinned(spots.y, spots.x, apart, rng.random(len(spots)))
    keep &= (solid[spots.at] > 0) & (steep > 0.3)
    angle = np.arctan2(dy, dx) + rng.normal(0, 0.14, len(spots))
    return _nuclei(rng, name, spots.where(keep), 0.12, angle[keep])


def _lymphocytes(rng: np.random.Generator, layout: Layout, solid: Field) -> list[Cells]:
    spots = _candidates(rng, layout, solid, 15.0, 0.27)
    chance = 0.95 * layout.lymph[spots.at] ** 1.3 + 0.012
    keep = (layout.epithelium[spots.at] < -7) & (layout.fatty[spots.at] < 0)
    spots = spots.where(keep & (rng.random(len(spots)) < chance))
    centre = layout.centre[spots.at]
    blast = rng.random(len(spots)) < 0.85 * centre
    small = ~blast & (rng.random(len(spots)) < 1 - 0.5 * centre)
    return [
        _nuclei(rng, "blast", spots.where(blast), 0.18),
        _nuclei(rng, "lymphocyte", spots.where(small), 0.14),
    ]


def _endothelium(rng: np.random.Generator, layout: Layout, solid: Field) -> Cells:
    spots = _candidates(rng, layout, solid, 9.0, 0.4)
    ring = (layout.vessel[spots.at] > -15) & (rng.random(len(spots)) < 0.5)
    spots = spots.where(ring).apart(rng, 19)
    dy, dx = (g[spots.at] for g in slope(layout.vessel))
    angle = np.arctan2(dy, dx) + np.pi / 2 + rng.normal(0, 0.15, len(spots))
    return _nuclei(rng, "spindle", spots, 0.12, angle)


def _spindles(rng: np.random.Generator, layout: Layout, solid: Field, fibres: Field) -> Cells:
    spots = _candidates(rng, layout, solid, 34.0, 0.42)
    cellular = smooth_noise(rng, layout.frame.shape, 30)[spots.at]
    near = np.exp(np.minimum(layout.epithelium[spots.at], 0) / 150)
    keep = (layout.epithelium[spots.at] < -8) & (layout.fatty[spots.at] < 0)
    keep &= rng.random(len(spots)) < 0.42 + 0.12 * cellular + 0.30 * near
    spots = spots.where(keep)
    angle = fibres[spots.at] + rng.normal(0, 0.2, len(spots))
    return _nuclei(rng, "spindle", spots, 0.16, angle)


def place_goblets(rng: np.random.Generator, layout: Layout) -> Cells:
    """Return the mucin vacuoles of the crypts' goblet cells, pointing at the lumen."""
    spots = Spots.scattered(rng, layout.frame, 13.0, 0.35)
    depth = layout.gland[spots.at]
    keep = (depth > 27) & (depth < 58) & (layout.lumen[spots.at] < -9)
    keep &= (layout.mucosa[spots.at] > 0.5) & (layout.tissue[spots.at] > 20)
    spots = spots.where(keep).apart(rng, 16.5)
    dy, dx = (g[spots.at] for g in slope(layout.gland))
    stamp = oriented(rng, np.arctan2(dy, dx), SHAPES)
    return Cells.of(spots.y, spots.x, 0, stamp, rng.uniform(0.75, 1, len(spots)))


def place_blood(rng: np.random.Generator, layout: Layout, stamps: int) -> Cells:
    """Return red blood cells in some of the vessels, and a few that leaked out."""
    spots = Spots.scattered(rng, layout.frame, 11.5, 0.35)
    vessel, lot = layout.vessel[spots.at], rng.random(len(spots))
    full = smoothstep(-0.7, 0.4, smooth_noise(rng, layout.frame.shape, 40))[spots.at]
    leaked = (vessel > -110) & (lot < 0.012) & (layout.tissue[spots.at] > 20)
    leaked &= (layout.epithelium[spots.at] < -10) & (layout.fatty[spots.at] < 0)
    spots = spots.where(leaked | ((vessel > 6) & (lot < 0.85 * full)))
    amount = rng.normal(1, 0.15, len(spots)).clip(0.6, 1.4)
    return Cells.of(spots.y, spots.x, 0, rng.integers(0, stamps, len(spots)), amount)
