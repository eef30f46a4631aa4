"""What must be done with a viewer's window itself; napari has no public way to it."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget

from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from napari.components import ViewerModel

_guarded: weakref.WeakSet[Any] = weakref.WeakSet()


def guard_removals(viewer: ViewerModel) -> None:
    """Make the canvas's OpenGL context current whenever a layer is about to be removed.

    A layer's OpenGL objects must be deleted in the context that they were made in. napari deletes
    them with whatever context happens to be current; with shapes, colour bars and texts the next
    picture can then end the process inside the driver (seen with napari 0.9.2 and Mesa).
    """
    if viewer.layers in _guarded:
        return
    _guarded.add(viewer.layers)
    known = weakref.ref(viewer)
    viewer.layers.events.removing.connect(guarded(lambda event: _make_current(known())))


def paint_later(viewer: ViewerModel, ms: int) -> None:
    """Let the window paint nothing for `ms` milliseconds, and then all of it.

    What changes many parts of it is then answered before it is painted: two short stops of the
    GUI instead of a long one.
    """
    window = _qt_window(viewer)
    if window is not None:
        window.setUpdatesEnabled(False)
        QTimer.singleShot(ms, guarded(lambda: window.setUpdatesEnabled(True)))


def _make_current(viewer: ViewerModel | None) -> None:
    window = _qt_window(viewer)
    with suppress(RuntimeError):  # the window may be on its way out
        for canvas in [] if window is None else window.findChildren(QOpenGLWidget):
            if canvas.isVisible() and canvas.context() is not None:
                canvas.makeCurrent()


def _qt_window(viewer: ViewerModel | None) -> Any:
    return getattr(getattr(viewer, "window", None), "_qt_window", None)
