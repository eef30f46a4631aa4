"""Consent to a model file that is code, asked for in a dialog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_wsi_heatmap.errors import UntrustedModelError

QUESTION = (
    "{kind} is code: it can do anything that you can.\n\n{path}\n\nsha256\n{sha256}\n\n"
    "Trust it only if you know who made it. Your answer is kept for exactly this content."
)


def consents(parent: QWidget | None, error: UntrustedModelError) -> bool:
    """Ask whether a file may be loaded; anything but a click on Trust is a no."""
    box = QMessageBox(parent)
    box.setObjectName("model-consent")
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Trust this model?")
    box.setTextFormat(Qt.TextFormat.PlainText)  # a path may look like HTML
    box.setText(QUESTION.format(kind=error.kind, path=error.where, sha256=error.sha256))
    trust = box.addButton("Trust", QMessageBox.ButtonRole.AcceptRole)
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(cancel)
    box.setEscapeButton(cancel)
    box.exec()
    clicked = box.clickedButton()
    box.deleteLater()
    return clicked is not None and clicked == trust
