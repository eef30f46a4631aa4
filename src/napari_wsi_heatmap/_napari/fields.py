"""Fields of the dock whose text may be long and whose value may be left to the model."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import ComboBox, FloatSpinBox, Label, SpinBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QSizePolicy


def choice(label: str, choices: Any, tooltip: str = "", **options: Any) -> ComboBox:
    """A list to choose from; long entries are cut in the field, not made the dock's width."""
    box = ComboBox(label=label, choices=choices, tooltip=tooltip, **options)
    box.native.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    box.native.setMinimumContentsLength(6)
    box.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def pixels(label: str, empty: str, tooltip: str = "") -> SpinBox:
    """A whole number of pixels; at 0 it shows `empty`, and means None."""
    box = SpinBox(label=label, min=0, max=65536, value=0, tooltip=tooltip)
    box.native.setSpecialValueText(empty)
    return box


def microns(label: str, empty: str, tooltip: str = "") -> FloatSpinBox:
    """µm per pixel; at 0 it shows `empty`, and means None."""
    box = FloatSpinBox(label=label, min=0.0, max=100.0, step=0.05, value=0.0, tooltip=tooltip)
    box.native.setDecimals(4)
    box.native.setSpecialValueText(empty)
    return box


def given(field: SpinBox | FloatSpinBox) -> Any:
    """A field's number, None where it was left to the model."""
    return field.value or None


def text_line(name: str) -> Label:
    """A line of text that wraps; never taken for HTML."""
    line = Label(name=name, value="")
    line.native.setWordWrap(True)
    line.native.setTextFormat(Qt.TextFormat.PlainText)
    line.native.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    line.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.MinimumExpanding)
    return line


def show_text(line: Label, text: str) -> None:
    """Set a line's text; an empty one takes no room."""
    if line.value != text:
        line.value = text
        line.tooltip = text
    if line.visible != bool(text):
        line.visible = bool(text)
