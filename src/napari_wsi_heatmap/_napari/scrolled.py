"""A part of the dock that scrolls where the window is too low for all of it."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QWidget

LOWEST = 120
"""px that it takes at least."""


class Scrolled(QScrollArea):
    """Takes the height of what it shows, no more; less if there is less.

    Parameters
    ----------
    shown : QWidget
        With a box layout.
    """

    def __init__(self, shown: QWidget) -> None:
        super().__init__()
        self.setWidget(shown)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setMinimumHeight(LOWEST)
        shown.layout().addStretch()

    def sizeHint(self) -> QSize:
        """As high as it must be, with text that wraps at this width, to need no bar."""
        layout = self.widget().layout()
        border = self.height() - self.viewport().height()  # of napari's style sheet
        bar = self.verticalScrollBar().sizeHint().width()
        hint = layout.totalSizeHint()
        if layout.hasHeightForWidth():
            # As if there were a bar: a bar that is there makes text wrap that else would not, and
            # would stay because of that.
            hint.setHeight(layout.totalHeightForWidth(self.width() - border - bar))
        return hint.expandedTo(layout.totalMinimumSize()) + QSize(border, border)

    def minimumSizeHint(self) -> QSize:
        """As wide as what it shows: it does not scroll sideways."""
        bar = self.verticalScrollBar()
        width = self.widget().minimumSizeHint().width()
        return QSize(width + (bar.sizeHint().width() if bar.isVisible() else 0), LOWEST)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for another height when fields come and go, or the width changes."""
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Resize):
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))
