"""The layer of a heatmap that is there: one for all of its channels, of which one is shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from psygnal import Signal

from napari_wsi_heatmap._napari.colors import BLENDING, COLORMAP, OPACITY, limits_in
from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.diverging import OPACITY as DIFFERENCE_OPACITY
from napari_wsi_heatmap._napari.diverging import diverging
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.window_words import word_of
from napari_wsi_heatmap.difference import symmetric
from napari_wsi_heatmap.disagreement import KIND as DISAGREEMENT
from napari_wsi_heatmap.runfolder import DIFFERENCE

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap._napari.colors import Limits
    from napari_wsi_heatmap.heatmap import Heatmap

UNSURE_COLORMAP = "magma"
"""Of what overlapping windows differ by: not to be taken for values of the model."""
NUMBERED = re.compile(r" \[\d+\]$")
"""What napari puts behind the name of a second layer of one name."""


class SavedLayer:
    """Shows one channel of a heatmap over a slide layer.

    Parameters
    ----------
    heatmap : Heatmap
    over : Layer
        What it lies over.
    shown : (C, My, Mx) float32, optional
        What is shown instead of its values: those of a rough map.
    frame : optional
        Where its cells lie on `over`, if that is no slide; see `placed_over`.

    Attributes
    ----------
    layer : napari.layers.Image
    channel : int
    channel_changed : psygnal.Signal
        Emitted when another one is shown.
    """

    channel_changed = Signal(int)

    def __init__(
        self,
        heatmap: Heatmap,
        over: Layer,
        shown: NDArray[np.float32] | None = None,
        frame: Any = None,
    ) -> None:
        self._heatmap, self.channel = heatmap, 0
        self._shown = heatmap.values if shown is None else shown
        self.layer = Image(
            self._shown[0],
            name=self._title(0),
            rgb=False,
            multiscale=False,
            cache=False,
            blending=BLENDING,
            interpolation2d="nearest",
            axis_labels=over.axis_labels,
            metadata=self._metadata(),
            contrast_limits=self._limits(),
            **_look(heatmap),
            **placed_over(over, frame or heatmap.frame),
        )
        self.layer.colorbar.visible = True
        self.layer.colorbar.box = True
        if heatmap.values.shape[1:] == heatmap.state.shape:  # a cell is a window
            say_under_cursor(self.layer, self._say)

    def _metadata(self) -> dict[str, Any]:
        heatmap = self._heatmap
        unit = heatmap.run["model"]["unit"]
        return {"heatmap": heatmap, "names": heatmap.names, "unit": unit, "switch": self}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the channels."""
        return self._heatmap.names

    def show_channel(self, channel: int) -> None:
        """Show another output of the model; nothing is computed again."""
        ours = NUMBERED.sub("", self.layer.name) == self._title(self.channel)
        self.channel = channel
        self.layer.data = self._shown[channel]
        self.layer.contrast_limits = self._limits()
        if ours:
            self.layer.name = self._title(channel)
        self.channel_changed.emit(channel)

    def _title(self, channel: int) -> str:
        model, names = str(self._heatmap.run["model"]["name"]), self._heatmap.names
        return model if len(names) == 1 else f"{model}: {names[channel]}"

    def _limits(self) -> Limits:
        heatmap = self._heatmap
        outputs = len(heatmap.names) - len(heatmap.uncertainty)
        seen = limits_in(heatmap.values[self.channel]) or (0.0, 1.0)
        if heatmap.run.get("kind") == DIFFERENCE:
            return symmetric(seen)
        stated = heatmap.run["model"]["limits"] if self.channel < outputs else None
        return (stated[0], stated[1]) if stated else seen

    def _say(self, row: int, col: int) -> str:
        there = not np.isnan(self._shown[self.channel, row, col])
        reasons = reasons_of(self._heatmap)
        return word_of(self._heatmap.state, reasons, (row, col), shows_value=there)


def reasons_of(heatmap: Heatmap) -> dict[int, str]:
    """Why windows failed: flat index -> reason."""
    return {int(window): str(why) for window, why in heatmap.run.get("failed", ())}


def _look(heatmap: Heatmap) -> dict[str, Any]:
    """Colour map and opacity of a layer."""
    kind = heatmap.run.get("kind")
    if kind == DIFFERENCE:
        return {"colormap": diverging(), "opacity": DIFFERENCE_OPACITY}
    return {"colormap": UNSURE_COLORMAP if kind == DISAGREEMENT else COLORMAP, "opacity": OPACITY}
