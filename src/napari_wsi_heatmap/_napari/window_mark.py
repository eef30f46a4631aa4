"""The outline of the window that is looked at, as a layer.

A Vectors layer: what lies in a Shapes layer would be a region that a run computes first.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Vectors

from napari_wsi_heatmap._napari.failed_layer import put_beside
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.placement import FOLLOWED
from napari_wsi_heatmap._napari.qt_window import guard_removals

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_wsi_heatmap._napari.level0 import Level0

NAME = "window"
COLORS = ("white", "black")
"""Of the inner and of the outer line: one of them is seen on any ground."""
WIDTH_PX = 2.0
"""Canvas pixels of a line, at any zoom."""
WIDTH_STEP = 1.2
"""The lines are made anew where their width is wrong by more than this factor."""


class WindowMark:
    """Outlines one window at a time.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._layer: Vectors | None = None
        self._shown: tuple[Level0, Any, Any] | None = None

    def show(self, level0: Level0, corner: Any, size: Any) -> None:
        """Outline a window.

        Parameters
        ----------
        corner : (y, x)
            Top left, level-0 pixels counted from the border.
        size : (height, width)
            Level-0 pixels.
        """
        viewer = self._viewer()
        if viewer is None:
            return
        self._shown = level0, np.asarray(corner, float), np.asarray(size, float)
        if self._layer is None or self._layer not in viewer.layers:
            self._put(viewer, level0)
        self._draw(viewer)

    def _put(self, viewer: ViewerModel, level0: Level0) -> None:
        self._layer = Vectors(
            np.zeros((0, 2, 2)),
            name=NAME,
            ndim=2,
            vector_style="line",
            opacity=1.0,
            blending="translucent_no_depth",
            axis_labels=level0.layer.axis_labels,
            metadata={"job": None},
            **level0.placed,
        )
        guard_removals(viewer)
        put_beside(viewer, self._layer)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)

    def _draw(self, viewer: ViewerModel) -> None:
        if self._layer is None or self._shown is None:
            return
        level0, corner, size = self._shown
        for name, value in level0.placed.items():
            if name in FOLLOWED:
                setattr(self._layer, name, value)
        width = WIDTH_PX / level0.pixel_size(viewer)
        lines = [outline(corner - 0.5, size, width, number) for number in range(len(COLORS))]
        self._layer.edge_width = width
        self._layer.data = np.concatenate(lines)
        self._layer.edge_color = [
            color for color, sides in zip(COLORS, lines, strict=True) for _ in sides
        ]

    def hide(self) -> None:
        """Take the outline away, if there is one."""
        viewer, layer = self._viewer(), self._layer
        self._layer = self._shown = None
        if viewer is not None and layer is not None:
            viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
            if layer in viewer.layers:
                viewer.layers.remove(layer)

    @guarded
    def _on_zoom(self, event: Any = None) -> None:
        viewer = self._viewer()
        if viewer is None or self._layer is None or self._shown is None:
            return
        wanted = WIDTH_PX / self._shown[0].pixel_size(viewer)
        factor = wanted / max(self._layer.edge_width, 1e-9)
        if not 1 / WIDTH_STEP < factor < WIDTH_STEP:
            self._draw(viewer)


def outline(corner: Any, size: Any, width: float, number: int = 0) -> NDArray[np.float64]:
    """Four lines (4, 2, 2), start and length (y, x), around a box, which they leave free.

    Lines have no ends of their own: those along y are longer by half a width at both, so that the
    corners are whole.

    Parameters
    ----------
    corner, size : (2,)
        Of the box.
    width : float
        Of a line.
    number : int
        How many outlines lie between this one and the box.
    """
    away = (number + 0.5) * width
    (top, left), (bottom, right) = corner - away, corner + size + away
    down, across = (bottom - top + width, 0.0), (0.0, right - left - width)
    return np.array(
        [
            ((top - width / 2, left), down),
            ((top - width / 2, right), down),
            ((top, left + width / 2), across),
            ((bottom, left + width / 2), across),
        ]
    )
