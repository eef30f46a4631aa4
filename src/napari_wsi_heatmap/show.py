"""`show_heatmap`: start a live run in a napari viewer; napari is imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any


def show_heatmap(viewer: Any, slide: Any, model: Any, **settings: Any) -> Any:
    """Run a model over a slide and watch the heatmap grow in a viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    slide : path, Slide or napari Image layer
        A path or Slide that is not shown yet is added to the viewer first.
    model : str, HeatmapModel, nn.Module or callable
        See `load_model`.
    **settings
        As for `run`, `out` included; the order is that of the viewport unless given.

    Returns
    -------
    HeatmapJob
        ``job.pause()``, ``job.resume()``, ``job.cancel()``, ``job.wait()``.
    """
    live = importlib.import_module("napari_wsi_heatmap._napari.job")
    return live.start_job(viewer, slide, model, **settings)
