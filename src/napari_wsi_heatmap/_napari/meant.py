"""Which slide a command of the menu means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap._napari.notify import tell_warning
from napari_wsi_heatmap.slides.base import Slide

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def slide_layer_meant(viewer: ViewerModel) -> Layer | None:
    """The selected layer of a slide, else the only one; None, and told why, if there is none."""
    slides = [layer for layer in viewer.layers if is_slide(layer)]
    selected = [layer for layer in slides if layer in viewer.layers.selection]
    for meant in (selected, slides):
        if len(meant) == 1:
            return meant[0]
    if slides:
        tell_warning("Several slides are open: select the layer of one of them first.")
    else:
        tell_warning("No slide is open here that WSI Heatmap has opened: drop one first.")
    return None


def is_slide(layer: Layer) -> bool:
    """Whether our reader made this layer."""
    return isinstance(layer.metadata.get("slide"), Slide) and "pyramid" in layer.metadata
