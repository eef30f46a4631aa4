"""A section of the dock that is folded away until somebody asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, PushButton
from psygnal import Signal
from qtpy.QtCore import QPoint, QTimer
from qtpy.QtWidgets import QScrollArea

from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magicgui.widgets.bases import Widget

REVEAL_MS = (50, 200, 500)
"""When to scroll to what was just shown: Qt lays it out level by level, and may be kept waiting."""


class Folded(Container):
    """A button, and under it what it folds and unfolds.

    Parameters
    ----------
    title : str
        Of the button.
    tooltip : str
    widgets : sequence of Widget
        What is folded away at first.

    Attributes
    ----------
    turned : psygnal.Signal
        Emitted with True when it is unfolded, with False when it is folded.
    """

    turned = Signal(bool)

    def __init__(self, title: str, tooltip: str, widgets: Sequence[Widget]) -> None:
        self._title, self._gone = title, False
        self._button = PushButton(text=f"▸ {title}", tooltip=tooltip)
        self._button.native.setFlat(True)
        self._button.native.setStyleSheet("text-align: left")
        self._body = Container(widgets=widgets, labels=False)
        self._body.margins = (0, 0, 0, 0)
        super().__init__(widgets=[self._button, self._body], labels=False)
        self.margins = (0, 0, 0, 0)
        self._body.visible = False
        self._button.changed.connect(self._turn)
        self.native.destroyed.connect(self._on_destroyed)

    @property
    def unfolded(self) -> bool:
        """Whether it shows what is in it; set it to fold or unfold."""
        return self._button.text.startswith("▾")

    @unfolded.setter
    def unfolded(self, unfolded: bool) -> None:
        if unfolded != self.unfolded:
            self._button.text = f"{'▾' if unfolded else '▸'} {self._title}"
            self._body.visible = unfolded
            self.turned.emit(unfolded)
            if unfolded:
                self.reveal()

    def reveal(self) -> None:
        """Scroll the dock so that as much of this is seen as there is room for."""
        for wait in REVEAL_MS:
            QTimer.singleShot(wait, self._scroll)

    @guarded
    def _scroll(self) -> None:
        if self._gone:
            return
        parent = self.native.parentWidget()
        while parent is not None and not isinstance(parent, QScrollArea):
            parent = parent.parentWidget()
        if parent is None or not self.native.isVisible():
            return
        top = self.native.mapTo(parent.widget(), QPoint(0, 0)).y()
        bottom, bar = top + self.native.height(), parent.verticalScrollBar()
        # Its end, unless its beginning would go.
        bar.setValue(min(top, max(bar.value(), bottom - parent.viewport().height())))

    @guarded
    def _turn(self, _: Any = None) -> None:
        self.unfolded = not self.unfolded

    @guarded
    def _on_destroyed(self, *_: Any) -> None:
        """Qt has deleted it; whatever still calls this object must not touch it."""
        self._gone = True
        self.leave()

    def leave(self) -> None:
        """Want nothing any more; called when it is gone. For those who add something."""
