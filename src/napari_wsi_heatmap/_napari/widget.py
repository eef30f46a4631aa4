"""The dock: choose a slide and a model, press Run, watch.

A view only: what runs belongs to a `HeatmapJob`, which goes on when the dock is closed. A dock
that is opened again shows it.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, PushButton
from qtpy.QtCore import QTimer

from napari_wsi_heatmap._napari.class_switch import ClassSwitch
from napari_wsi_heatmap._napari.cohort_panel import CohortSection
from napari_wsi_heatmap._napari.feature_fields import FeatureSection
from napari_wsi_heatmap._napari.form import WIDEST, SettingsForm
from napari_wsi_heatmap._napari.guarded import bare, guarded
from napari_wsi_heatmap._napari.inspect_sections import InspectSections
from napari_wsi_heatmap._napari.mil_section import MilSection, WhatRuns
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.more_fields import MoreFields
from napari_wsi_heatmap._napari.notify import tell_error
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.run_panel import RunPanel
from napari_wsi_heatmap._napari.scrolled import Scrolled
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from napari_wsi_heatmap._napari.job import HeatmapJob
    from napari_wsi_heatmap._napari.live_tissue import LiveTissue

NARROWEST = 280
"""px at which every field can still be read."""


class HeatmapWidget(Container):
    """Dock widget of the plugin.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        self._viewer, self._gone = bare(napari_viewer), False
        self._form = SettingsForm(self._viewer)
        self._panel = RunPanel()
        self._shows = ClassSwitch(self._viewer)
        self._more = MoreFields(WIDEST)
        self._tissue = PushButton(
            text="Show tissue", tooltip="What the rule finds, as a layer that can be painted on."
        )
        self._of_run = PushButton(
            text="Tissue of the run",
            tooltip="The windows that the heatmap was made of, as a layer that can be painted on.",
        )
        buttons = Container(widgets=[self._tissue, self._of_run], layout="horizontal", labels=False)
        buttons.margins = (0, 0, 0, 0)
        self._fields = Container(widgets=[self._form, self._more], labels=False)
        self._fields.append(InspectSections(self._viewer))
        self._fields.append(FeatureSection(self._viewer))
        self._mil = MilSection(self._viewer, self._what_runs)
        self._fields.append(self._mil)
        self._fields.append(CohortSection(self._viewer, self._what_runs))
        self._fields.margins = (0, 0, 0, 0)
        super().__init__(widgets=[buttons, self._panel, self._shows], labels=False)
        self.native.layout().insertWidget(0, Scrolled(self._fields.native))
        self.native.layout().addStretch()
        self.native.setMinimumWidth(NARROWEST)
        self._panel.run_pressed.connect(self.run)
        self._tissue.changed.connect(self.show_tissue)
        self._of_run.changed.connect(self.show_run_tissue)
        self._form.changed.connect(self._say_hint)
        self._form.changed.connect(self._follow_threshold)
        self._more.changed.connect(self._follow_threshold)
        MODELS.changed.connect(self.reset_choices)
        JOBS.started.connect(self._on_started)
        self.native.destroyed.connect(self._on_destroyed)
        self._show_latest()
        self._say_hint()
        # First the dock appears, then the slow imports begin.
        QTimer.singleShot(0, _warm_up(self))

    @guarded
    def run(self) -> None:
        """Start a run with what the fields say; an error is told, and the fields stay."""
        from napari_wsi_heatmap._napari.start import start_job

        try:
            settings = self._form.settings(self._more.beside) | self._more.settings()
            settings |= self._more.of_model()
            start_job(self._viewer, self._form.slide_layer, self._models(), **settings)
            self._hide_tissue()
        except HeatmapError as error:
            tell_error(error)
            self._panel.hint(str(error), can_run=True)

    def _what_runs(self) -> WhatRuns:
        """What the fields say of a run of one model."""
        form, more = self._form, self._more
        return WhatRuns(
            form.slide_layer,
            form.model_name,
            lambda: form.settings() | more.settings() | more.of_model(),
        )

    def _models(self) -> Any:
        """What `load_model` takes for the model, or a list of two to be compared."""
        name, beside = self._form.model_name, self._more.beside
        if beside is None:
            return MODELS.spec(name)
        if beside == name:
            raise HeatmapError(f"{name} is compared with itself", do="choose another model")
        return [MODELS.spec(name), MODELS.spec(beside)]

    def _hide_tissue(self) -> None:
        """A mask tints the heatmap that lies over it: colours would be read wrongly."""
        from napari_wsi_heatmap._napari.tissue_view import hide_tissue

        if self._form.slide_layer is not None:
            hide_tissue(self._viewer, self._form.slide_layer.name)
            self._follow_threshold()

    @guarded
    def show_tissue(self, *_: Any) -> None:
        """Show what the fields call tissue; an error is told, and the fields stay."""
        from napari_wsi_heatmap._napari.tissue_view import show_tissue

        try:
            layer, settings = self._form.slide_layer, self._tissue_settings()
            show_tissue(self._viewer, layer, settings, self._follow_threshold)
        except HeatmapError as error:
            tell_error(error)

    @guarded
    def show_run_tissue(self, *_: Any) -> None:
        """Show which windows the heatmap that is selected, or the topmost, was made of."""
        from napari_wsi_heatmap._napari.run_tissue import show_run_tissue

        try:
            show_run_tissue(self._viewer)
        except HeatmapError as error:
            tell_error(error)

    @guarded
    def _follow_threshold(self, *_: Any) -> None:
        """Show the mask of the threshold that the fields say, if its values are at hand."""
        from napari_wsi_heatmap._napari.live_tissue import count_text

        live = None if self._gone else self._moved_tissue()
        if live is not None:
            self._form.tell_tissue(count_text(live.values), live.values.automatic)
        elif not self._gone:
            self._form.tell_tissue("", None)

    def _moved_tissue(self) -> LiveTissue | None:
        from napari_wsi_heatmap._napari.live_tissue import live_tissue
        from napari_wsi_heatmap._napari.tissue_view import move_threshold

        layer = self._form.slide_layer
        if layer is None or not self._form.has_threshold or not live_tissue(self._viewer, layer):
            return None
        # What is half typed is told when somebody presses a button.
        with suppress(HeatmapError):
            return move_threshold(self._viewer, layer, self._tissue_settings())
        return None

    def _tissue_settings(self) -> dict[str, Any]:
        """What tissue is looked for with; windows as the model wants them where none are given."""
        settings = self._form.settings() | self._more.settings()
        if settings["window"] is None:
            settings["window"] = MODELS.learn(self._form.model_name).window
        if settings["mpp"] is None and settings["level"] is None:
            settings["mpp"] = MODELS.learn(self._form.model_name).mpp
        return settings

    @guarded
    def reset_choices(self, *_: Any) -> None:
        """Follow the viewer's layers; napari calls this whenever they change."""
        if not self._gone:
            self._form.refresh_choices()
            self._more.reset_choices()
            self._mil.reset_choices()
            self._say_hint()

    @guarded
    def _say_hint(self, *_: Any) -> None:
        self._panel.hint(self._form.hint, can_run=self._form.slide_layer is not None)
        self._of_run.enabled = any("heatmap" in layer.metadata for layer in self._viewer.layers)

    @guarded
    def _on_destroyed(self, *_: Any) -> None:
        """Qt has deleted the dock; whatever still calls this object must not touch it."""
        self._gone = True
        MODELS.changed.disconnect(self.reset_choices, missing_ok=True)
        JOBS.started.disconnect(self._on_started, missing_ok=True)
        self._panel.leave()

    def _show_latest(self) -> None:
        job = JOBS.latest(self._viewer)
        if job is not None:
            self._panel.follow(job)

    @guarded
    def _on_started(self, job: HeatmapJob) -> None:
        if job.viewer is self._viewer:
            self._panel.follow(job)


def _warm_up(widget: HeatmapWidget) -> Any:
    """Fill in what torch knows, unless the dock is gone by then."""
    known = weakref.ref(widget)

    def fill_in() -> None:
        dock = known()
        if dock is not None:
            dock.reset_choices()

    return lambda: WARM_UP.start(guarded(fill_in))
