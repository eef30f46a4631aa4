"""A small table of texts that is read, and copied from, not edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS = 6
"""More of them scroll."""


class ValueTable(QTableWidget):
    """Names on the left take what room there is; numbers are as wide as they must be."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ContiguousSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(round(1.5 * self.fontMetrics().height()))
        self.setFixedHeight(0)

    def show_rows(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], tips: Sequence[str] = ()
    ) -> None:
        """Show rows of texts, and what is said of each under the mouse; none take no room."""
        self.setColumnCount(len(headings))
        self.setHorizontalHeaderLabels(list(headings))
        self.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                tip = tips[row] if tips else text
                self.setItem(row, column, _item(text, tip, right=column > 0))
        header = self.horizontalHeader()
        for column in range(len(headings)):
            mode = QHeaderView.ResizeMode
            header.setSectionResizeMode(column, mode.ResizeToContents if column else mode.Stretch)
        self.setFixedHeight(self._wanted_height() if rows else 0)

    def _wanted_height(self) -> int:
        shown = min(MOST_ROWS, self.rowCount())
        height = self.horizontalHeader().sizeHint().height() + 2 * self.frameWidth()
        return height + sum(self.rowHeight(row) for row in range(shown)) + 2

    def minimumSizeHint(self) -> QSize:
        """Narrow enough for any dock."""
        return QSize(60, 0)

    def sizeHint(self) -> QSize:
        """It takes the width that it is given."""
        return QSize(60, self.height())


def _item(text: str, tip: str, *, right: bool) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setToolTip(tip)
    side = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
    item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
    return item
