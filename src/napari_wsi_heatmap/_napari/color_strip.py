"""The colour bar in the dock: what the colours of a heatmap layer mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import Container, Label
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QSizePolicy

if TYPE_CHECKING:
    from napari.layers import Image

WIDTH, HEIGHT = 256, 12


class ColorStrip(Container):
    """A strip of colours between the lowest and the highest value that it tells apart."""

    def __init__(self) -> None:
        self._low, self._strip, self._high = Label(value=""), Label(value=""), Label(value="")
        super().__init__(
            widgets=[self._low, self._strip, self._high], layout="horizontal", labels=False
        )
        self.margins = (0, 0, 0, 0)
        self._shown: tuple[Any, ...] = ()
        strip = self._strip.native
        strip.setScaledContents(True)
        strip.setFixedHeight(HEIGHT)
        strip.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for text in (self._low.native, self._high.native):
            text.setTextFormat(Qt.TextFormat.PlainText)
            text.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Preferred)

    def show_layer(self, layer: Image, unit: str) -> None:
        """Show limits and colours of a layer, if they are not those already shown."""
        wanted = (*layer.contrast_limits, layer.colormap.name, unit)
        if wanted == self._shown:
            return
        if self._shown[2:3] != wanted[2:3]:
            self._strip.native.setPixmap(_pixmap(layer.colormap))
        self._shown = wanted
        low, high = layer.contrast_limits
        self._low.value = f"{low:.3g}"
        self._high.value = f"{high:.3g} {unit}".strip()


def _pixmap(colormap: Any) -> QPixmap:
    """A colormap from left to right, one pixel high."""
    rgba = np.ascontiguousarray(colormap.map(np.linspace(0, 1, WIDTH))[None] * 255, np.uint8)
    image = QImage(rgba.tobytes(), WIDTH, 1, 4 * WIDTH, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image.copy())
