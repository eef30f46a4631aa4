"""Path, Slide or layer + model -> a job that runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from napari.layers import Layer, Shapes

from napari_wsi_heatmap._napari.guarded import bare
from napari_wsi_heatmap._napari.job import HeatmapJob
from napari_wsi_heatmap._napari.marked_tissue import marked_tissue
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.region import drawn_region, on_slide, view_box
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.models.settings import OF_RUN as OF_MODEL
from napari_wsi_heatmap.settings import RunSettings
from napari_wsi_heatmap.slides.base import Slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

    from napari_wsi_heatmap._napari.slide_source import SlideSource

NOT_OF_RUN = ("out", "trust", *OF_MODEL)
"""Arguments of `show_heatmap` beside the fields of `RunSettings`."""


def start_job(
    viewer: Any,
    slide: Any,
    model: Any,
    *,
    job_kind: Callable[..., HeatmapJob] = HeatmapJob,
    **settings: Any,
) -> HeatmapJob:
    """Start a live run; see `napari_wsi_heatmap.show_heatmap`.

    `job_kind` makes the job, of the arguments of `HeatmapJob`.

    Raises
    ------
    HeatmapError
        If another run goes on in this viewer, or slide or settings cannot be used. What the
        model or the file object to comes later, through the job.
    """
    viewer = bare(viewer)
    running = JOBS.running(viewer)
    if running is not None:
        raise HeatmapError(
            "another run goes on in this viewer", running.title, "wait for it, or cancel it"
        )
    RunSettings.of({k: v for k, v in settings.items() if _is_known_now(k, v)})
    layer = _layer_of(viewer, bare(slide))
    source = source_of(layer)
    names = [MODELS.name(one) for one in (model if isinstance(model, (list, tuple)) else [model])]
    job = job_kind(viewer, layer, source, model, _resolved(viewer, layer, source, settings), names)
    job.start()
    return job


def _is_known_now(name: str, value: Any) -> bool:
    """Whether a setting can be checked before it is known over which layer the run goes."""
    return name not in (*NOT_OF_RUN, "roi") and not isinstance(bare(value), Layer)


def _resolved(
    viewer: ViewerModel, layer: Layer, source: SlideSource, settings: dict[str, Any]
) -> dict[str, Any]:
    """Settings as the engine takes them: regions in level-0 pixels, the view first."""
    roi = bare(settings.get("roi"))
    if isinstance(roi, Shapes):
        settings = settings | {"roi": drawn_region(roi, layer)}
    if "tissue" in settings:
        settings = settings | {"tissue": marked_tissue(bare(settings["tissue"]), layer)}
    settings = {"order": "viewport"} | settings
    box = view_box(viewer, layer)
    seen = None if box is None else on_slide(box, source.shapes[0])
    return {"viewport": seen} | settings


def _layer_of(viewer: ViewerModel, slide: Any) -> Layer:
    """The layer that shows a slide; added if there is none yet."""
    if isinstance(slide, Layer):
        if slide not in viewer.layers:
            raise HeatmapError(
                "the layer is not in this viewer", slide.name, "add it, or hand over the path"
            )
        return slide
    known = next((layer for layer in viewer.layers if _shows(layer, slide)), None)
    return known or _added(viewer, slide)


def _shows(layer: Layer, slide: Any) -> bool:
    shown = layer.metadata.get("slide")
    if isinstance(slide, Slide):
        return shown is slide
    return isinstance(shown, Slide) and shown.path == os.path.abspath(os.fspath(slide))


def _added(viewer: ViewerModel, slide: Any) -> Layer:
    from napari_wsi_heatmap._napari.slide_layer import slide_layer
    from napari_wsi_heatmap.slides import open_slide

    layer = Layer.create(*slide_layer(open_slide(slide)))
    viewer.add_layer(layer)
    return layer
