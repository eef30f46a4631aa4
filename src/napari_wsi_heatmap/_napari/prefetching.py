"""Reading ahead of the camera, for layers that show a slide.

What follows the camera of a viewer keeps neither viewer, layer nor slide alive, and ends when one
of them goes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from qtpy.QtCore import QTimer

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.region import view_box
from napari_wsi_heatmap.prefetch import Glance, Motion, Prefetcher

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.region import Box
    from napari_wsi_heatmap.pyramid import Pyramid

LOOK_MS = 50
"""ms between two looks at a camera that moves."""

REST_S = 0.5
"""s after which a camera that has not moved is at rest."""

ZOOMS = 1.01
"""Ratio of two views from which one is a zoom of the other."""


class _Look(NamedTuple):
    at: float
    """s"""
    box: Box
    """(y0, x0, y1, x1), level-0 pixels."""


class CameraFollower:
    """Reads ahead of one viewer's camera for one layer.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Layer
        With a ``metadata["pyramid"]``, which may be replaced.
    """

    def __init__(self, viewer: ViewerModel, layer: Layer) -> None:
        self._viewer, self._layer = ref(viewer), ref(layer)
        self._last: _Look | None = None
        self._due = False
        self._prefetcher: Prefetcher | None = None
        self._of: ref[Pyramid] | None = None

    def begin(self) -> None:
        """Follow from now on; nothing is read before the camera moves."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.scene.camera.events.connect(self._moved)
            viewer.layers.events.removed.connect(self._removed)

    def leave(self) -> None:
        """Follow no longer, and read nothing more."""
        viewer, layer = self._viewer(), self._layer()
        if viewer is not None:
            viewer.scene.camera.events.disconnect(self._moved)
            viewer.layers.events.removed.disconnect(self._removed)
        if self._prefetcher is not None:
            self._prefetcher.stop()
        pyramid = None if layer is None else layer.metadata.get("pyramid")
        if pyramid is not None:
            pyramid.stop_reading()
        self._viewer = _gone

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done: all that was worth it has been read."""
        return not self._due and (self._prefetcher is None or self._prefetcher.idle)

    @guarded
    def _moved(self, event: Any) -> None:
        if not self._due:
            self._due = True
            # The canvas is drawn before, and has chosen its level then.
            QTimer.singleShot(LOOK_MS, self._look)

    @guarded
    def _removed(self, event: Any) -> None:
        layer = self._layer()
        if layer is None or event.value is layer:
            self.leave()
            if layer is not None:
                _followers.pop(layer, None)

    @guarded
    def _look(self) -> None:
        self._due = False
        viewer, layer = self._viewer(), self._layer()
        if viewer is None or layer is None or not layer.visible:
            return
        pyramid = layer.metadata.get("pyramid")
        box = view_box(viewer, layer)
        if pyramid is None or box is None:
            return
        last, self._last = self._last, _Look(time.monotonic(), box)
        self._prefetcher_of(pyramid).look(_glance(layer, self._last, last))

    def _prefetcher_of(self, pyramid: Pyramid) -> Prefetcher:
        if self._prefetcher is None or self._of is None or self._of() is not pyramid:
            self._prefetcher, self._of = Prefetcher(pyramid), ref(pyramid)
        return self._prefetcher


_followers: WeakKeyDictionary[Layer, CameraFollower] = WeakKeyDictionary()


def _gone() -> None:
    """What a reference to a viewer that is gone returns."""


def follow(viewer: ViewerModel, layer: Layer) -> None:
    """Read ahead of this viewer's camera until the layer is removed; again: no effect."""
    if layer not in _followers:
        _followers[layer] = follower = CameraFollower(viewer, layer)
        follower.begin()


def follower_of(layer: Layer) -> CameraFollower | None:
    """What follows the camera for a layer, if something does."""
    return _followers.get(layer)


def _glance(layer: Layer, now: _Look, last: _Look | None) -> Glance:
    """What is on view in pixels of the level that is drawn."""
    level = layer.data_level
    down, across = (float(factor) for factor in layer.downsample_factors[level][:2])
    y0, x0, y1, x1 = now.box
    box = round(y0 / down), round(x0 / across), round((y1 - y0) / down), round((x1 - x0) / across)
    y, x, zoom = (0.0, 0.0, 0) if last is None else _motion(now, last)
    return Glance(level, box, Motion(y / down, x / across, zoom))


def _motion(now: _Look, last: _Look) -> tuple[float, float, int]:
    """(y, x) level-0 pixels per second, and whether it zooms in (1) or out (-1)."""
    seconds = now.at - last.at
    if seconds > REST_S:
        return 0.0, 0.0, 0
    ratio = (last.box[2] - last.box[0]) / (now.box[2] - now.box[0])
    if not 1 / ZOOMS < ratio < ZOOMS:
        # Zooming at the mouse also moves the middle; nobody pans on at that speed.
        return 0.0, 0.0, 1 if ratio > 1 else -1
    y, x = ((now.box[i] + now.box[i + 2] - last.box[i] - last.box[i + 2]) / 2 for i in (0, 1))
    return y / max(seconds, 1e-3), x / max(seconds, 1e-3), 0
