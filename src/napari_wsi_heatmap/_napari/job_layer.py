"""The layer of a job: made when there is something to show, drawn while more comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.live_layer import LiveLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image, Layer

    from napari_wsi_heatmap._napari.viewer_watch import ViewerWatch
    from napari_wsi_heatmap._napari.worker import RunTask
    from napari_wsi_heatmap.heatmap import Heatmap

STEP_MS = 5
"""ms between two steps, in which the mouse is answered."""
COLORBAR_MS = 500
"""ms after the end until napari's colour bar: making it holds the GUI for a moment, and until
then the dock shows one."""


class JobLayer:
    """Never adds a layer twice: one that was removed stays away.

    Parameters
    ----------
    watch : ViewerWatch
    slide_layer : Layer
    metadata : dict
        Put into the layer, beside the heatmap and the names of its channels.
    in_dock : callable
        Whether a dock shows what the colours mean; else the canvas does from the start.

    Attributes
    ----------
    layer : Image or None
        None until it is in the viewer.
    heatmap : Heatmap or None
    unit : str
        Of the values.
    """

    def __init__(
        self,
        watch: ViewerWatch,
        slide_layer: Layer,
        metadata: dict[str, Any],
        in_dock: Callable[[], bool],
    ) -> None:
        self._watch, self._slide_layer, self._metadata = watch, slide_layer, metadata
        self._in_dock = in_dock
        self.layer: Image | None = None
        self.heatmap: Heatmap | None = None
        self.unit = ""
        self._live: LiveLayer | None = None

    @property
    def channel(self) -> int:
        """Which channel is shown; set it to see another."""
        return 0 if self._live is None else self._live.channel

    @channel.setter
    def channel(self, channel: int) -> None:
        if self._live is not None:
            self._live.show_channel(channel)

    def show(self, task: RunTask) -> None:
        """Draw what is new; first of all, make the layer."""
        if self._live is None:
            self._make(task)
            QTimer.singleShot(STEP_MS, self.add)
        elif self.layer is not None:
            task.shown.set()
            self._live.refresh()

    def _make(self, task: RunTask) -> None:
        run, sample = task.run, task.sample
        if run is None or sample is None or not self._watch.shows_slide:
            return
        self.heatmap, self.unit = run.heatmap, run.plan.model.unit
        metadata = {"heatmap": self.heatmap, "names": run.plan.names, **self._metadata}
        self._live = LiveLayer(run, sample, self._slide_layer, metadata)

    @guarded
    def add(self) -> None:
        """Put the layer into the viewer, unless it is or was there."""
        viewer = self._watch.viewer
        if viewer is None or self._live is None or self.layer is not None:
            return
        if self._watch.shows_slide:
            self.layer = self._live.layer
            viewer.add_layer(self.layer)
            if not self._in_dock():
                self.show_colorbar()

    def finish(self, task: RunTask) -> None:
        """Show the last of it, and what the record says now."""
        if task.begun:
            self.show(task)
            self.add()
        if self._live is None or self.heatmap is None or task.run is None:
            return
        self.heatmap.run = dict(task.run.record)
        self._live.finish()
        QTimer.singleShot(COLORBAR_MS, self.show_colorbar)

    @guarded
    def show_colorbar(self) -> None:
        """Show napari's colour bar on the canvas."""
        viewer = self._watch.viewer
        if viewer is not None and self.layer is not None and self.layer in viewer.layers:
            self.layer.colorbar.visible = True
