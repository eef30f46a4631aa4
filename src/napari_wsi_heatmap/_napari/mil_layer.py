"""The layer of a slide that a MIL model has scored: another class, or way to draw, is a click."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from psygnal import Signal

from napari_wsi_heatmap._napari.colors import BLENDING, COLORMAP, OPACITY, limits_in
from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.feature_layers import OnMap, follow
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.qt_window import guard_removals
from napari_wsi_heatmap.inspecting.numbers import short_number
from napari_wsi_heatmap.mil.shown import limits

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.mil.result import MilResult

SCORE = 1
"""Channel of the raw score."""


@dataclass(frozen=True, eq=False)
class ScoredSlide:
    """What a thread has found."""

    result: MilResult
    base: Heatmap
    """The result on its windows; see `mil.shown.laid`."""
    over: Layer
    """What the map lies over: a slide's layer, or that of the heatmap with the features."""
    trouble: str = ""
    """What did not work, though there is a result."""

    @property
    def cells(self) -> OnMap:
        """Where the cells of the map lie on what is below."""
        frame, below = self.base.frame, self.over.metadata.get("heatmap")
        if below is None:
            return OnMap(np.asarray(frame.offset), np.asarray(frame.scale))
        scale = np.asarray(below.frame.scale)
        offset = (np.asarray(frame.offset) - below.frame.offset) / scale
        return OnMap(offset, np.asarray(frame.scale) / scale)


class MilLayer:
    """Shows what `mil.shown.shown` gives, as channel 0, and the raw values as further ones.

    Parameters
    ----------
    scored : ScoredSlide
    heatmap : Heatmap
        What is drawn.
    how : str
        How it is.
    name : str
        Of the layer.
    layer : Image, optional
        That of a live run, which is taken over.

    Attributes
    ----------
    layer : napari.layers.Image
    channel : int
    channel_changed : psygnal.Signal
        Emitted when another one is shown.
    """

    channel_changed = Signal(int)

    def __init__(
        self, scored: ScoredSlide, heatmap: Heatmap, how: str, name: str, layer: Image | None = None
    ) -> None:
        self.heatmap, self.channel, self._how = heatmap, 0, how
        self._name = name if layer is None else layer.name
        self.layer = layer or self._make(scored)
        self.layer.metadata["switch"] = self
        self.show(heatmap, how, name)
        say_under_cursor(self.layer, self._say)

    def _make(self, scored: ScoredSlide) -> Image:
        over, cells = scored.over, scored.cells
        layer = Image(
            self.heatmap.values[0],
            name=self._name,
            rgb=False,
            multiscale=False,
            cache=False,
            colormap=COLORMAP,
            opacity=OPACITY,
            blending=BLENDING,
            interpolation2d="nearest",
            axis_labels=over.axis_labels,
            metadata={"job": None},
            **placed_over(over, cells),
        )
        layer.colorbar.visible = layer.colorbar.box = True
        follow(layer, over, cells)
        return layer

    @property
    def names(self) -> tuple[str, ...]:
        """Of the channels."""
        return self.heatmap.names

    def show(self, heatmap: Heatmap, how: str, name: str) -> None:
        """Show another class, or another way to draw it."""
        self.heatmap, self._how = heatmap, how
        self.layer.metadata.update(heatmap=heatmap, names=heatmap.names, unit="")
        self.rename(name)
        self.show_channel(0)

    def rename(self, name: str) -> None:
        """Call the layer otherwise, unless somebody has."""
        if self.layer.name.startswith(self._name):  # napari numbers layers of one name
            self.layer.name = name
        self._name = name

    def show_channel(self, channel: int) -> None:
        """Show another channel; nothing is computed again."""
        self.channel = channel
        values = self.heatmap.values[channel]
        self.layer.data = values
        seen = limits_in(values) or (0.0, 1.0)
        self.layer.contrast_limits = seen if channel else limits(values, self._how)
        self.channel_changed.emit(channel)

    def _say(self, row: int, col: int) -> str:
        score = float(self.heatmap.values[SCORE, row, col])
        return f"score {short_number(score)}" if np.isfinite(score) else ""


def put(viewer: ViewerModel, scored: ScoredSlide, layer: Image) -> None:
    """Show the layer instead of what it was made from, and of an earlier one of its name."""
    for other in list(viewer.layers):
        if isinstance(other.metadata.get("switch"), MilLayer) and other is not layer:
            other.visible = False
            if other.name == layer.name:
                viewer.layers.remove(other)
    if "heatmap" in scored.over.metadata:
        scored.over.visible = False
    guard_removals(viewer)
    if layer not in viewer.layers:
        viewer.add_layer(layer)
    viewer.layers.selection = {layer}
