"""Fields of the dock: long texts wrap or are cut, and an empty number is left to the model."""

from __future__ import annotations

import re
from typing import Any

from magicgui.widgets import ComboBox, Container, Label, LineEdit
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QSizePolicy

from napari_wsi_heatmap.errors import GridError


def choice(label: str, choices: Any, tooltip: str = "", **options: Any) -> ComboBox:
    """A list to choose from; long entries are cut in the field, not made the dock's width."""
    box = ComboBox(label=label, choices=choices, tooltip=tooltip, **options)
    box.native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.native.setMinimumContentsLength(6)
    box.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def number(label: str, empty: str, tooltip: str = "") -> LineEdit:
    """A number, or two; empty it shows `empty` in grey, and means None."""
    field = LineEdit(label=label, tooltip=tooltip)
    field.native.setPlaceholderText(empty)
    return field


def pixels_of(field: LineEdit) -> int | tuple[int, int] | None:
    """What was typed: "224", or "224 x 112" for (height, width).

    Raises
    ------
    GridError
        If it is neither.
    """
    words = re.split(r"\s*[x×,;]\s*|\s+", field.value.strip())
    if words == [""]:
        return None
    if len(words) > 2 or not all(word.isdecimal() for word in words):
        raise GridError(f"{field.label} is {field.value!r}", do="give whole pixels, such as 224")
    sides = [int(word) for word in words]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def count_of(field: LineEdit) -> int | None:
    """What was typed: a whole number.

    Raises
    ------
    GridError
        If it is none.
    """
    text = field.value.strip()
    if text and not text.isdecimal():
        raise GridError(f"{field.label} is {field.value!r}", do="give a whole number, such as 32")
    return int(text) if text else None


def microns_of(field: LineEdit) -> float | None:
    """What was typed: "0.5"; a comma will do.

    Raises
    ------
    GridError
        If it is no number.
    """
    text = field.value.strip().replace(",", ".")
    try:
        return float(text) if text else None
    except ValueError:
        raise GridError(f"{field.label} is {field.value!r}", do="give a number as 0.5") from None


def align_labels(form: Container, widest: str) -> None:
    """Give the labels of a form one width, that of the widest text in napari's font."""
    for field in form:
        label = field.native.parentWidget().layout().itemAt(0).widget()
        # napari's font comes with its style sheet, later, and is wider.
        label.setMinimumWidth(round(1.25 * label.fontMetrics().horizontalAdvance(widest)))


def text_line(name: str, **options: Any) -> Label:
    """A line of text that wraps; never taken for HTML."""
    line = Label(name=name, value="", **options)
    line.native.setWordWrap(True)
    line.native.setTextFormat(Qt.TextFormat.PlainText)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    policy.setHeightForWidth(True)
    line.native.setSizePolicy(policy)
    return line


def show_text(line: Label, text: str) -> None:
    """Set a line's text; an empty one takes no room."""
    if line.tooltip != text:
        line.value, line.tooltip = _breakable(text), text
    if line.visible != bool(text):
        line.visible = bool(text)


def _breakable(text: str) -> str:
    """Let long words such as paths break at their joints: Qt wraps only between words."""
    return re.sub(r"\S{20,}", lambda word: re.sub(r"([_/.\\-])", "\\1\u200b", word[0]), text)
