"""A slide and its saved heatmaps in a viewer, exactly registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
import numpy as np
from napari.layers import Image, Layer
from napari.utils.notifications import show_info, show_warning

from napari_wsi_heatmap._napari.colors import BLENDING, COLORMAP, OPACITY, PERCENTILES
from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.diverging import OPACITY as DIFFERENCE_OPACITY
from napari_wsi_heatmap._napari.diverging import diverging
from napari_wsi_heatmap._napari.failed_layer import FailedLayer
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.qt_window import guard_removals
from napari_wsi_heatmap._napari.slide_layer import frame_scanned, slide_layer
from napari_wsi_heatmap._napari.window_words import word_of
from napari_wsi_heatmap.difference import symmetric
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.minus import KIND as DIFFERENCE
from napari_wsi_heatmap.rough import rough_map
from napari_wsi_heatmap.states import FAILED, count_states, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.rough import RoughMap
    from napari_wsi_heatmap.slides.base import Slide

MOST_LAYERS = 16
"""Outputs of a model that get a layer each."""


def view(slide: Slide, *heatmaps: Heatmap) -> None:
    """Open a viewer with all of them, and return when its window is closed."""
    viewer = napari.Viewer(title=slide.name)
    show(viewer, slide, *heatmaps)
    napari.run()


def show(viewer: napari.Viewer, slide: Slide, *heatmaps: Heatmap) -> list[Layer]:
    """Add a slide, and what was saved of a run over it, to a viewer.

    Returns
    -------
    list of Layer
        The slide's, then one for each output of each model, of two models also of what they
        differ by, and one that hatches windows that failed, if any did. The first of the
        difference is shown, else the first of all. Of a run that was stopped windows that are
        missing look like others nearby.
    """
    guard_removals(viewer)
    layers = [Layer.create(*slide_layer(slide))]
    viewer.add_layer(layers[0])
    frame_scanned(viewer, layers[0])
    difference = _difference(heatmaps)
    seen = (*difference, *heatmaps)[:1]
    for heatmap in (*heatmaps, *difference):
        rough = _rough(heatmap, slide, tell=heatmap in seen)
        found = heatmap_layers(heatmap, layers[0], rough)
        found[0].visible = heatmap in seen
        layers += found
    for heatmap in seen:
        layers += failed_layers(heatmap, layers[0])
    for layer in layers[1:]:
        viewer.add_layer(layer)
    viewer.canvas.overlays.scale_bar.visible = slide.mpp is not None
    return layers


def _difference(heatmaps: Sequence[Heatmap]) -> list[Heatmap]:
    """What two heatmaps differ by; empty of more or less, or if they cannot be compared."""
    if len(heatmaps) != 2:
        return []
    try:
        return [heatmaps[0].minus(heatmaps[1])]
    except HeatmapError as error:
        show_info(f"no difference is shown: {error}")
        return []


def heatmap_layers(heatmap: Heatmap, slide: Layer, rough: RoughMap | None = None) -> list[Image]:
    """Make a layer for each output of a saved heatmap, placed over the slide's layer."""
    count = len(heatmap.names)
    if count > MOST_LAYERS:
        show_warning(f"The first {MOST_LAYERS} of {count} outputs are shown.")
    return [_layer(heatmap, channel, slide, rough) for channel in range(min(count, MOST_LAYERS))]


def failed_layers(heatmap: Heatmap, slide: Layer) -> list[Image]:
    """Make the layer of the windows that failed; none if none did, or they lie on no lattice."""
    failed = np.flatnonzero(state_of(heatmap.state) == FAILED)
    if not len(failed) or heatmap.state.ndim != 2:
        return []
    name, reasons = heatmap.run["model"]["name"], _reasons(heatmap)
    layer = FailedLayer(heatmap.grid, heatmap.state, slide, name, reasons)
    layer.add(failed)
    return [layer.layer]


def _reasons(heatmap: Heatmap) -> dict[int, str]:
    return {int(window): str(why) for window, why in heatmap.run.get("failed", ())}


def _rough(heatmap: Heatmap, slide: Slide, *, tell: bool = True) -> RoughMap | None:
    """What is shown of a run that was stopped; None of one that is whole, or went row by row."""
    if heatmap.state.ndim != 2 or heatmap.run.get("settings", {}).get("order") != "viewport":
        return None
    counts = count_states(heatmap.state)
    if not counts["pending"] or not counts["done"]:
        return None
    rough = rough_map(slide, heatmap.frame, heatmap.values, heatmap.state)
    if rough is not None and tell:
        planned = counts["done"] + counts["failed"] + counts["pending"]
        show_info(
            f"The run was stopped: {counts['done']:,} of {planned:,} windows are computed, the "
            "others look like the nearest one that is."
        )
    return rough


def _layer(heatmap: Heatmap, channel: int, slide: Layer, rough: RoughMap | None) -> Image:
    model, name = heatmap.run["model"], heatmap.names[channel]
    values = heatmap.values[channel]
    shown = values if rough is None else rough.values[channel]
    layer = Image(
        shown,
        name=model["name"] if len(heatmap.names) == 1 else f"{model['name']}: {name}",
        rgb=False,
        multiscale=False,
        cache=False,
        blending=BLENDING,
        interpolation2d="nearest",
        axis_labels=slide.axis_labels,
        visible=channel == 0,
        metadata={"heatmap": heatmap, "names": heatmap.names, "unit": model["unit"]},
        **_colours(heatmap, values),
        **placed_over(slide, heatmap.frame),
    )
    layer.colorbar.visible = True
    layer.colorbar.box = True
    if values.shape == heatmap.state.shape:  # a cell is a window
        _say_words(layer, heatmap, shown)
    return layer


def _colours(heatmap: Heatmap, values: NDArray[np.float32]) -> dict[str, Any]:
    """Colour map, its limits and opacity, for a layer."""
    if heatmap.run.get("kind") == DIFFERENCE:
        limits, opacity = symmetric(_limits(values)), DIFFERENCE_OPACITY
        return {"contrast_limits": limits, "colormap": diverging(), "opacity": opacity}
    limits = heatmap.run["model"]["limits"] or _limits(values)
    return {"contrast_limits": limits, "colormap": COLORMAP, "opacity": OPACITY}


def _say_words(layer: Image, heatmap: Heatmap, shown: NDArray[np.float32]) -> None:
    state, reasons = heatmap.state, _reasons(heatmap)

    def word(row: int, col: int) -> str:
        return word_of(state, reasons, (row, col), shows_value=not np.isnan(shown[row, col]))

    say_under_cursor(layer, word)


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, PERCENTILES).tolist() if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low, low + 1.0)
