"""Live runs in a napari viewer; napari is imported when one is started."""

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
    model : str, HeatmapModel, nn.Module or callable, or a list of these
        See `load_model`. Several models have a layer each, over one reading of the slide; two have
        another one of what they differ by, which is seen first.
    **settings
        As for `run`, `out` included. `roi` may also be a Shapes layer; the order is that of the
        viewport unless given.

    Returns
    -------
    HeatmapJob
        ``job.pause()``, ``job.resume()``, ``job.cancel()``, ``job.wait()``; ``job.heatmap``
        grows with the run, ``job.layer`` shows it; of several models these are the first's,
        ``job.heatmaps`` and ``job.layers`` those of all.

    Raises
    ------
    HeatmapError
        If a run goes on in this viewer already, or slide or settings cannot be used. What goes
        wrong later is shown as a notification, and raised by ``job.wait()``.
    """
    live = importlib.import_module("napari_wsi_heatmap._napari.start")
    return live.start_job(viewer, slide, model, **settings)


def register_model(name: str, model: Any) -> None:
    """Offer a model of your own in the dock.

    Parameters
    ----------
    name : str
        Shown in the list of models.
    model : HeatmapModel, nn.Module or callable
        See `load_model`; settings of its own are given there:
        ``register_model("tumour", load_model(net, window=224, mpp=0.5))``.
    """
    importlib.import_module("napari_wsi_heatmap._napari.model_list").MODELS.register(name, model)
