"""A layer's OpenGL objects must be deleted in the context that they were made in.

napari deletes them with whatever context happens to be current. With the shapes, colour bars and
texts of a layer that is removed, the next picture can then end the process inside the driver
(seen with napari 0.9.2 and Mesa).
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtOpenGLWidgets import QOpenGLWidget

from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from napari.components import ViewerModel

_seen: weakref.WeakSet[Any] = weakref.WeakSet()


def guard_removals(viewer: ViewerModel) -> None:
    """Make the canvas's context current whenever a layer is about to be removed."""
    if viewer.layers in _seen:
        return
    _seen.add(viewer.layers)
    known = weakref.ref(viewer)
    viewer.layers.events.removing.connect(guarded(lambda event: _make_current(known())))


def _make_current(viewer: ViewerModel | None) -> None:
    # napari has no public way to its Qt window.
    window = getattr(getattr(viewer, "window", None), "_qt_window", None)
    with suppress(RuntimeError):  # the window may be on its way out
        for canvas in [] if window is None else window.findChildren(QOpenGLWidget):
            if canvas.isVisible() and canvas.context() is not None:
                canvas.makeCurrent()
