"""Textures that repeat over the slide: grain at three scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_wsi_heatmap.sample.noise import Tile, smooth_noise

if TYPE_CHECKING:
    from numpy.random import Generator

PERIOD = 1024


@dataclass(frozen=True)
class Textures:
    """Noise of variance 1, by the size of its lumps."""

    fine: Tile  # about 2 px
    middle: Tile  # about 10 px
    coarse: Tile  # about 35 px


def build_textures(rng: Generator) -> Textures:
    """Return the textures of a slide."""
    square = (PERIOD, PERIOD)
    grain = [Tile.of(smooth_noise(rng, square, sigma)) for sigma in (0.9, 4.0, 14.0)]
    return Textures(*grain)
