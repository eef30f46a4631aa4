"""Tumour nests, glands and crypts: cytoplasm, cell borders, mucin, lumens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.noise import Field, smoothstep
from napari_wsi_heatmap.sample.nuclei import kind_number
from napari_wsi_heatmap.sample.stamping import divided, stamped

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.area import Area

_KINDS = [kind_number(name) for name in ("tumour", "giant", "columnar", "crypt", "pyknotic")]
_CELL_REACH = 26  # px from a nucleus to its cell's border, at most


def paint_epithelium(area: Area, h: Field, e: Field, border: Field) -> None:
    """Paint epithelium over the amounts `h` and `e`; `border`: its signed distance, px."""
    if area.peak("epithelium") < -12:
        return
    inside = smoothstep(-1.5, 1.5, border)
    mucosa = area.field("mucosa")
    blue, eosin = _cytoplasm(area, mucosa)
    _mucin(area, blue, eosin)
    _lumen(area, blue, eosin, mucosa)
    h += inside * (blue - h)
    e += inside * (eosin - e)


def _cytoplasm(area: Area, mucosa: Field) -> tuple[Field, Field]:
    """Return the amounts of cytoplasm; each cell has its own tone."""
    nuclei = area.scene.nuclei.near(*area.box)
    own = nuclei.where(np.isin(nuclei.kind, _KINDS))
    gap, tone = divided(area.shape, own, _CELL_REACH)
    membrane = np.exp(-((gap / 2.2) ** 2))
    grain = 0.022 * area.fine + 0.022 * area.middle
    eosin = 0.170 + 0.09 * (tone - 1) + 0.06 * membrane + grain - 0.02 * mucosa
    blue = 0.175 - 0.055 * mucosa + 0.10 * (tone - 1) + 0.02 * membrane + 0.5 * grain
    return blue, eosin


def _mucin(area: Area, blue: Field, eosin: Field) -> None:
    goblets = area.scene.goblets.near(*area.box)
    if len(goblets):
        mucin = stamped(area.shape, goblets, [area.scene.vacuoles])
        eosin *= 1 - 0.88 * mucin
        blue *= 1 - 0.55 * mucin


def _lumen(area: Area, blue: Field, eosin: Field, mucosa: Field) -> None:
    """Open the lumens: a dense apical border, and debris in those of the tumour."""
    lumen = area.field("lumen") + 2.0 * area.middle
    eosin += 0.12 * np.exp(-(((lumen + 3) / 2.5) ** 2))
    debris = smoothstep(0.6, 2.6, area.coarse + 0.7 * area.middle + 0.25 * area.fine)
    debris *= (1 - mucosa) * (1 + 0.3 * area.fine)
    clear = smoothstep(-1.5, 1.5, lumen)
    eosin += clear * (0.15 * debris + 0.006 - eosin)
    blue += clear * (0.07 * debris + 0.004 - blue)
