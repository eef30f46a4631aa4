"""The dock: choose a slide and a model, press Run, watch.

A view only: what runs belongs to a `HeatmapJob`, which goes on when the dock is closed. A dock
that is opened again shows it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, PushButton
from qtpy.QtCore import QTimer

from napari_wsi_heatmap._napari.form import SettingsForm
from napari_wsi_heatmap._napari.guarded import bare, guarded
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.notify import tell_error
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.run_panel import RunPanel
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from napari_wsi_heatmap._napari.job import HeatmapJob

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
        self._tissue = PushButton(text="Show tissue", tooltip="as a layer that can be painted on")
        super().__init__(widgets=[self._form, self._tissue, self._panel], labels=False)
        self.native.layout().addStretch()
        self.native.setMinimumWidth(NARROWEST)
        self._panel.run_pressed.connect(self.run)
        self._tissue.changed.connect(self.show_tissue)
        self._form.changed.connect(self._say_hint)
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
            settings = self._form.settings()
            model = MODELS.spec(self._form.model_name)
            start_job(self._viewer, self._form.slide_layer, model, **settings)
        except HeatmapError as error:
            tell_error(error)
            self._panel.hint(str(error), can_run=True)

    @guarded
    def show_tissue(self, *_: Any) -> None:
        """Show what the fields call tissue; an error is told, and the fields stay."""
        from napari_wsi_heatmap._napari.tissue_view import show_tissue

        try:
            settings = self._form.settings()
            if settings["window"] is None:
                settings["window"] = MODELS.learn(self._form.model_name).window
            show_tissue(self._viewer, self._form.slide_layer, settings)
        except HeatmapError as error:
            tell_error(error)

    @guarded
    def reset_choices(self, *_: Any) -> None:
        """Follow the viewer's layers; napari calls this whenever they change."""
        if not self._gone:
            self._form.refresh_choices()
            self._say_hint()

    @guarded
    def _say_hint(self, *_: Any) -> None:
        self._panel.hint(self._form.hint, can_run=self._form.slide_layer is not None)

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
