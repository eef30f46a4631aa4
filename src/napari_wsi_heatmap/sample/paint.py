"""Painting a rectangle of the slide: light through glass, ink and stained tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.area import Area
from napari_wsi_heatmap.sample.noise import Field, enlarge, peak, smoothstep
from napari_wsi_heatmap.sample.stamping import stamped
from napari_wsi_heatmap.sample.tissue import stain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.sample.scene import Scene

# Optical density (red, green, blue) of a unit of stain: Ruifrok and Johnston 2001, Anal Quant
# Cytol Histol 23:291. Their third vector makes the eosin of real slides less purple.
HAEMATOXYLIN = (0.65, 0.70, 0.29)
EOSIN = (0.07, 0.99, 0.11)
THIRD = (0.27, 0.57, 0.78)
INK = (0.62, 0.14, 0.46)  # green felt-tip
LIGHT = (243.0, 242.5, 244.0)  # RGB of the empty glass

HALO = 32  # px around a block that an out-of-focus lens mixes into it


def paint(scene: Scene, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return a rectangle of the slide, (height, width, 3); all four multiples of CELL."""
    if peak(scene.layout.blur, y, x, height, width) <= 0:
        return _digitise(scene, _light(scene, y, x, height, width), y, x)
    blur = enlarge(scene.layout.blur, y, x, height, width)
    wide = _light(scene, y - HALO, x - HALO, height + 2 * HALO, width + 2 * HALO)
    return _digitise(scene, _defocused(wide, blur), y, x)


def _light(scene: Scene, y: int, x: int, height: int, width: int) -> Field:
    """Return the light that reaches the lens, (3, height, width), in grey levels."""
    box = (y, x, height, width)
    layout = scene.layout
    uneven = 1 + 0.004 * enlarge(layout.tone, *box)
    light = np.stack([np.float32(level) * uneven for level in LIGHT])
    if peak(layout.tissue, *box) > -80:
        amounts = stain(Area(scene, *box))
        for channel in range(3):
            density = np.zeros(light.shape[1:], np.float32)
            for amount, vector in zip(amounts, (HAEMATOXYLIN, EOSIN, THIRD), strict=True):
                density += amount * np.float32(vector[channel])
            light[channel] *= np.exp(np.float32(-np.log(10)) * density)
    if peak(layout.pen, *box) > -30:
        ink = _ink(scene, enlarge(layout.pen, *box), box)
        for channel in range(3):
            light[channel] *= np.exp(np.float32(-np.log(10) * INK[channel]) * ink)
    dust = scene.dust.near(*box)
    if len(dust):
        light *= np.exp(np.float32(-np.log(10)) * stamped(box[2:], dust, scene.specks))
    return light


def _ink(scene: Scene, pen: Field, box: tuple[int, int, int, int]) -> Field:
    """Return how much felt-tip ink lies on the glass: streaky, darker at the border."""
    streaks = 0.08 * np.sin(pen * 0.23) * np.sin(pen * 0.09 + 1) + 0.05 * np.sin(pen * 0.6)
    edge = 0.30 * np.exp(-(((pen - 8) / 8) ** 2))
    cloud = 0.05 * scene.textures.coarse.at(*box) + 0.10 * enlarge(scene.layout.tone, *box)
    return smoothstep(-4, 5, pen) * np.maximum(0.46 + streaks + edge + cloud, 0.15)


def _defocused(light: Field, blur: Field) -> Field:
    """Return the light without its halo, blurred by 0 to 6 px as `blur` goes from 0 to 1."""
    from scipy.ndimage import gaussian_filter

    inner = (slice(HALO, -HALO), slice(HALO, -HALO))
    out = np.empty((3, *blur.shape), np.float32)
    for channel, sharp in enumerate(light):
        steps = [sharp] + [gaussian_filter(sharp, s, truncate=3.0) for s in (2.2, 6.0)]
        a, b, c = (step[inner] for step in steps)
        low, high = np.minimum(blur * 2, 1), np.maximum(blur * 2 - 1, 0)
        out[channel] = a + low * (b - a) + high * (c - b)
    return out


def _digitise(scene: Scene, light: Field, y: int, x: int) -> NDArray[np.uint8]:
    """Return the pixels of the camera: a little noise, whole grey levels."""
    _, height, width = light.shape
    pixels = np.empty((height, width, 3), np.uint8)
    for channel, plane in enumerate(light):
        noise = scene.textures.fine.at(y + 331 * channel, x + 173 * channel, height, width)
        pixels[..., channel] = np.clip(plane + 0.7 * noise + 0.5, 0, 255)
    return pixels
