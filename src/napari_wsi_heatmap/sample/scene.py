"""Everything that is decided before the first pixel: layout, textures, cells, stamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.cells import (
    Buckets,
    place_blood,
    place_fat,
    place_goblets,
    place_nuclei,
)
from napari_wsi_heatmap.sample.collagen import Stroke, build_strokes, fibre_angle, place_strokes
from napari_wsi_heatmap.sample.dust import build_specks, place_dust
from napari_wsi_heatmap.sample.layout import Layout, build_layout
from napari_wsi_heatmap.sample.nuclei import build_discs, build_stamps, build_vacuoles
from napari_wsi_heatmap.sample.shapes import Frame
from napari_wsi_heatmap.sample.textures import Textures, build_textures

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.sample.noise import Field

BLOCK = 512  # px, what is painted at once; a multiple of two tiles


@dataclass(frozen=True)
class Scene:
    """A slide before it is painted; any rectangle of it can be painted on its own."""

    layout: Layout
    textures: Textures
    nuclei: Buckets
    blood: Buckets
    goblets: Buckets
    fat: Buckets
    collagen: Buckets
    strokes: list[list[Stroke]]
    dust: Buckets
    specks: list[Field]
    stamps: list[Field]
    discs: Field
    vacuoles: Field


def build_scene(
    size: tuple[int, int], seed: int = 0, check: Callable[[], None] = lambda: None
) -> Scene:
    """Decide a slide of `size` (height, width) px; `check` is called between steps, may raise."""
    streams = np.random.default_rng(seed).spawn(14)
    layout = build_layout(streams[0], Frame.of(size, BLOCK), check)
    fibres = fibre_angle(streams[9], layout)
    nuclei = place_nuclei(streams[1], layout, fibres)
    check()
    discs = build_discs(streams[2], 64)
    return Scene(
        layout=layout,
        textures=build_textures(streams[3]),
        nuclei=Buckets(nuclei),
        blood=Buckets(place_blood(streams[4], layout, len(discs))),
        goblets=Buckets(place_goblets(streams[5], layout)),
        fat=Buckets(place_fat(streams[6], layout)),
        collagen=Buckets(place_strokes(streams[10], layout, fibres)),
        strokes=build_strokes(streams[11]),
        dust=Buckets(place_dust(streams[12], size)),
        specks=build_specks(streams[13]),
        stamps=build_stamps(streams[7]),
        discs=discs,
        vacuoles=build_vacuoles(streams[8]),
    )
