"""A layer's OpenGL objects must be deleted in the context that they were made in.

napari deletes them with whatever context happens to be current. With the shapes, colour bars and
texts of a layer that is removed, the next picture can then end the process inside the driver
(seen with napari 0.9.2 and Mesa).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication

from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from napari.components import ViewerModel

_guarded_lists: weakref.WeakSet[Any] = weakref.WeakSet()


def guard_removals(viewer: ViewerModel) -> None:
    """Make the canvas's context current whenever a layer is about to be removed."""
    if viewer.layers not in _guarded_lists:
        _guarded_lists.add(viewer.layers)
        viewer.layers.events.removing.connect(_make_current)


@guarded
def _make_current(event: Any) -> None:
    for window in QApplication.topLevelWidgets():
        for canvas in window.findChildren(QOpenGLWidget):
            if canvas.isVisible() and canvas.context() is not None:
                canvas.makeCurrent()
