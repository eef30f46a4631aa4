"""Clicks on the canvas: a press and a release at one place, while the mouse pans and zooms."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import ViewerModel

STILL_PX = 4.0
"""Canvas pixels that the mouse may move between press and release."""


class Clicks:
    """Calls ``clicked(position)`` for each click, in world coordinates, while it listens.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    clicked : callable
    """

    def __init__(self, viewer: ViewerModel, clicked: Callable[[Any], None]) -> None:
        self._viewer, self._clicked = weakref.ref(viewer), guarded(clicked)

    def listen(self, listening: bool) -> None:
        """Begin to listen, or stop; again: no effect."""
        viewer = self._viewer()
        if viewer is None:
            return
        callbacks, there = viewer.mouse_drag_callbacks, self._on_press
        if listening and there not in callbacks:
            callbacks.append(there)
        elif not listening and there in callbacks:
            callbacks.remove(there)

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Follow the mouse until it is released; napari goes on with this at each event."""
        if not _is_plain(viewer, event):
            return
        start, farthest = np.asarray(event.pos, float), 0.0
        yield
        while event.type == "mouse_move":
            farthest = max(farthest, float(np.abs(event.pos - start).max()))
            yield
        if event.type == "mouse_release" and farthest <= STILL_PX:
            self._clicked(event.position)


def _is_plain(viewer: Any, event: Any) -> bool:
    """Whether the mouse neither draws nor does anything else."""
    active = viewer.layers.selection.active
    pans = active is None or str(active.mode) == "pan_zoom"
    return pans and event.button == 1 and not event.modifiers and viewer.dims.ndisplay == 2
