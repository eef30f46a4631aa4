"""What a job must know of its viewer: where it looks, what is drawn, and which layers go."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap._napari.drawn_watch import DrawnWatch
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.qt_window import guard_removals
from napari_wsi_heatmap._napari.region import box_of, on_slide, view_box

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.region import Box, Points
    from napari_wsi_heatmap._napari.worker import RunTask

LOOK_S = 0.25
"""Seconds between two answers to where it looks, while somebody pans."""


class ViewerWatch:
    """Follows the camera and the layers of a viewer, which it does not keep alive.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Layer
    shape : (int, int)
        (height, width) of the slide, level-0 pixels.
    removed : callable
        Called with each layer that is removed.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        slide_layer: Layer,
        shape: tuple[int, int],
        removed: Callable[[Layer], None],
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self._slide_layer, self._shape, self._removed = slide_layer, shape, removed
        self._moved, self._asked_at = False, 0.0
        self._drawn = DrawnWatch(slide_layer)

    @property
    def viewer(self) -> ViewerModel | None:
        """The viewer, None when it is gone."""
        return self._viewer()

    @property
    def shows_slide(self) -> bool:
        """Whether the slide's layer is still in the viewer."""
        viewer = self._viewer()
        return viewer is not None and self._slide_layer in viewer.layers

    def begin(self) -> None:
        """Follow from now on."""
        viewer = self._viewer()
        if viewer is not None:
            guard_removals(viewer)
            viewer.layers.events.removed.connect(self._on_removed)
            viewer.scene.camera.events.connect(self._on_camera)
            self._drawn.begin(viewer)

    def leave(self) -> None:
        """Follow no longer."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_removed)
            viewer.scene.camera.events.disconnect(self._on_camera)
            self._drawn.leave(viewer)

    def tell(self, task: RunTask) -> None:
        """Tell a run where somebody looks, and what was drawn, if that is new."""
        view, drawn = self.new_view(), self.new_drawing()
        if view is not None:
            task.look_at(view)
        if drawn:
            task.look_at_drawn(drawn)

    def new_view(self) -> Box | None:
        """The part of the slide on view, level-0 pixels, if it moved; not too often."""
        viewer = self._viewer()
        soon = time.monotonic() - self._asked_at < LOOK_S
        if not self._moved or soon or viewer is None or not self.shows_slide:
            return None
        self._moved, self._asked_at = False, time.monotonic()
        box = view_box(viewer, self._slide_layer)
        return None if box is None else on_slide(box, self._shape)

    def new_drawing(self) -> list[Points]:
        """Polygons on the slide that somebody has drawn since the last call, level-0 pixels."""
        drawn = self._drawn.take() if self.shows_slide else []
        return [one for one in drawn if on_slide(box_of(one), self._shape) is not None]

    @guarded
    def _on_camera(self, event: Any) -> None:
        self._moved = True

    @guarded
    def _on_removed(self, event: Any) -> None:
        self._removed(event.value)
