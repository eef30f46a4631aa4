"""Two viewers that look at the same place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components.camera import Camera

FOLLOWED = ("center", "zoom", "angles")
"""What a camera takes over from the other."""


class LinkedCameras:
    """Each camera follows the other; the second begins where the first is.

    Parameters
    ----------
    first, second : Camera
    """

    def __init__(self, first: Camera, second: Camera) -> None:
        self._cameras = first, second
        self._following = False
        self._follow(first, second)
        for camera, moved in self._ways():
            for name in FOLLOWED:
                getattr(camera.events, name).connect(moved)

    def leave(self) -> None:
        """Follow no longer; again: no effect."""
        for camera, moved in self._ways():
            for name in FOLLOWED:
                getattr(camera.events, name).disconnect(moved)

    def _ways(self) -> list[tuple[Camera, Callable[[Any], None]]]:
        return [(self._cameras[0], self._first_moved), (self._cameras[1], self._second_moved)]

    @guarded
    def _first_moved(self, event: Any) -> None:
        self._follow(*self._cameras)

    @guarded
    def _second_moved(self, event: Any) -> None:
        self._follow(*self._cameras[::-1])

    def _follow(self, leader: Camera, follower: Camera) -> None:
        # What the follower does on the way is no move of its own: it must not come back.
        if self._following:
            return
        self._following = True
        try:
            for name in FOLLOWED:
                setattr(follower, name, getattr(leader, name))
        finally:
            self._following = False
