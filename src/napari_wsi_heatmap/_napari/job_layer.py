"""A layer of a job: added when the run is planned, shown when there is something to show.

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
    from collections import deque
    from collections.abc import Callable

    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap._napari.failed_layer import FailedLayer
    from napari_wsi_heatmap._napari.live_map import LiveMap
    from napari_wsi_heatmap._napari.viewer_watch import ViewerWatch
    from napari_wsi_heatmap.engine import Run
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
    live_map : LiveMap
    metadata : dict
        Put into the layer, beside the heatmap and the names of its channels.
    in_dock : callable
        Whether a dock shows what the colours mean; else the canvas does from the start.
    seen : bool
        Whether it is visible at first.

    Attributes
    ----------
    layer : Image or None
        None until it shows something.
    heatmap : Heatmap or None
        What it shows.
    names : tuple of str
        Of its channels.
    unit : str
        Of the values.
    """

    def __init__(
        self,
        watch: ViewerWatch,
        slide_layer: Layer,
        live_map: LiveMap,
        metadata: dict[str, Any],
        in_dock: Callable[[], bool],
        *,
        seen: bool = True,
    ) -> None:
        self._watch, self._in_dock, self._seen = watch, in_dock, seen
        self.layer: Image | None = None
        self.heatmap: Heatmap | None = None
        self.names, self.unit = live_map.names, live_map.unit
        metadata = {"heatmap": live_map.heatmap, "names": live_map.names, **metadata}
        self._live = LiveLayer(live_map, slide_layer, metadata)
        self._map: LiveMap | None = live_map  # until the end: it holds more than is shown then
        self._failed: FailedLayer | None = None
        self._put_once = self._has_bar = False
        self._live.layer.events.visible.connect(self._on_visible)

    @property
    def channel(self) -> int:
        """Which channel is shown; set it to see another."""
        return self._live.channel

    @channel.setter
    def channel(self, channel: int) -> None:
        self._live.show_channel(channel)

    @property
    def rough(self) -> bool:
        """Whether windows that are missing look like others nearby."""
        return self._live.rough

    def owns(self, layer: Layer) -> bool:
        """Whether a layer is this one, shown already or not."""
        return layer is self._live.layer

    def on_visible(self, act: Callable[[], None]) -> None:
        """Call `act` whenever the layer is shown or hidden."""
        self._live.layer.events.visible.connect(guarded(lambda event: act()))

    @property
    def there(self) -> bool:
        """Whether the layer is in the viewer, or still to be put there."""
        viewer = self._watch.viewer
        return not self._put_once or (viewer is not None and self._live.layer in viewer.layers)

    @guarded
    def put(self) -> None:
        """Put the layer into the viewer, still hidden."""
        viewer = self._watch.viewer
        if viewer is not None and not self._put_once and self._watch.shows_slide:
            self._put_once = True
            paint_later(viewer, STEP_MS)
            viewer.add_layer(self._live.layer)

    def draw(self) -> None:
        """Show the layer, or draw what is new in it; there must be something to show."""
        if self._map is None or not self._put_once:
            return
        if self.layer is None:
            self.layer, self.heatmap = self._live.layer, self._map.heatmap
            self.layer.visible = self._seen
        if self.there:
            self._live.refresh()
            self._show_failed(self._map.failed)

    def _show_failed(self, failed: deque[NDArray[np.int64]]) -> None:
        """Hatch windows that failed since the last look; the first brings a layer of its own."""
        viewer = self._watch.viewer
        if viewer is None or not failed:
            return
        index = np.concatenate([failed.popleft() for _ in range(len(failed))])
        if self._failed is None:
            self._failed = self._live.failed_layer()
            self._failed.add(index)
            put_beside(viewer, self._failed.layer)
        else:
            self._failed.add(index)

    def finish(self, run: Run | None) -> None:
        """Show the last of it, and what the record says now; nothing, if there is nothing."""
        self._put_once = True  # what is put off comes too late now
        viewer = self._watch.viewer
        if self._map is None or run is None:
            return
        if self.layer is None and viewer is not None and self._live.layer in viewer.layers:
            viewer.layers.remove(self._live.layer)
        self._map.end(run)
        self._map = None
        self._live.finish()
        QTimer.singleShot(COLORBAR_MS, self.show_colorbar)

    @guarded
    def _on_visible(self, event: Any) -> None:
        if self._map is None or not self._in_dock():
            self.show_colorbar()

    @guarded
    def show_colorbar(self) -> None:
        """Show napari's colour bar on the canvas, once the layer is seen: making one takes time."""
        viewer = self._watch.viewer
        seen = self.layer is not None and self.layer.visible and self.there
        if viewer is not None and seen and not self._has_bar:
            self._has_bar = True
            paint_later(viewer, STEP_MS)
            self.layer.colorbar.visible = True
