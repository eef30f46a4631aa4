"""Collagen: wavy strokes that lie over each other along the fibres' direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_wsi_heatmap.sample.cells import ANGLES, Cells, Spots, oriented, slope
from napari_wsi_heatmap.sample.noise import Field, Numbers, smooth_noise, smoothstep

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.layout import Layout

Stroke: TypeAlias = tuple[Field, Field]  # (value around 1, cover 0..1)

WAVES = 9  # strokes of each orientation
# Length and half width of thick bundles and thin fibrils, px.
_WIDTHS = (((100, 180), (3.6, 7.5)), ((60, 130), (1.2, 2.1)))
STROKE_REACH = 104  # px from a stroke's middle to its ends, at most


def build_strokes(rng: np.random.Generator) -> list[list[Stroke]]:
    """Return the strokes of thick bundles and of thin fibrils, WAVES for each of ANGLES."""
    streaks = smooth_noise(rng, (256, 256), (0.9, 18.0))
    angles = np.repeat(np.arange(ANGLES), WAVES) * (np.pi / ANGLES)
    return [
        [
            _stroke(rng, angle, rng.uniform(*length), rng.uniform(*width), streaks)
            for angle in angles
        ]
        for length, width in _WIDTHS
    ]


def _stroke(
    rng: np.random.Generator, angle: float, length: float, width: float, streaks: Field
) -> Stroke:
    half = int(length / 2 + 12)
    line = np.arange(-half, half, dtype=np.float32)
    y, x = line[:, None], line[None]
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    across = across - _crimp(rng, along)
    taper = np.sqrt(np.clip(1 - (2 * along / length) ** 4, 0, 1))
    radius = width * taper * (1 + 0.15 * np.sin(along / 17 + rng.uniform(0, 6)))
    depth = radius - np.abs(across)
    cover = np.clip(0.5 + depth / 1.6, 0, 1) * smoothstep(0, 0.5, taper)
    row = (across + rng.integers(40, 216)).astype(np.int32) & 255
    grain = streaks[row, along.astype(np.int32) & 255]
    value = 1 + 0.13 * grain + 0.16 * np.exp(-((depth / 1.5) ** 2)) - 0.10 * np.abs(across) / width
    box = (_extent(cover.max(axis=1)), _extent(cover.max(axis=0)))
    return value[box].astype(np.float32), cover[box].astype(np.float32)


def _crimp(rng: np.random.Generator, along: Field) -> Field:
    """Return the wave and the bow of a stroke, px."""
    period, height = rng.uniform(38, 85), rng.uniform(0.8, 3.4)
    wave = height * np.sin(along * (2 * np.pi / period) + rng.uniform(0, 2 * np.pi))
    bow: Field = wave + rng.normal(0, 0.0013) * along**2
    return bow


def _extent(profile: Field) -> slice:
    """Return the part of a line that is covered, symmetric about its middle."""
    used = np.flatnonzero(profile > 0.01)
    edge = min(int(used[0]), len(profile) - 1 - int(used[-1]))
    return slice(edge, len(profile) - edge)


def fibre_angle(rng: np.random.Generator, layout: Layout) -> Field:
    """Return the direction of the fibres, radians: slow swirls, and around what they enclose."""
    # Doubled angles, so that opposite directions are one.
    shape = layout.frame.shape
    east: Numbers = smooth_noise(rng, shape, 42) + 0.45 * smooth_noise(rng, shape, 12) + 0.35
    north: Numbers = smooth_noise(rng, shape, 42) + 0.45 * smooth_noise(rng, shape, 12)
    for field, strength, reach in (
        (layout.epithelium, 3.0, 70.0),
        (layout.vessel, 3.0, 40.0),
        (-layout.tissue, 1.5, 90.0),
    ):
        dy, dx = slope(field)
        turn = 2 * (np.arctan2(dy, dx) + np.float32(np.pi / 2))
        pull = strength * np.exp(-np.abs(field) / reach)
        east, north = east + pull * np.cos(turn), north + pull * np.sin(turn)
    return (np.arctan2(north, east) / 2).astype(np.float32)


def place_strokes(rng: np.random.Generator, layout: Layout, angle: Field) -> Cells:
    """Return the strokes of the slide, in the order in which they lie over each other."""
    spots = _stroke_spots(rng, layout)
    mucosa, count = layout.mucosa[spots.at], len(spots)
    thin = rng.random(count) < 0.36 + 0.50 * mucosa
    turn = angle[spots.at] + rng.normal(0, 0.16, count)
    shade = rng.normal(0.245, 0.055, count) * (1 - 0.3 * mucosa)
    shade *= 1 - 0.45 * layout.lymph[spots.at]
    shade *= 1 + 0.12 * smooth_noise(rng, layout.frame.shape, 25)[spots.at]
    return Cells.of(spots.y, spots.x, thin, oriented(rng, turn, WAVES), shade.clip(0.08, 0.5))


def _stroke_spots(rng: np.random.Generator, layout: Layout) -> Spots:
    """Return the middles of strokes, shuffled: dense in some places, loose in others."""
    spots = Spots.scattered(rng, layout.frame, 21.0, 0.45)
    at = spots.at
    loose = smooth_noise(rng, layout.frame.shape, 28)[at]
    chance = 0.86 - 0.16 * loose - 0.15 * layout.mucosa[at] - 0.7 * layout.lymph[at]
    keep = (layout.tissue[at] > -3) & (layout.epithelium[at] < 25) & (layout.lumen[at] < 0)
    keep &= (layout.fatty[at] < 60) & (rng.random(len(spots)) < chance)
    return spots.where(rng.permutation(np.flatnonzero(keep)))
