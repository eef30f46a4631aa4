"""Run a torch model over a whole-slide image and watch the heatmap grow in napari.

The way of the data::

    slide -> grid -> regions -> [reader threads] -> device -> windows -> batches -> model
          -> pieces -> map, store -> live layer

>>> import napari_wsi_heatmap as wh
>>> slide = wh.open_slide("slide.svs")
>>> for piece in wh.run(slide, "hematoxylin", out="map.zarr"):
...     print(piece.positions, piece.values)
>>> wh.open_heatmap("map.zarr").export("map.png", slide=slide)

Names are imported when first used: opening a slide does not pay for importing torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_wsi_heatmap.cohort.running import compute_cohort, run_cohort
    from napari_wsi_heatmap.collectors.collecting import collect
    from napari_wsi_heatmap.collectors.collector import Collector
    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.errors import HeatmapError
    from napari_wsi_heatmap.exports.pdmcsvwriter import PdmcsvWriter
    from napari_wsi_heatmap.heatmap import Heatmap, Piece, open_heatmap
    from napari_wsi_heatmap.imports.pdmraster import pdmcsv_to_array
    from napari_wsi_heatmap.launch import compute_heatmap, predict_windows, resume, run
    from napari_wsi_heatmap.mil.bags import SlideFeatures, read_features
    from napari_wsi_heatmap.mil.from_slide import compute_mil, encode, run_mil
    from napari_wsi_heatmap.mil.result import MilResult, open_mil
    from napari_wsi_heatmap.mil.scoring import score_mil
    from napari_wsi_heatmap.models import load_model
    from napari_wsi_heatmap.models.mil import load_mil
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.show import register_model, show_heatmap
    from napari_wsi_heatmap.slidecopy import copy_slide
    from napari_wsi_heatmap.slides import open_slide
    from napari_wsi_heatmap.streams.dataset import stream
    from napari_wsi_heatmap.tissuerules.windows import tissue_windows

_HOMES = {
    "Collector": "collectors.collector",
    "Heatmap": "heatmap",
    "MilResult": "mil.result",
    "SlideFeatures": "mil.bags",
    "HeatmapError": "errors",
    "PdmcsvWriter": "exports.pdmcsvwriter",
    "Piece": "heatmap",
    "RunControl": "control",
    "RunSettings": "settings",
    "collect": "collectors.collecting",
    "compute_cohort": "cohort.running",
    "compute_heatmap": "launch",
    "compute_mil": "mil.from_slide",
    "copy_slide": "slidecopy",
    "encode": "mil.from_slide",
    "load_mil": "models.mil",
    "load_model": "models",
    "open_heatmap": "heatmap",
    "open_mil": "mil.result",
    "open_slide": "slides",
    "pdmcsv_to_array": "imports.pdmraster",
    "predict_windows": "launch",
    "read_features": "mil.bags",
    "register_model": "show",
    "resume": "launch",
    "run": "launch",
    "run_cohort": "cohort.running",
    "run_mil": "mil.from_slide",
    "score_mil": "mil.scoring",
    "show_heatmap": "show",
    "stream": "streams.dataset",
    "tissue_windows": "tissuerules.windows",
}

__all__ = [
    "Collector",
    "Heatmap",
    "HeatmapError",
    "MilResult",
    "PdmcsvWriter",
    "Piece",
    "RunControl",
    "RunSettings",
    "SlideFeatures",
    "collect",
    "compute_cohort",
    "compute_heatmap",
    "compute_mil",
    "copy_slide",
    "encode",
    "load_mil",
    "load_model",
    "open_heatmap",
    "open_mil",
    "open_slide",
    "pdmcsv_to_array",
    "predict_windows",
    "read_features",
    "register_model",
    "resume",
    "run",
    "run_cohort",
    "run_mil",
    "score_mil",
    "show_heatmap",
    "stream",
    "tissue_windows",
]

try:
    __version__ = version("napari-wsi-heatmap")
except PackageNotFoundError:
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
