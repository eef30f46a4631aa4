"""A live run of an encoder and a MIL model; what is new is what it says of the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.job import HeatmapJob
from napari_wsi_heatmap._napari.mil_live import MilTask
from napari_wsi_heatmap._napari.off_gui import off_gui

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.mil.sofar import SoFar
    from napari_wsi_heatmap.models.mil.model import MilModel


class MilJob(HeatmapJob):
    """Its first layer is the encoder's, hidden; the one that is seen is attention.

    Parameters
    ----------
    *args
        As for `HeatmapJob`.
    mil : MilModel
    attention : str or None
        Definition of the score.
    branch : int or None
        Class whose attention is drawn; None: the one that is predicted.
    how : str
        How scores are drawn.

    Attributes
    ----------
    result : MilResult or None
        Of the whole bag, at the end.
    so_far : SoFar or None
        What the model says by now.
    """

    def __init__(
        self, *args: Any, mil: MilModel, attention: str | None, branch: int | None, how: str
    ) -> None:
        super().__init__(*args)
        _, _, source, model, settings, names = args
        self._task: MilTask = MilTask(
            *(self.title, source, model, self._control, settings, names),
            mil=mil,
            attention=attention,
            branch=branch,
            how=how,
        )
        self.checkpoint, self.facts = mil.path, mil.facts
        self.result: MilResult | None = None
        self._so_far: SoFar | None = None

    @property
    def so_far(self) -> SoFar | None:
        """What the model says of the bag so far."""
        return self._so_far or self._task.so_far

    @property
    def mil_layer(self) -> Image | None:
        """The layer of attention, None until it shows something."""
        layers = (la for la in self.layers if "mil" in la.metadata["heatmap"].run)
        return next(layers, None)

    def span_colours(self) -> None:
        """Let the colours span what they mean, while the run goes on."""
        layer, drawing = self.mil_layer, self._task.mil_map
        if layer is None or drawing is None or self.over:
            return
        if tuple(layer.contrast_limits) != drawing.colours:
            layer.contrast_limits = drawing.colours

    def choose(self, branch: int | None, how: str) -> None:
        """Draw another class, or another way, from now on; nothing is scored again."""
        drawing = self._task.mil_map
        if drawing is not None:
            drawing.choose(branch, how)
            off_gui(drawing.redraw, lambda _: None, f"{self.title}: it cannot be drawn")

    @guarded
    def _on_finished(self) -> None:
        self.result, self._so_far = self._task.result, self._task.so_far
        super()._on_finished()
