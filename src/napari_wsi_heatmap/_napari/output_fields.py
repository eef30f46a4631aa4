"""Fields of the dock about what is made of a model's outputs."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import LineEdit

from napari_wsi_heatmap._napari.fields import choice
from napari_wsi_heatmap.models.settings import DIHEDRAL, FLIPS, NONE

OUTPUT = (
    "Name or number of one class, or of what is drawn where the model returns several. Empty: all, "
    "and the list below the run chooses what is shown."
)
ACTIVATION = "What becomes of the model's outputs before they are drawn."
ACTIVATIONS = (
    ("the model's own", None),
    ("softmax", "softmax"),
    ("sigmoid", "sigmoid"),
    ("none", NONE),
)
VIEWS = (
    "Average several views of each window, mirrored or turned as well, and keep how much they "
    "differ; it takes as many times as long."
)
TTA = (("one", None), ("4: mirrored", FLIPS), ("8: also turned", DIHEDRAL))


class OutputFields:
    """Three fields, to be put among others.

    Attributes
    ----------
    fields : list of magicgui widgets
    """

    def __init__(self) -> None:
        self._output = LineEdit(label="output", tooltip=OUTPUT)
        self._output.native.setPlaceholderText("all")
        self._activation = choice("activation", ACTIVATIONS, ACTIVATION)
        self._views = choice("views", TTA, VIEWS)
        self.fields = [self._output, self._activation, self._views]

    def settings(self) -> dict[str, Any]:
        """Settings of the model that somebody has chosen, for a run."""
        chosen = {
            "output": _output_of(self._output.value.strip()),
            "activation": self._activation.value,
            "tta": self._views.value,
        }
        return {name: value for name, value in chosen.items() if value is not None}


def _output_of(text: str) -> int | str | None:
    if text.removeprefix("-").isdecimal():
        return int(text)
    return text or None
