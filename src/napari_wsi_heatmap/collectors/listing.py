"""Rows of a slide as a heatmap over a list of windows, which every format knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.listmap import LIST, ListHeatmap, list_to_json
from napari_wsi_heatmap.record import account, describe_slide, now
from napari_wsi_heatmap.runfolder import FORMAT, FORMAT_VERSION
from napari_wsi_heatmap.states import DONE, NOT_FINITE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.slides.base import Slide


def heatmap_of_rows(
    slide: Slide,
    windows: WindowList,
    values: NDArray[np.float32],
    names: tuple[str, ...],
    about: dict[str, Any],
) -> ListHeatmap:
    """Make a heatmap of windows and their values (n, C)."""
    finite = np.isfinite(values).all(1)
    state = np.where(finite, DONE, DONE | NOT_FINITE).astype(np.uint8)
    return ListHeatmap(windows, values, state, _record(slide, windows, state, names, about))


def _record(
    slide: Slide,
    windows: WindowList,
    state: NDArray[np.uint8],
    names: tuple[str, ...],
    about: dict[str, Any],
) -> dict[str, Any]:
    model = {
        "name": str(about.get("model", "collected")),
        **dict.fromkeys(("spec", "mpp", "output", "activation", "limits")),
        "sha256": about.get("sha256"),
        "names": list(names),
        "unit": "",
    }
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": LIST,
        "status": "done",
        "reason": "",
        "slide": describe_slide(slide),
        "model": model,
        "settings": {},
        "collected": about,
        "list": list_to_json(windows),
        "counts": account(state),
        "failed": [],
        "notices": [],
        "begun": now(),
    }
