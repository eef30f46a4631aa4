"""Everything that is decided before the first pixel: layout, textures, cells, stamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

STEPS = 17  # of build_scene
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
    # Each part has a generator of its own: a change in one leaves the others as they are.
    streams = iter(np.random.default_rng(seed).spawn(14))

    def made(maker: Callable[..., Any], *given: Any) -> Any:
        result = maker(next(streams), *given)
        step()
        return result

    layout = build_layout(next(streams), Frame.of(size, BLOCK), step)
    fibres = made(fibre_angle, layout)
    discs = made(build_discs)
    return Scene(
        layout=layout,
        textures=made(build_textures),
        nuclei=Buckets(made(place_nuclei, layout, fibres)),
        blood=Buckets(made(place_blood, layout, len(discs))),
        goblets=Buckets(made(place_goblets, layout)),
        fat=Buckets(made(place_fat, layout)),
        collagen=Buckets(made(place_strokes, layout, fibres)),
        dust=Buckets(made(place_dust, size)),
        strokes=made(build_strokes),
        specks=made(build_specks),
        stamps=made(build_stamps),
        discs=discs,
        vacuoles=made(build_vacuoles),
    )
