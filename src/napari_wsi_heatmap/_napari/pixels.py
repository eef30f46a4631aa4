"""Pixels of patches as Qt draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qtpy.QtGui import QPaintEvent

HIGHEST = 224
"""px of the picture in the dock."""


def image_of(rgb: NDArray[np.uint8]) -> QImage:
    """Make a QImage of pixels (h, w, 3)."""
    pixels = np.ascontiguousarray(rgb, np.uint8)
    height, width = pixels.shape[:2]
    # Copied: an image does not keep the bytes alive that it was made from.
    return QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()


class Picture(QWidget):
    """A picture as large as there is room, its pixels squares where it is enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self._image = QImage()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(0)

    def show_pixels(self, rgb: NDArray[np.uint8] | None) -> None:
        """Show pixels (h, w, 3); None: nothing, which takes no room."""
        self._image = QImage() if rgb is None else image_of(rgb)
        self.setFixedHeight(0 if rgb is None else HIGHEST)
        self.update()

    @property
    def box(self) -> QRect:
        """Where the picture lies on the widget."""
        size = self._image.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        return QRect((self.width() - size.width()) // 2, 0, size.width(), size.height())

    def sizeHint(self) -> QSize:
        """No width of its own: it must not widen the dock."""
        return QSize(1, self.height())

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._image.isNull():
            return
        painter, box = QPainter(self), self.box
        shrunk = box.width() < self._image.width()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, shrunk)
        painter.drawImage(box, self._image)
        painter.end()
