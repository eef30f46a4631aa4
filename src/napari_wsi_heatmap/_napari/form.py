"""What the dock asks for: slide, model, and the settings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, FileEdit
from napari.layers import Image, Labels, Shapes

from napari_wsi_heatmap._napari.fields import (
    align_labels,
    choice,
    microns_of,
    number,
    pixels_of,
    show_text,
    text_line,
)
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.marked_tissue import marked_tissue
from napari_wsi_heatmap._napari.model_field import ModelField
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.more_fields import DEFAULTS
from napari_wsi_heatmap._napari.region import drawn_region, on_slide, view_box
from napari_wsi_heatmap._napari.slide_source import refusal, source_of
from napari_wsi_heatmap._napari.threshold_field import ThresholdField, has_threshold
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.errors import GridError, HeatmapError

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_wsi_heatmap._napari.slide_source import SlideSource

WIDEST = "resolution"
"""Of the labels."""
TISSUE = [
    ("otsu (saturation)", "otsu"),
    ("none (all)", "none"),
    ("variance (1-pass)", "variance"),
    ("variance2 (2-pass)", "variance2"),
]
RULES = (
    "Which windows are computed. otsu: where colours are saturated. variance: where the pixels of "
    "a window differ. variance2: the same of squares of 256 px, then of tiles of 64 px in them."
)
COLOURS = [("as stored", False), ("sRGB by the ICC profile", True)]
BY_MPP, BY_LEVEL = "µm per pixel", "level"
WHOLE, VIEW = "whole slide", "current view"


class SettingsForm(Container):
    """Fields for everything that a run needs; knows the viewer's layers, not the run.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._filled: tuple[Any, ...] = ()
        self._slide = choice("slide", self._slides)
        self._models = ModelField()
        self._model = self._models.chosen
        self._about = text_line("about", label=" ")
        self._window = number(
            "window", "the model's own", "px: side of what the model sees; or 224 x 112"
        )
        self._stride = number("stride", "as the window", "px: from one window to the next")
        self._scale = choice("resolution", [BY_MPP, BY_LEVEL])
        self._mpp = number("µm/px", "the model's own", "at which the model sees the slide")
        self._level = choice("level", self._levels)
        self._colours = choice("colours", COLOURS, "that the model sees", value=DEFAULTS["icc"])
        self._tissue = choice("tissue", self._tissues, RULES, value=DEFAULTS["tissue"])
        self._threshold = ThresholdField()
        self._counted = text_line("counted", label=" ")
        self._region = choice("region", self._regions)
        self._device = choice("device", lambda _: WARM_UP.devices, value=DEFAULTS["device"])
        self._out = FileEdit(label="save in", mode="d", nullable=True)
        self._out.choose_btn.text = "…"
        self._out.choose_btn.max_width = 40
        self._out.line_edit.native.setPlaceholderText("kept in memory")
        self._out.tooltip = "Folder for <slide>-<model>.zarr; a run found there goes on."
        super().__init__(
            widgets=[
                self._slide, self._models, self._about, self._window, self._stride, self._scale,
                self._mpp, self._level, self._colours, self._tissue, self._threshold,
                self._counted, self._region, self._device, self._out,
            ],
            labels=True,
        )  # fmt: skip
        self.margins = (0, 0, 0, 0)
        align_labels(self, WIDEST)
        show_text(self._counted, "")
        self._slide.changed.connect(self._on_slide)
        self._model.changed.connect(self._on_model)
        self._scale.changed.connect(self._on_scale)
        self._tissue.changed.connect(self._threshold.follow)
        self.refresh_choices()

    @guarded
    def refresh_choices(self) -> None:
        """Follow the layers, the models and the devices."""
        self.reset_choices()
        self._on_slide()
        self._on_model()

    @property
    def slide_layer(self) -> Image | None:
        """The layer to run over."""
        layer: Image | None = self._slide.value
        return layer

    @property
    def model_name(self) -> str:
        """Name of the model to run."""
        return str(self._model.value)

    @property
    def has_threshold(self) -> bool:
        """Whether the tissue rule that is chosen has a threshold."""
        return has_threshold(self._tissue.value)

    def tell_tissue(self, text: str, threshold: float | None) -> None:
        """Say what the mask that is shown holds, and the threshold in force if none is given."""
        show_text(self._counted, text)
        self._threshold.tell(threshold)

    @property
    def hint(self) -> str:
        """What stands in the way of a run, or the user should know before one."""
        layer = self.slide_layer
        if layer is None:
            return self._why_no_slide()
        if not self._calibrated:
            return "This slide states no µm per pixel: the model gets a level as it is."
        return ""

    def settings(self, beside: str | None = None) -> dict[str, Any]:
        """Keyword arguments for a run.

        Parameters
        ----------
        beside : str, optional
            Name of a second model: then the output is a folder of two.

        Raises
        ------
        HeatmapError
            If no slide is chosen, or the region holds nothing.
        """
        if self.slide_layer is None:
            raise HeatmapError(self._why_no_slide())
        by_level = self._scale.value == BY_LEVEL
        return {
            "window": pixels_of(self._window),
            "stride": pixels_of(self._stride),
            "mpp": None if by_level else microns_of(self._mpp),
            "level": self._level.value if by_level else None,
            "icc": self._colours.value,
            "tissue": self._rule(),
            "roi": self._roi(),
            "device": self._device.value,
            "out": self._store(beside),
        }

    def _rule(self) -> Any:
        if self.has_threshold:
            return self._threshold.rule
        return marked_tissue(self._tissue.value, self.slide_layer)

    def _roi(self) -> Any:
        region, layer = self._region.value, self.slide_layer
        if isinstance(region, Shapes):
            return drawn_region(region, layer)
        return self._view() if region == VIEW else None

    def _view(self) -> Any:
        layer = self.slide_layer
        box = view_box(self._viewer, layer)
        seen = None if box is None else on_slide(box, source_of(layer).shapes[0])
        if seen is None:
            raise GridError("the view shows nothing of the slide", do="pan to it, or run it whole")
        return seen

    def _store(self, beside: str | None) -> Path | None:
        folder = self._out.value
        if folder is None or not str(folder).strip():
            return None
        folder = folder.expanduser().absolute()
        if folder.suffix == ".zarr":
            return folder
        slide = Path(source_of(self.slide_layer).name).stem
        name = f"{_file_name(slide)}-{_file_name(self.model_name)}"
        return folder / (f"{name}.zarr" if beside is None else f"{name}-{_file_name(beside)}")

    def _slides(self, _: Any = None) -> list[tuple[str, Image]]:
        usable = [layer for layer in self._viewer.layers if refusal(layer) is None]
        return [(layer.name, layer) for layer in reversed(usable)]

    def _regions(self, _: Any = None) -> list[Any]:
        drawn = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        return [(WHOLE, WHOLE), (VIEW, VIEW), *((f"in {layer.name}", layer) for layer in drawn)]

    def _tissues(self, _: Any = None) -> list[Any]:
        marked = [layer for layer in self._viewer.layers if isinstance(layer, (Labels, Shapes))]
        return [*TISSUE, *((f"in {layer.name}", layer) for layer in marked)]

    def _levels(self, _: Any = None) -> list[tuple[str, int]]:
        layer = self._slide.value
        return [("0: the finest", 0)] if layer is None else _level_lines(source_of(layer))

    def _why_no_slide(self) -> str:
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        reasons = [f"{layer.name}: {refusal(layer)}" for layer in images if _is_candidate(layer)]
        if reasons:
            return "No layer can be used as a slide. " + "; ".join(reasons) + "."
        return "Drop a slide on the viewer, or open the sample: File > Open Sample."

    @guarded
    def _on_slide(self, _: Any = None) -> None:
        self._level.reset_choices()
        self._prefill()

    @guarded
    def _on_model(self, _: Any = None) -> None:
        show_text(self._about, MODELS.describe(self.model_name))
        self._prefill()

    def _prefill(self) -> None:
        """Say what the model wants, once for each choice: what the user changes then stays."""
        known = WARM_UP.ready.is_set()
        choice_now = (self.slide_layer, self.model_name, known)
        if choice_now == self._filled:
            return
        self._filled = choice_now
        self._offer_colours()
        facts = MODELS.learn(self.model_name) if known else None
        if facts is not None:
            self._window.value = _sides(facts.window)
            self._mpp.value = "" if facts.mpp is None else str(facts.mpp)
        wants_mpp = facts is None or facts.mpp is not None
        self._scale.value = BY_MPP if wants_mpp and self._calibrated else BY_LEVEL
        self._on_scale()

    def _offer_colours(self) -> None:
        """Ask for colours only where the slide's file has a profile."""
        offered = self.slide_layer is not None and _has_profile(source_of(self.slide_layer))
        self._colours.visible = offered
        if not offered:
            self._colours.value = DEFAULTS["icc"]

    @property
    def _calibrated(self) -> bool:
        layer = self.slide_layer
        return layer is None or source_of(layer).mpp is not None

    @guarded
    def _on_scale(self, _: Any = None) -> None:
        by_level = self._scale.value == BY_LEVEL
        self._level.visible, self._mpp.visible = by_level, not by_level


def _sides(window: tuple[int, int]) -> str:
    return str(window[0]) if window[0] == window[1] else f"{window[0]} x {window[1]}"


def _has_profile(source: SlideSource) -> bool:
    try:
        return source.slide is not None and source.slide.icc_profile is not None
    except HeatmapError:
        return False


def _level_lines(source: SlideSource) -> list[tuple[str, int]]:
    """A line about each level: its size, and µm per pixel where known."""
    lines = []
    for level, (height, width) in enumerate(source.shapes):
        line = f"{level}: {height:,} × {width:,} px"
        if source.mpp is not None:
            line += f", {source.mpp[0] * source.shapes[0][0] / height:.3g} µm/px"
        lines.append((line, level))
    return lines


def _is_candidate(layer: Any) -> bool:
    """Whether somebody may have meant this layer as a slide; a heatmap is none."""
    return "job" not in layer.metadata


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text).strip("._") or "run"
