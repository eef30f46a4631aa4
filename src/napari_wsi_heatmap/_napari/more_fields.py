"""Settings of a run that few need to change, folded away until somebody asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

from magicgui.widgets import ComboBox, Container, PushButton

from napari_wsi_heatmap._napari.fields import align_labels, choice, count_of, number
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.output_fields import OutputFields
from napari_wsi_heatmap.settings import RunSettings

DEFAULTS = {field.name: field.default for field in dataclass_fields(RunSettings)}
FOLDED, UNFOLDED = "▸ More settings", "▾ More settings"
BESIDE = (
    "A second model over the same windows, which are read once; a layer shows what they differ by."
)


@dataclass(frozen=True)
class Choice:
    """A setting with a few values to choose from."""

    name: str
    """Of the setting, and of its field."""
    tooltip: str
    choices: tuple[tuple[str, Any], ...]
    """(text, value)"""
    label: str = ""
    """Of its field; else the name."""


CHOICES = (
    Choice(
        "edge",
        "Windows that hang over the right and the lower border: filled up with the slide's "
        "background, moved inside, left out, or kept if their centre is inside.",
        (
            ("pad: filled up", "pad"),
            ("flush: moved in", "flush"),
            ("drop: left out", "drop"),
            ("centre: if inside", "centre"),
        ),
    ),
    Choice(
        "resize",
        "How windows get the model's µm per pixel; values differ a little.",
        (("pillow: exact", "pillow"), ("torch: faster", "torch")),
    ),
    Choice(
        "precision",
        "Of the model's arithmetic; values differ a little, a GPU is faster with 16 bits.",
        (("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")),
    ),
    Choice(
        "blend",
        "For models that give a map of each window, where windows overlap: the mean, the mean "
        "weighted by a gaussian around the middle of each, the largest, or the last value.",
        (("mean", "mean"), ("gaussian", "gaussian"), ("max", "max"), ("last", "last")),
    ),
    Choice(
        "disagreement",
        "For the same models: also keep, as a channel, how far windows differ where they overlap.",
        (("blended", False), ("and compared", True)),
        "overlaps",
    ),
)


class MoreFields(Container):
    """A button, and under it the fields that it folds and unfolds.

    Parameters
    ----------
    widest : str
        The widest label of the form around it.
    """

    def __init__(self, widest: str) -> None:
        self._button = PushButton(text=FOLDED, tooltip="How a run computes; the defaults are fine.")
        self._button.native.setFlat(True)
        self._button.native.setStyleSheet("text-align: left")
        self._batch = number("batch", "automatic", "Windows that the model gets at once.")
        self._choices: dict[str, ComboBox] = {
            field.name: choice(
                field.label or field.name, field.choices, field.tooltip, value=DEFAULTS[field.name]
            )
            for field in CHOICES
        }
        self._beside = choice("compare", _with_models, BESIDE)
        self._outputs = OutputFields()
        fields = [*self._outputs.fields, self._beside, *self._choices.values(), self._batch]
        self._fields = Container(widgets=fields, labels=True)
        self._fields.margins = (0, 0, 0, 0)
        super().__init__(widgets=[self._button, self._fields], labels=False)
        self.margins = (0, 0, 0, 0)
        align_labels(self._fields, widest)
        self._fields.visible = False
        self._button.changed.connect(self._fold)

    @property
    def beside(self) -> str | None:
        """Name of the model to compare with; None: with no other."""
        name: str | None = self._beside.value
        return name

    def of_model(self) -> dict[str, Any]:
        """Settings of the model, for a run: only those that were chosen."""
        return self._outputs.settings()

    def settings(self) -> dict[str, Any]:
        """Keyword arguments for a run.

        Raises
        ------
        GridError
            If the batch size is no number.
        """
        chosen: dict[str, Any] = {name: field.value for name, field in self._choices.items()}
        return chosen | {"batch_size": count_of(self._batch)}

    @guarded
    def _fold(self, _: Any = None) -> None:
        self._fields.visible = not self._fields.visible
        self._button.text = UNFOLDED if self._fields.visible else FOLDED


def _with_models(_: Any = None) -> list[tuple[str, str | None]]:
    return [("with no other", None), *((f"with {name}", name) for name in MODELS.names)]
