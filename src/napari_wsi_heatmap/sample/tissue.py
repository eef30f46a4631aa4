"""Amounts of haematoxylin and eosin of an area: stroma, vessels, nuclei, and all that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.collagen import STROKE_REACH
from napari_wsi_heatmap.sample.epithelium import paint_epithelium
from napari_wsi_heatmap.sample.fat import paint_fat
from napari_wsi_heatmap.sample.noise import Field, smoothstep
from napari_wsi_heatmap.sample.stamping import overlaid, stamped

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.area import Area

WARMTH = 0.9  # amount of the third vector in a unit of eosin


def stain(area: Area) -> tuple[Field, Field, Field]:
    """Return the amounts (haematoxylin, eosin, third) of an area, 0 where there is no tissue."""
    strokes = area.scene.collagen.near(*area.box, reach=STROKE_REACH)
    fibres = overlaid(area.shape, strokes, area.scene.strokes)
    epithelium = area.field("epithelium") + 1.6 * area.middle
    h, e = _stroma(area, fibres, epithelium)
    warm = _vessels(area, h, e, fibres)
    paint_epithelium(area, h, e, epithelium)
    _nuclei(area, h, e)
    paint_fat(area, h, e)
    there = _thickness(area, fibres)
    return h * there, e * there, (warm + WARMTH * e) * there


def _thickness(area: Area, fibres: Field) -> Field:
    """Return how much tissue there is: 0 beside it, 1 in it, more in a fold."""
    edge = area.field("tissue") + 7 * area.coarse + 2.5 * area.middle
    # Fibres at the border stick out, what is between them is torn off.
    there = smoothstep(-3, 4, edge + 40 * (fibres - 0.25)) * (1 + 0.09 * area.field("tone"))
    if area.peak("fold") > -60:
        there *= 1 + 0.85 * smoothstep(-14, 6, area.field("fold") + 4 * area.coarse)
    thickness: Field = there
    return thickness


def _stroma(area: Area, fibres: Field, epithelium: Field) -> tuple[Field, Field]:
    """Return pale ground substance with collagen over it, torn off some of the nests."""
    lymph = area.field("lymph")
    ground = 0.045 + 0.012 * area.coarse + 0.010 * area.middle + 0.05 * lymph
    e = np.maximum(ground, fibres) * (1 + 0.07 * area.fine) + 0.008 * area.fine
    h = 0.03 + 0.012 * area.coarse + 0.05 * fibres + 0.07 * lymph
    cleft = smoothstep(-10, -5, epithelium) * smoothstep(1, -2, epithelium)
    left = 1 - cleft * smoothstep(0.2, 0.9, area.coarse)
    return np.maximum(h, 0.01) * left, np.maximum(e, 0.01) * left


def _vessels(area: Area, h: Field, e: Field, fibres: Field) -> Field:
    """Paint vessels; return the colour that haemoglobin has of its own."""
    warm = np.zeros_like(e)
    if area.peak("vessel") < -150:
        return warm
    vessel = area.field("vessel") + 1.5 * area.middle
    e += smoothstep(-22, -14, vessel) * (0.10 + 0.75 * fibres - e)
    inside = smoothstep(-1.5, 1.5, vessel)
    e += inside * (0.012 - e)
    h += inside * (0.01 - h)
    blood = area.scene.blood.near(*area.box)
    if len(blood):
        discs = stamped(area.shape, blood, [area.scene.discs])
        np.maximum(e, discs, out=e)
        warm += 0.5 * discs
    return warm


def _nuclei(area: Area, h: Field, e: Field) -> None:
    cells = area.scene.nuclei.near(*area.box)
    if not len(cells):
        return
    nuclei = stamped(area.shape, cells, area.scene.stamps)
    cover = np.minimum(nuclei * 2.4, 1)
    h *= 1 - 0.7 * cover
    h += nuclei
    e *= 1 - 0.35 * cover
    e += 0.05 * cover
