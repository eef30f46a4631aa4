"""The layer of a job: added when the run is planned, shown when there is something to show.

Adding a layer holds the GUI thread for 50 ms, and several times that if it has to share Python
with a run. So the run waits for it, before its first window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_wsi_heatmap._napari.failed_layer import put_beside
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.live_layer import LiveLayer
from napari_wsi_heatmap._napari.qt_window import paint_later

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image, Layer

    from napari_wsi_heatmap._napari.failed_layer import FailedLayer
    from napari_wsi_heatmap._napari.viewer_watch import ViewerWatch
    from napari_wsi_heatmap._napari.worker import RunTask
    from napari_wsi_heatmap.heatmap import Heatmap

STEP_MS = 5
"""ms between making, adding and painting the layer, in which the mouse is answered."""
COLORBAR_MS = 500
"""ms after the end until napari's colour bar: making it holds the GUI for a moment, and until
then the dock shows one."""


class JobLayer:
    """Adds one layer, once: when it is removed it stays away.

    Parameters
    ----------
    watch : ViewerWatch
    slide_layer : Layer
    name : str
    metadata : dict
        Put into the layer, beside the heatmap and the names of its channels.
    in_dock : callable
        Whether a dock shows what the colours mean; else the canvas does from the start.

    Attributes
    ----------
    layer : Image or None
        None until it shows something.
    heatmap : Heatmap or None
        What it shows.
    unit : str
        Of the values.
    """

    def __init__(
        self,
        watch: ViewerWatch,
        slide_layer: Layer,
        name: str,
        metadata: dict[str, Any],
        in_dock: Callable[[], bool],
    ) -> None:
        self._watch, self._slide_layer = watch, slide_layer
        self._name, self._metadata, self._in_dock = name, metadata, in_dock
        self.layer: Image | None = None
        self.heatmap: Heatmap | None = None
        self._heatmap: Heatmap | None = None
        self.unit = ""
        self._live: LiveLayer | None = None
        self._failed: FailedLayer | None = None
        self._put_once = False

    @property
    def channel(self) -> int:
        """Which channel is shown; set it to see another."""
        return 0 if self._live is None else self._live.channel

    @channel.setter
    def channel(self, channel: int) -> None:
        if self._live is not None:
            self._live.show_channel(channel)

    @property
    def rough(self) -> bool:
        """Whether windows that are missing look like others nearby."""
        return self._live is not None and self._live.rough

    def owns(self, layer: Layer) -> bool:
        """Whether a layer is this one, shown already or not."""
        return self._live is not None and layer is self._live.layer

    @guarded
    def add(self, task: RunTask) -> None:
        """Make the layer of a run that is planned; then put it into the viewer, still hidden."""
        self._make(task)
        QTimer.singleShot(STEP_MS, lambda: self._put(task))

    def _make(self, task: RunTask) -> None:
        run, sample = task.run, task.sample
        if self._live is None and run is not None and sample is not None:
            self._heatmap, self.unit = run.heatmap, run.plan.model.unit
            metadata = {"heatmap": self._heatmap, "names": run.plan.names, **self._metadata}
            self._live = LiveLayer(run, sample, self._slide_layer, self._name, metadata, task.rough)

    @guarded
    def _put(self, task: RunTask) -> None:
        viewer = self._watch.viewer
        wanted = self._live is not None and not self._put_once and self._watch.shows_slide
        if wanted and viewer is not None:
            self._put_once = True
            paint_later(viewer, STEP_MS)
            viewer.add_layer(self._live.layer)
        task.added.set()

    def draw(self, task: RunTask) -> None:
        """Show the layer, or draw what is new in it; there must be something to show."""
        if self._live is None or not self._put_once:
            return
        if self.layer is None:
            self.layer, self.heatmap = self._live.layer, self._heatmap
            self.layer.visible = True
            if not self._in_dock():
                self.show_colorbar()
        self._live.refresh()
        self._show_failed(task)

    def _show_failed(self, task: RunTask) -> None:
        """Hatch windows that failed since the last look; the first brings a layer of its own."""
        viewer = self._watch.viewer
        if self._live is None or viewer is None or not task.failed:
            return
        index = np.concatenate([task.failed.popleft() for _ in range(len(task.failed))])
        if self._failed is None:
            self._failed = self._live.failed_layer()
            self._failed.add(index)
            put_beside(viewer, self._failed.layer)
        else:
            self._failed.add(index)

    def finish(self, task: RunTask) -> None:
        """Show the last of it, and what the record says now; nothing, if there is nothing."""
        if task.begun:
            self._make(task)
            self._put(task)
            self.draw(task)
        self._put_once = True  # what is put off comes too late now
        viewer = self._watch.viewer
        if self._live is None or self._heatmap is None or task.run is None:
            return
        if self.layer is None and viewer is not None and self._live.layer in viewer.layers:
            viewer.layers.remove(self._live.layer)
        self._heatmap.run = dict(task.run.record)
        self._live.finish()
        QTimer.singleShot(COLORBAR_MS, self.show_colorbar)

    @guarded
    def show_colorbar(self) -> None:
        """Show napari's colour bar on the canvas."""
        viewer = self._watch.viewer
        if viewer is not None and self.layer is not None and self.layer in viewer.layers:
            paint_later(viewer, STEP_MS)
            self.layer.colorbar.visible = True
