"""Which windows a heatmap was made of, as a Labels layer: what the run called tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap._napari.class_labels import PART_OF
from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.notify import tell
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.registry import job_of
from napari_wsi_heatmap._napari.tissue_view import mask_layer, put_tissue
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.states import BACKGROUND, NAMES, OUTSIDE, state_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

SAYS = NAMES | {BACKGROUND: "left out as background", OUTSIDE: "outside the region"}


def show_run_tissue(viewer: ViewerModel) -> None:
    """Add the windows of the heatmap that is selected, else of the topmost, as a layer.

    Raises
    ------
    HeatmapError
        If there is no heatmap.
    """
    layer = chosen_heatmap(viewer)
    if layer is None:
        raise HeatmapError("there is no heatmap in this viewer", do="run a model, or open one")
    heatmap: Heatmap = layer.metadata["heatmap"]
    states = state_of(np.array(heatmap.state))
    if states.ndim != 2:
        raise HeatmapError("it was made of a list of windows, none left out", layer.name)
    mask = (states != BACKGROUND) & (states != OUTSIDE)
    if mask.all():
        tell(f"{layer.name}: no window was left out")
        return
    labels = _labels(layer, heatmap, mask)
    put_tissue(viewer, labels)
    say_under_cursor(labels, lambda y, x: SAYS[int(state_of(heatmap.state[y, x]))])


def chosen_heatmap(viewer: ViewerModel) -> Layer | None:
    """The heatmap's layer that is selected, or a part of it is, else the topmost one."""
    layers = [layer for layer in viewer.layers if "heatmap" in layer.metadata]
    meant = [layer.metadata.get(PART_OF) for layer in viewer.layers.selection]
    meant += viewer.layers.selection
    selected = [layer for layer in layers if any(layer is one for one in meant)]
    return next(reversed(selected or layers), None)


def _labels(layer: Layer, heatmap: Heatmap, mask: NDArray[np.bool_]) -> Labels:
    job = job_of(layer)
    owner = heatmap.run["slide"]["name"] if job is None else job.slide_layer.name
    return mask_layer(
        mask.astype(np.uint8),
        f"{layer.name} tissue",
        owner,
        axis_labels=layer.axis_labels,
        **placed_over(layer, _windows_on(heatmap)),
    )


class _Cells(NamedTuple):
    """Where windows lie on the cells of a map; see `placed_over`."""

    offset: Any
    scale: Any


def _windows_on(heatmap: Heatmap) -> _Cells:
    """Window i has its centre at cell ``offset + i * scale``; a cell unless the map is dense."""
    spec, frame = heatmap.grid.spec, heatmap.frame
    down, cell = np.asarray(spec.downsample), np.asarray(frame.scale)
    centre = (np.asarray(spec.footprint) * down - 1) / 2
    return _Cells((centre - frame.offset) / cell, np.asarray(spec.stride) * down / cell)
