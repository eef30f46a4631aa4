"""MIL on slides: features of patches, from files or from the slide, and what a model says of them.

The networks are in `napari_wsi_heatmap.models.mil`. Here are bags of features (`bags`), encoder
and MIL in one run (`from_slide`), their result in a store (`result`), and scores as they are
drawn (`display`). Names are imported when first used: none of it imports torch before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_wsi_heatmap.mil.bags import SlideFeatures, read_features
    from napari_wsi_heatmap.mil.display import to_display
    from napari_wsi_heatmap.mil.from_slide import compute_mil, encode, prepare_mil, run_mil
    from napari_wsi_heatmap.mil.places import Places, read_coords
    from napari_wsi_heatmap.mil.result import MilResult, open_mil
    from napari_wsi_heatmap.mil.scoring import score_mil

_HOMES = {
    "MilResult": "result",
    "Places": "places",
    "SlideFeatures": "bags",
    "compute_mil": "from_slide",
    "encode": "from_slide",
    "open_mil": "result",
    "prepare_mil": "from_slide",
    "read_coords": "places",
    "read_features": "bags",
    "render_clam": "render",
    "render_trident": "render",
    "run_mil": "from_slide",
    "score_mil": "scoring",
    "to_display": "display",
}

__all__ = [
    "MilResult",
    "Places",
    "SlideFeatures",
    "compute_mil",
    "encode",
    "open_mil",
    "prepare_mil",
    "read_coords",
    "read_features",
    "render_clam",
    "render_trident",
    "run_mil",
    "score_mil",
    "to_display",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
