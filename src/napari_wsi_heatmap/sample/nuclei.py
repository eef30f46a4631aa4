"""Stamps of nuclei and other small things, as amounts of haematoxylin or eosin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_wsi_heatmap.sample.cells import ANGLES
from napari_wsi_heatmap.sample.noise import Field, Numbers, smooth_noise

SHAPES = 20  # stamps of each orientation


@dataclass(frozen=True)
class Kind:
    """How the nuclei of one kind of cell look. Lengths in px (0.5 µm), amounts in OD."""

    name: str
    long: tuple[float, float]  # half axis
    short: tuple[float, float]  # half axis
    amount: float  # haematoxylin
    chromatin: float  # its unevenness
    clump: float  # sigma of the clumps, px
    rim: float  # more at the membrane
    nucleoli: float  # amount of the nucleoli
    uneven: float  # of the outline
    bend: float = 0.0  # 1/px


KINDS = (
    Kind("tumour", (7.6, 11.2), (6.0, 8.6), 0.56, 0.34, 1.7, 0.26, 0.75, 0.07),
    Kind("giant", (10.5, 15.0), (8.0, 11.5), 0.60, 0.40, 2.0, 0.28, 0.90, 0.10),
    Kind("columnar", (8.6, 12.0), (4.4, 5.8), 0.80, 0.30, 1.4, 0.16, 0.25, 0.04),
    Kind("crypt", (7.2, 9.4), (4.2, 5.2), 0.78, 0.28, 1.4, 0.14, 0.10, 0.03),
    Kind("lymphocyte", (5.4, 6.8), (5.0, 6.2), 0.98, 0.26, 1.2, 0.14, 0.0, 0.04),
    Kind("blast", (6.8, 8.6), (6.2, 7.8), 0.46, 0.36, 1.5, 0.24, 0.55, 0.06),
    Kind("spindle", (9.0, 15.5), (2.0, 3.3), 0.82, 0.26, 1.4, 0.08, 0.0, 0.03, 0.006),
    Kind("pyknotic", (4.6, 8.8), (3.4, 6.4), 1.25, 0.50, 2.2, 0.0, 0.0, 0.15),
)


def kind_number(name: str) -> int:
    """Return the place of a kind in `KINDS`."""
    return [kind.name for kind in KINDS].index(name)


def build_stamps(rng: np.random.Generator) -> list[Field]:
    """Return a kind's stamps (ANGLES * SHAPES, side, side) for each of `KINDS`, side even."""
    return [stamps_of(rng, kind) for kind in KINDS]


def stamps_of(rng: np.random.Generator, kind: Kind) -> Field:
    """Return the stamps of one kind, SHAPES for each of ANGLES."""
    count = ANGLES * SHAPES
    side = 2 * int(np.ceil(kind.long[1] * (1 + 2 * kind.uneven) + 2))
    angle = np.repeat(np.arange(ANGLES), SHAPES) * (np.pi / ANGLES)
    long, short = rng.uniform(*kind.long, count), rng.uniform(*kind.short, count)
    along, across = _turned(rng, side, angle, kind.bend)
    depth = _depth(rng, along, across, long, short, kind.uneven)
    clumps = _noise_windows(rng, count, side, kind.clump)
    inside = np.clip(0.5 + depth / 1.5, 0, 1)
    amount = kind.amount * (1 + kind.chromatin * clumps)
    amount += kind.rim * np.exp(-((depth / 1.6) ** 2))
    if kind.nucleoli:
        amount += _nucleoli(rng, along, across, np.minimum(long, short), kind.nucleoli)
    return (inside * np.maximum(amount, 0.15)).astype(np.float32)


def _turned(
    rng: np.random.Generator, side: int, angle: Numbers, bend: float
) -> tuple[Field, Field]:
    """Return positions along and across each nucleus's long axis, (count, side, side)."""
    line = np.arange(side) - (side - 1) / 2
    centre = rng.uniform(-0.5, 0.5, (2, len(angle), 1, 1))
    y, x = line[:, None] + centre[0], line[None] + centre[1]
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    along, across = x * cosine + y * sine, y * cosine - x * sine
    across = across + rng.normal(0, bend, (len(angle), 1, 1)) * along**2
    return along.astype(np.float32), across.astype(np.float32)


def _depth(
    rng: np.random.Generator,
    along: Field,
    across: Field,
    long: Numbers,
    short: Numbers,
    uneven: float,
) -> Field:
    """Return about how far inside the outline each pixel lies, px."""
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for order in (2, 3, 4, 5):
        strength = rng.normal(0, uneven * 2 / order, len(long))
        phase = rng.uniform(0, 6.3, len(long))
        outline += strength[:, None, None] * np.cos(order * theta + phase[:, None, None])
    radius = np.hypot(along / long[:, None, None], across / short[:, None, None]) / outline
    return ((1 - radius) * short[:, None, None]).astype(np.float32)


def _noise_windows(rng: np.random.Generator, count: int, side: int, sigma: float) -> Field:
    noise = smooth_noise(rng, (256, 256), sigma)
    windows = np.lib.stride_tricks.sliding_window_view(noise, (side, side))
    y, x = rng.integers(0, windows.shape[0], (2, count))
    return windows[y, x]


def _nucleoli(
    rng: np.random.Generator,
    along: Field,
    across: Field,
    radius: Numbers,
    amount: float,
) -> Field:
    """Return one or two dark dots in each nucleus."""
    total = np.zeros_like(along)
    for chance in (1.0, 0.4):
        at = rng.normal(0, 0.3, (2, len(radius))) * radius
        size = rng.uniform(0.9, 1.7, len(radius))
        strength = amount * rng.uniform(0.3, 1.0, len(radius)) * (rng.random(len(radius)) < chance)
        near = (along - at[0][:, None, None]) ** 2 + (across - at[1][:, None, None]) ** 2
        total += strength[:, None, None] * np.exp(-near / (2 * size**2)[:, None, None])
    return total.astype(np.float32)


def build_discs(rng: np.random.Generator, count: int = 64) -> Field:
    """Return stamps of red blood cells (count, 18, 18), amounts of eosin: paler in the middle."""
    along, across = _turned(rng, 18, rng.uniform(0, np.pi, count), 0.0)
    long, short = rng.uniform(5.6, 7.0, count), rng.uniform(4.2, 6.6, count)
    depth = _depth(rng, along, across, long, short, 0.04)
    dimple = 0.20 * np.exp(-((along**2 + across**2) / 11))
    return (np.clip(0.5 + depth / 1.5, 0, 1) * (0.40 - dimple)).astype(np.float32)


def build_vacuoles(rng: np.random.Generator) -> Field:
    """Return stamps of mucin (ANGLES * SHAPES, side, side): 1 inside, along its angle."""
    count = ANGLES * SHAPES
    angle = np.repeat(np.arange(ANGLES), SHAPES) * (np.pi / ANGLES)
    along, across = _turned(rng, 36, angle, 0.0)
    long, short = rng.uniform(10.5, 15.5, count), rng.uniform(6.4, 9.2, count)
    depth = _depth(rng, along, across, long, short, 0.04)
    return np.clip(0.5 + depth / 2.0, 0, 1).astype(np.float32)
