"""What somebody draws while a run goes on: new shapes, in whichever layer of the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from napari.layers.base import ActionType

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.region import drawn_region
from napari_wsi_heatmap.errors import GridError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.region import Points

FINISHED = (ActionType.ADDED, ActionType.CHANGED)
"""napari tells of a shape that is drawn with the mouse when it is complete."""


class DrawnWatch:
    """Collects shapes that are drawn, moved or added from the time it begins.

    Parameters
    ----------
    slide_layer : Layer
        Over which they count.
    """

    def __init__(self, slide_layer: Layer) -> None:
        self._slide_layer = slide_layer
        self._known: dict[Shapes, set[bytes]] = {}
        self._changed: list[Shapes] = []

    def begin(self, viewer: ViewerModel) -> None:
        """Collect from now on; shapes that are there already are known."""
        for layer in viewer.layers:
            self._follow(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)

    def leave(self, viewer: ViewerModel) -> None:
        """Collect no longer."""
        viewer.layers.events.inserted.disconnect(self._on_inserted)
        viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in list(self._known):
            self._forget(layer)

    def take(self) -> list[Points]:
        """Polygons (N, 2) (y, x) that are new since the last call, level-0 pixels."""
        changed, self._changed = self._changed, []
        return [polygon for layer in dict.fromkeys(changed) for polygon in self._new_in(layer)]

    def _new_in(self, layer: Shapes) -> list[Points]:
        shapes = dict(zip(map(_digest, layer.data), range(layer.nshapes), strict=True))
        new = [number for shape, number in shapes.items() if shape not in self._known[layer]]
        self._known[layer] = set(shapes)
        try:
            return drawn_region(layer, self._slide_layer, new) if new else []
        except GridError:  # lines and paths
            return []

    def _follow(self, layer: Layer) -> None:
        if isinstance(layer, Shapes):
            self._known[layer] = set(map(_digest, layer.data))
            layer.events.data.connect(self._on_data)

    def _forget(self, layer: Layer) -> None:
        if self._known.pop(layer, None) is not None:
            layer.events.data.disconnect(self._on_data)
            self._changed = [one for one in self._changed if one is not layer]

    @guarded
    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)
        if self._known.get(event.value):
            # What a layer brings along was drawn as well.
            self._known[event.value] = set()
            self._changed.append(event.value)

    @guarded
    def _on_removed(self, event: Any) -> None:
        self._forget(event.value)

    @guarded
    def _on_data(self, event: Any) -> None:
        if event.action in FINISHED:
            self._changed.append(event.source)


def _digest(vertices: Any) -> bytes:
    return np.ascontiguousarray(vertices, np.float64).tobytes()
