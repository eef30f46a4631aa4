"""The colour bar in the dock: what the colours of a heatmap layer mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import Container, Label
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPainter
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari.layers import Image
    from qtpy.QtGui import QPaintEvent

COLORS, HEIGHT = 256, 12


class ColorStrip(Container):
    """A strip of colours between the lowest and the highest value that it tells apart."""

    def __init__(self) -> None:
        self._low, self._high = Label(value=""), Label(value="")
        super().__init__(widgets=[self._low, self._high], layout="horizontal", labels=False)
        self.margins = (0, 0, 0, 0)
        self._shown: tuple[Any, ...] = ()
        self._strip = _Strip()
        self.native.layout().insertWidget(1, self._strip, 1)
        for text in (self._low.native, self._high.native):
            text.setTextFormat(Qt.TextFormat.PlainText)

    def show_layer(self, layer: Image, unit: str) -> None:
        """Show limits and colours of a layer, if they are not those already shown."""
        wanted = (*layer.contrast_limits, layer.colormap.name, unit)
        if wanted == self._shown:
            return
        self._shown = wanted
        low, high = layer.contrast_limits
        self._low.value = f"{low:,.4g}"
        self._high.value = f"{high:,.4g} {unit}".strip()
        self._strip.show_colors(layer.colormap)


class _Strip(QWidget):
    """A colormap from left to right."""

    def __init__(self) -> None:
        super().__init__()
        self._image = QImage()
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_colors(self, colormap: Any) -> None:
        rgba = np.ascontiguousarray(255 * colormap.map(np.linspace(0, 1, COLORS)), np.uint8)
        # Copied: an image does not keep the bytes alive that it was made from.
        self._image = QImage(
            rgba.tobytes(), COLORS, 1, 4 * COLORS, QImage.Format.Format_RGBA8888
        ).copy()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.drawImage(self.rect(), self._image)
        painter.end()
