"""A slide and its saved heatmap in a viewer, exactly registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
import numpy as np
from napari.layers import Image, Layer
from napari.utils.notifications import show_warning

from napari_wsi_heatmap._napari.colors import BLENDING, COLORMAP, OPACITY, PERCENTILES
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.qt_window import guard_removals
from napari_wsi_heatmap._napari.slide_layer import frame_scanned, slide_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

MOST_LAYERS = 16
"""Outputs of a model that get a layer each."""


def view(slide: Slide, heatmap: Heatmap | None = None) -> None:
    """Open a viewer with both, and return when its window is closed."""
    viewer = napari.Viewer(title=slide.name)
    show(viewer, slide, heatmap)
    napari.run()


def show(viewer: napari.Viewer, slide: Slide, heatmap: Heatmap | None = None) -> list[Layer]:
    """Add a slide, and what was saved of a run over it, to a viewer.

    Returns
    -------
    list of Layer
        The slide's, then one for each output of the model, of which the first is shown.
    """
    guard_removals(viewer)
    layers = [Layer.create(*slide_layer(slide))]
    viewer.add_layer(layers[0])
    frame_scanned(viewer, layers[0])
    if heatmap is not None:
        layers += heatmap_layers(heatmap, layers[0])
        for layer in layers[1:]:
            viewer.add_layer(layer)
    viewer.canvas.overlays.scale_bar.visible = slide.mpp is not None
    return layers


def heatmap_layers(heatmap: Heatmap, slide: Layer) -> list[Image]:
    """Make a layer for each output of a saved heatmap, placed over the slide's layer."""
    count = len(heatmap.names)
    if count > MOST_LAYERS:
        show_warning(f"The first {MOST_LAYERS} of {count} outputs are shown.")
    return [_layer(heatmap, channel, slide) for channel in range(min(count, MOST_LAYERS))]


def _layer(heatmap: Heatmap, channel: int, slide: Layer) -> Image:
    model, name = heatmap.run["model"], heatmap.names[channel]
    values = heatmap.values[channel]
    layer = Image(
        values,
        name=model["name"] if len(heatmap.names) == 1 else f"{model['name']}: {name}",
        rgb=False,
        multiscale=False,
        cache=False,
        contrast_limits=model["limits"] or _limits(values),
        colormap=COLORMAP,
        opacity=OPACITY,
        blending=BLENDING,
        interpolation2d="nearest",
        axis_labels=slide.axis_labels,
        visible=channel == 0,
        metadata={"heatmap": heatmap, "names": heatmap.names, "unit": model["unit"]},
        **placed_over(slide, heatmap.frame),
    )
    layer.colorbar.visible = True
    layer.colorbar.box = True
    return layer


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, PERCENTILES).tolist() if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low, low + 1.0)
