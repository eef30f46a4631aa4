"""Everything that is decided before the first pixel: layout, textures, cells, stamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.cells import Buckets
from napari_wsi_heatmap.sample.collagen import Stroke, build_strokes, fibre_angle, place_strokes
from napari_wsi_heatmap.sample.dust import build_specks, place_dust
from napari_wsi_heatmap.sample.fat import place_fat
from napari_wsi_heatmap.sample.layout import Layout, build_layout
from napari_wsi_heatmap.sample.nuclei import build_discs, build_stamps, build_vacuoles
from napari_wsi_heatmap.sample.placing import place_blood, place_goblets, place_nuclei
from napari_wsi_heatmap.sample.shapes import Frame
from napari_wsi_heatmap.sample.textures import Textures, build_textures

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.sample.noise import Field

STEPS = 7  # of build_scene
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
    size: tuple[int, int], seed: int = 0, step: Callable[[], None] = lambda: None
) -> Scene:
    """Decide a slide of `size` (height, width) px; `step` is called STEPS times, may raise."""
    streams = iter(np.random.default_rng(seed).spawn(14))
    layout = build_layout(next(streams), Frame.of(size, BLOCK), step)
    fibres = fibre_angle(next(streams), layout)
    step()
    nuclei = place_nuclei(next(streams), layout, fibres)
    step()
    discs = build_discs(next(streams), 64)
    scene = Scene(
        layout=layout,
        textures=build_textures(next(streams)),
        nuclei=Buckets(nuclei),
        blood=Buckets(place_blood(next(streams), layout, len(discs))),
        goblets=Buckets(place_goblets(next(streams), layout)),
        fat=Buckets(place_fat(next(streams), layout)),
        collagen=Buckets(place_strokes(next(streams), layout, fibres)),
        dust=Buckets(place_dust(next(streams), size)),
        strokes=build_strokes(next(streams)),
        specks=build_specks(next(streams)),
        stamps=build_stamps(next(streams)),
        discs=discs,
        vacuoles=build_vacuoles(next(streams)),
    )
    step()
    return scene
