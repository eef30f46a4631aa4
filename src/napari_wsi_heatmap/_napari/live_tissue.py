"""A mask of tissue in the viewer whose threshold can be moved: nothing is read again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from napari_wsi_heatmap._napari.cursor_text import say_under_cursor

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

    from napari_wsi_heatmap.tissuerules.values import TissueValues


class LiveTissue:
    """What is known about a layer of tissue.

    Parameters
    ----------
    layer : Labels
        Shows ``values.mask()``.
    slide_layer : Layer
        Over which it lies.
    values : TissueValues
    asked : object
        What the windows were laid by: compared by whoever moves the threshold.
    """

    def __init__(self, layer: Labels, slide_layer: Layer, values: TissueValues, asked: Any) -> None:
        self._layer, self._slide_layer = ref(layer), ref(slide_layer)
        self.values, self.asked = values, asked
        say_under_cursor(layer, self.text_at)
        LIVE[layer] = self

    @property
    def layer(self) -> Labels:
        """The layer, which whoever asks has found in a viewer."""
        layer = self._layer()
        assert layer is not None
        return layer

    def lies_over(self, slide_layer: Layer) -> bool:
        """Whether it is the tissue of this slide."""
        return self._slide_layer() is slide_layer

    def move(self, threshold: float) -> None:
        """Show the mask of another threshold."""
        slide_layer = self._slide_layer()
        self.values = self.values.moved(threshold)
        self.layer.data[...] = self.values.mask()
        self.layer.refresh(highlight=False, extent=False)
        self.layer.name = titled(slide_layer, self.values)

    @property
    def painted(self) -> bool:
        """Whether somebody has changed the mask by hand."""
        return not np.array_equal(self.layer.data, self.values.mask())

    def text_at(self, y: int, x: int) -> str:
        """The value at a place of the mask, and what the rule makes of it."""
        return value_text(self.values, y, x)


LIVE: WeakKeyDictionary[Labels, LiveTissue] = WeakKeyDictionary()


def live_tissue(viewer: ViewerModel, slide_layer: Layer) -> LiveTissue | None:
    """The topmost mask over a slide that is shown and whose threshold can be moved."""
    shown = (LIVE.get(layer) for layer in reversed(viewer.layers) if layer.visible)
    return next((live for live in shown if live is not None and live.lies_over(slide_layer)), None)


def titled(slide_layer: Layer, values: TissueValues) -> str:
    """Name of a layer that shows the tissue of a rule."""
    return f"{slide_layer.name} tissue ({values.rule} {values.threshold:g})"


def count_text(values: TissueValues) -> str:
    """How much is tissue, in a few words."""
    mask = values.mask()
    count = int(np.count_nonzero(mask))
    if values.windows:
        return f"{count:,} of {mask.size:,} windows"
    return f"{count / mask.size:.1%} of the slide"


def value_text(values: TissueValues, y: int, x: int) -> str:
    """What a rule sees at a place: "variance 63.2, tissue above 80"."""
    value, first = values.at(y, x), values.first_at(y, x)
    if math.isnan(value):
        return "nothing was looked at here"
    if math.isinf(value):
        return "damaged: counts as tissue"
    name = "saturation" if values.rule == "otsu" else "variance"
    return f"{name} {_short(value)}{_square(values, first)}, tissue above {values.threshold:g}"


def _square(values: TissueValues, first: float | None) -> str:
    """What the first of two passes made of it."""
    if first is None or math.isinf(first):
        return ""
    rejected = ": below the first pass" if first <= values.threshold else ""
    return f" (its square {_short(first)}{rejected})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
