"""Amounts of haematoxylin and eosin of a block: stroma, epithelium, fat, vessels, nuclei."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.sample.cells import FAT_SPACING
from napari_wsi_heatmap.sample.collagen import STROKE_REACH
from napari_wsi_heatmap.sample.noise import Field, enlarge, smoothstep
from napari_wsi_heatmap.sample.nuclei import kind_number
from napari_wsi_heatmap.sample.stamping import divided, overlaid, stamped

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.scene import Scene

WARMTH = 0.8  # amount of the third vector in a unit of eosin
_SWAY = 32  # px; how far the walls of fat cells are bent and smoothed from, at most


class Area:
    """A rectangle of the slide while it is painted: y, x, height, width multiples of CELL."""

    def __init__(self, scene: Scene, y: int, x: int, height: int, width: int) -> None:
        self.scene, self.box, self.shape = scene, (y, x, height, width), (height, width)
        self.fine = scene.textures.fine.at(*self.box)
        self.middle = scene.textures.middle.at(*self.box)
        self.coarse = scene.textures.coarse.at(*self.box)

    def field(self, name: str) -> Field:
        """Return a field of the layout, enlarged."""
        return enlarge(getattr(self.scene.layout, name), *self.box)


def stain(area: Area) -> tuple[Field, Field, Field]:
    """Return the amounts (haematoxylin, eosin, third) of an area, 0 where there is no tissue."""
    tissue = area.field("tissue")
    tissue += 7 * area.coarse + 2.5 * area.middle
    fibres = overlaid(
        area.shape, area.scene.collagen.near(*area.box, STROKE_REACH), area.scene.strokes
    )
    epithelium, lumen = area.field("epithelium"), area.field("lumen")
    epithelium += 1.6 * area.middle
    lumen += 2.0 * area.middle
    h, e = _stroma(area, fibres, epithelium)
    warm = _vessels(area, h, e, fibres)
    _epithelium(area, h, e, epithelium, lumen)
    _nuclei(area, h, e)
    _fat(area, h, e)
    there = smoothstep(-3, 4, tissue + 40 * (fibres - 0.25)) * (1 + 0.09 * area.field("tone"))
    fold = smoothstep(-14, 6, area.field("fold") + 4 * area.coarse)
    there *= 1 + 0.85 * fold
    return h * there, e * there, (warm + WARMTH * e) * there


def _stroma(area: Area, fibres: Field, epithelium: Field) -> tuple[Field, Field]:
    """Return pale ground substance with collagen over it, torn open here and there."""
    lymph = area.field("lymph")
    ground = 0.045 + 0.012 * area.coarse + 0.010 * area.middle + 0.05 * lymph
    e = np.maximum(ground, fibres) + 0.012 * area.fine
    h = 0.03 + 0.012 * area.coarse + 0.05 * fibres + 0.07 * lymph
    cleft = smoothstep(-10, -5, epithelium) * smoothstep(1, -2, epithelium)
    cleft *= smoothstep(0.2, 0.9, area.coarse)
    return np.maximum(h, 0.01) * (1 - cleft), np.maximum(e, 0.01) * (1 - cleft)


def _epithelium(area: Area, h: Field, e: Field, epithelium: Field, lumen: Field) -> None:
    inside = smoothstep(-1.5, 1.5, epithelium)
    if not inside.any():
        return
    mucosa = area.field("mucosa")
    cells = area.scene.nuclei.near(*area.box)
    kinds = [kind_number(n) for n in ("tumour", "giant", "columnar", "crypt", "pyknotic")]
    _, gap, tone = divided(area.shape, cells.where(np.isin(cells.kind, kinds)), 26, 80)
    border = np.exp(-((gap / 2.2) ** 2))
    grain = 0.022 * area.fine + 0.022 * area.middle
    eosin = 0.185 + 0.10 * (tone - 1) + 0.06 * border + grain - 0.02 * mucosa
    blue = 0.17 - 0.06 * mucosa + 0.10 * (tone - 1) + 0.02 * border + 0.5 * grain
    goblets = area.scene.goblets.near(*area.box)
    if len(goblets.y):
        mucin = stamped(area.shape, goblets, [area.scene.vacuoles])
        eosin = eosin * (1 - 0.88 * mucin)
        blue = blue * (1 - 0.55 * mucin)
    eosin += 0.12 * np.exp(-(((lumen + 3) / 2.5) ** 2))  # the brush border
    open_ = smoothstep(-1.5, 1.5, lumen)
    debris = smoothstep(0.5, 2.2, area.coarse + 0.5 * area.middle) * (1 - mucosa)
    eosin += open_ * (0.22 * debris + 0.006 - eosin)
    blue += open_ * (0.08 * debris + 0.004 - blue)
    h += inside * (blue - h)
    e += inside * (eosin - e)


def _fat(area: Area, h: Field, e: Field) -> None:
    """Clear out fat cells; what the fixation leaves of them are thin walls."""
    if area.field("fatty").max() < -FAT_SPACING:
        return
    gap, is_fat = _fat_cells(area)
    wall = smoothstep(8, 4, gap) * is_fat
    e += wall * (0.26 - e)
    inside = smoothstep(1.4, 3.2, gap) * is_fat
    h *= 1 - inside
    e *= 1 - inside


def _fat_cells(area: Area) -> tuple[Field, Field]:
    """Return the distance (roughly) to the nearest fat cell's wall and where fat cells are."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    y, x, height, width = area.box
    wide = Area(area.scene, y - _SWAY, x - _SWAY, height + 2 * _SWAY, width + 2 * _SWAY)
    reach = int(FAT_SPACING * 1.1)
    cells = area.scene.fat.near(*wide.box, reach)
    _, gap, kind = divided(wide.shape, cells, reach, 2 * reach)
    round_ = gaussian_filter(np.minimum(gap, 24), 3.0, truncate=3.0)  # rounds the corners
    textures = area.scene.textures
    shift = [textures.coarse.at(y + n, x + n, height, width) * 5 for n in (0, 500)]
    rows = np.arange(height, dtype=np.float32)[:, None] + _SWAY + shift[0]
    columns = np.arange(width, dtype=np.float32) + _SWAY + shift[1]
    planes = (round_ - 3.4, (kind < 0).astype(np.float32))
    swayed = [map_coordinates(p, [rows, columns], order=1, mode="nearest") for p in planes]
    return swayed[0], smoothstep(0.3, 0.7, swayed[1])


def _vessels(area: Area, h: Field, e: Field, fibres: Field) -> Field:
    """Paint vessels; returns the colour that haemoglobin has of its own."""
    warm = np.zeros_like(e)
    vessel = area.field("vessel")
    if vessel.max() < -130:
        return warm
    vessel += 1.5 * area.middle
    wall = smoothstep(-22, -14, vessel)
    e += wall * (0.10 + 0.75 * fibres - e)
    inside = smoothstep(-1.5, 1.5, vessel)
    e += inside * (0.012 - e)
    h += inside * (0.01 - h)
    blood = area.scene.blood.near(*area.box)
    if len(blood.y):
        discs = stamped(area.shape, blood, [area.scene.discs])
        np.maximum(e, discs, out=e)
        warm += 0.5 * discs
    return warm


def _nuclei(area: Area, h: Field, e: Field) -> None:
    cells = area.scene.nuclei.near(*area.box)
    if not len(cells.y):
        return
    nuclei = stamped(area.shape, cells, area.scene.stamps)
    cover = np.minimum(nuclei * 2.4, 1)
    h *= 1 - 0.7 * cover
    h += nuclei
    e *= 1 - 0.35 * cover
    e += 0.05 * cover
