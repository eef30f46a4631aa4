"""The slide alone beside a viewer that shows it with its heatmap: two panes, one camera."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from napari.layers import Image
from napari.qt import QtViewer
from qtpy.QtCore import QEvent, QObject, Qt, QTimer

from napari_wsi_heatmap._napari import shown
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.linked_cameras import LinkedCameras
from napari_wsi_heatmap._napari.placement import FOLLOWED as PLACED

if TYPE_CHECKING:
    import napari

LAID_OUT_MS = 300
"""ms after which a window has its size, and panes can be made equally wide."""


class SideBySide(QObject):
    """A pane right of a viewer's own that shows the slide and nothing else.

    It follows the viewer's camera, and the viewer follows its. Its layer is one of its own: what
    is hidden, or made paler, in the viewer's list is so in the viewer's pane alone.

    Parameters
    ----------
    viewer : napari.Viewer
    slide : Image
        The slide's layer in it; if it is moved or calibrated anew, the pane's goes with it.

    Attributes
    ----------
    model : ViewerModel
        Of the pane.
    pane : QtViewer or None
        None when it is closed.
    layer : Image
        The slide in the pane.
    """

    def __init__(self, viewer: napari.Viewer, slide: Image) -> None:
        super().__init__()
        self._viewer, self._slide = weakref.ref(viewer), slide
        self.model = ViewerModel(title=slide.name)
        self.layer = self.model.add_layer(twin(slide))
        self.model.canvas.overlays.scale_bar.visible = viewer.canvas.overlays.scale_bar.visible
        self.pane: QtViewer | None = QtViewer(self.model)
        self.pane.setAcceptDrops(False)
        self._window = viewer.window._qt_window
        dock = viewer.window.add_dock_widget(
            self.pane, name=f"{slide.name} alone", area="right", add_vertical_stretch=False
        )
        dock.destroyed.connect(self._dock_gone)
        self._dock: Any = dock
        self._window.installEventFilter(self)
        self._cameras = LinkedCameras(viewer.scene.camera, self.model.scene.camera)
        for name in PLACED:
            getattr(slide.events, name).connect(self._slide_moved)
        shown.also.add(self.model)
        QTimer.singleShot(LAID_OUT_MS, self.halve)

    @property
    def closed(self) -> bool:
        """Whether the pane is gone."""
        return self._window is None

    @guarded
    def halve(self) -> None:
        """Make both panes equally wide, and show all of the slide in both."""
        viewer = self._viewer()
        if viewer is None or self._window is None or self._dock is None:
            return
        both = self._window.centralWidget().width() + self._dock.width()
        self._window.resizeDocks([self._dock], [both // 2], Qt.Orientation.Horizontal)
        QTimer.singleShot(0, self._fit)

    @guarded
    def _fit(self) -> None:
        viewer = self._viewer()
        if viewer is not None and not self.closed:
            viewer.reset_view()

    def close(self) -> None:
        """Take the pane away and let go of the viewer; again: no effect."""
        if self._window is None:
            return
        window, self._window = self._window, None
        self._cameras.leave()
        for name in PLACED:
            getattr(self._slide.events, name).disconnect(self._slide_moved)
        shown.also.discard(self.model)
        with suppress(RuntimeError):  # the window may be on its way out
            window.removeEventFilter(self)
        self._close_pane()

    def _close_pane(self) -> None:
        dock, self._dock = self._dock, None
        pane, self.pane = self.pane, None
        viewer = self._viewer()
        with suppress(RuntimeError):
            pane.close()
        if dock is not None and viewer is not None:
            with suppress(RuntimeError, AttributeError):
                viewer.window.remove_dock_widget(dock)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Go with the window: it is hidden when it has agreed to be closed."""
        kind = event.type()
        hidden = kind == QEvent.Type.Hide and not event.spontaneous()
        if hidden or (kind == QEvent.Type.Close and not watched.isVisible()):
            self.close()
        return False

    @guarded
    def _dock_gone(self, *_: Any) -> None:
        self._dock = None
        self.close()

    @guarded
    def _slide_moved(self, event: Any) -> None:
        for name in PLACED:
            setattr(self.layer, name, getattr(self._slide, name))


_panes: weakref.WeakKeyDictionary[napari.Viewer, SideBySide] = weakref.WeakKeyDictionary()


def show_beside(viewer: napari.Viewer, slide: Image) -> SideBySide:
    """Show the slide alone right of the viewer's own pane; the same again while it is there."""
    pane = _panes.get(viewer)
    if pane is None or pane.closed:
        pane = _panes[viewer] = SideBySide(viewer, slide)
    return pane


def twin(layer: Image) -> Image:
    """Another layer of the same pixels, at the same place."""
    return Image(
        list(layer.data),
        name=layer.name,
        rgb=layer.rgb,
        multiscale=layer.multiscale,
        contrast_limits=layer.contrast_limits,
        axis_labels=layer.axis_labels,
        cache=False,
        metadata=dict(layer.metadata),
        **{name: getattr(layer, name) for name in PLACED},
    )
