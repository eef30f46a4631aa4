"""Thumbnails with a line of text below each, in as many columns as fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QPixmap, QResizeEvent
from qtpy.QtWidgets import QFrame, QListView, QListWidget, QListWidgetItem

from napari_wsi_heatmap._napari.pixels import image_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIDE = 72
"""px of a thumbnail: three fit beside each other into the narrowest dock."""
GAP = 8
EMPTY = 96
"""Grey of a thumbnail that is still being read."""


class Thumbnails(QListWidget):
    """A list of pictures; `itemClicked` and the arrow keys choose one."""

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setUniformItemSizes(True)
        self.setWordWrap(False)
        self.setIconSize(QSize(SIDE, SIDE))
        # The dock scrolls: a bar of its own would take the room of a column.
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setSpacing(0)
        self._cell = QSize(SIDE + GAP, SIDE + GAP + self.fontMetrics().height())
        self.setGridSize(self._cell)
        self.show_texts(())

    def show_texts(self, texts: Sequence[str], tips: Sequence[str] = ()) -> None:
        """Begin anew, with so many thumbnails that are still to come."""
        self.clear()
        waiting = QIcon(QPixmap.fromImage(image_of(np.full((SIDE, SIDE, 3), EMPTY, np.uint8))))
        for number, text in enumerate(texts):
            item = QListWidgetItem(waiting, text)
            item.setSizeHint(self._cell)
            item.setToolTip(tips[number] if tips else text)
            self.addItem(item)
        self._fit()

    def put(self, number: int, rgb: NDArray[np.uint8]) -> None:
        """Show the pixels (h, w, 3) of one of them."""
        item = self.item(number)
        if item is None:
            return
        room = SIDE * self.devicePixelRatioF()
        shown = QPixmap.fromImage(image_of(rgb)).scaled(
            QSize(round(room), round(room)),
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        shown.setDevicePixelRatio(self.devicePixelRatioF())
        item.setIcon(QIcon(shown))

    def _fit(self) -> None:
        """As high as all of them."""
        across = max(1, self.width() // self._cell.width())
        rows = -(-self.count() // across)
        self.setFixedHeight(rows * self._cell.height() + GAP if rows else 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def minimumSizeHint(self) -> QSize:
        """Narrow enough for any dock."""
        return QSize(self._cell.width(), 0)

    def sizeHint(self) -> QSize:
        """It takes the width that it is given."""
        return QSize(self._cell.width(), self.height())
