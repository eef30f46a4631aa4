"""The threshold of a tissue rule: a number, and a slider to find it with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Slider

from napari_wsi_heatmap._napari.fields import number
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.tissuerules.given import MOST_SATURATION, VARIANCE, plain_rule

if TYPE_CHECKING:
    from collections.abc import Callable

PER_DOUBLING = 20
"""Steps of the slider until a variance is twice as large."""
LARGEST_VARIANCE = 128**2
"""Of bytes, nearly: half of them 0, half 255."""
TEXT_WIDTH = 84
"""px: "automatic" in napari's font."""
TOOLTIP = "Above it lies tissue. Press Show tissue, then move it and watch the mask."


@dataclass(frozen=True)
class Scale:
    """What the positions of the slider mean."""

    what: str
    empty: str
    """Shown where no threshold is given."""
    steps: int
    threshold_at: Callable[[int], float]
    position_of: Callable[[float], float]


def _variance_at(position: int) -> float:
    return float(f"{2 ** (position / PER_DOUBLING):.3g}")


def _variance_position(threshold: float) -> float:
    return PER_DOUBLING * math.log2(max(threshold, 1))


VARIANCES = Scale(
    "variance",
    f"{VARIANCE:g}",
    round(PER_DOUBLING * math.log2(LARGEST_VARIANCE)),
    _variance_at,
    _variance_position,
)
SATURATIONS = Scale("saturation, 0 to 255", "automatic", MOST_SATURATION, float, float)
SCALES = {"otsu": SATURATIONS, "variance": VARIANCES, "variance2": VARIANCES}


def has_threshold(rule: Any) -> bool:
    """Whether a rule, as the dock offers it, has a threshold."""
    return isinstance(rule, str) and rule in SCALES


class ThresholdField(Container):
    """A number that may be left empty, and a slider beside it; each follows the other."""

    def __init__(self) -> None:
        self._rule = "otsu"
        self._text = number("", SATURATIONS.empty, TOOLTIP)
        self._text.native.setFixedWidth(TEXT_WIDTH)
        self._slider = Slider(readout=False, tooltip=TOOLTIP, max=SATURATIONS.steps)
        # Before the container tells anybody: one has followed the other by then.
        self._text.changed.connect(self._on_text)
        self._slider.changed.connect(self._on_slider)
        super().__init__(
            widgets=[self._text, self._slider],
            layout="horizontal",
            labels=False,
            label="threshold",
        )
        self.margins = (0, 0, 0, 0)

    def follow(self, rule: Any) -> None:
        """Ask for the threshold of another rule; take no room if it has none."""
        self.visible = has_threshold(rule)
        if not has_threshold(rule) or rule == self._rule:
            return
        self._rule = rule
        self._text.value = ""
        with self._slider.changed.blocked():
            self._slider.max = self._scale.steps
        self.tell(None)

    def tell(self, found: float | None) -> None:
        """Show, where none is given, which threshold is in force."""
        empty = self._scale.empty
        shown = empty if found is None or empty != "automatic" else f"auto: {found:g}"
        self._text.native.setPlaceholderText(shown)
        self._text.tooltip = f"{self._scale.what}: {TOOLTIP}"
        if not self._text.value:
            self._place(VARIANCE if found is None else found)

    @property
    def rule(self) -> str:
        """The rule with its threshold, such as "variance:80"; without one if none is given.

        Raises
        ------
        GridError
            If something is typed that cannot be a threshold.
        """
        text = self._text.value.strip().replace(",", ".")
        if not text:
            return self._rule
        try:
            rule: str = plain_rule(f"{self._rule}:{text}")
        except GridError:
            raise GridError(
                f"threshold is {self._text.value!r}", do=f"give a {self._scale.what}"
            ) from None
        return rule

    @property
    def _scale(self) -> Scale:
        return SCALES[self._rule]

    @guarded
    def _on_text(self, text: str) -> None:
        try:
            self._place(float(text.replace(",", ".")))
        except ValueError:
            return  # half typed

    @guarded
    def _on_slider(self, position: int) -> None:
        with self._text.changed.blocked():  # the text would put the slider elsewhere
            self._text.value = f"{self._scale.threshold_at(position):g}"

    def _place(self, threshold: float) -> None:
        if math.isfinite(threshold):
            position = round(self._scale.position_of(threshold))
            with self._slider.changed.blocked():
                self._slider.value = max(0, min(position, self._scale.steps))
