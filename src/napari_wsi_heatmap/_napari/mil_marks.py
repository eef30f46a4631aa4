"""The patches that a MIL model scores highest and lowest, as frames with their rank."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

import numpy as np
from napari.layers import Points

from napari_wsi_heatmap._napari.failed_layer import put_beside
from napari_wsi_heatmap._napari.feature_layers import OnMap, follow
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap._napari.qt_window import guard_removals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.mil.patchtable import Extremes

COLORS: Final = {"highest": "white", "lowest": "black"}
"""Seen on the colours that such patches have: dark red, dark blue."""
LEAST_PX: Final = 12
"""Canvas pixels of a frame at least, at any zoom."""


class PatchMarks:
    """A Points layer of the highest, and one of the lowest.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._layers: list[Points] = []

    @property
    def layers(self) -> list[Points]:
        """Those that are in the viewer."""
        viewer = self._viewer()
        return [] if viewer is None else [la for la in self._layers if la in viewer.layers]

    def show(self, of: Layer, found: Sequence[Extremes]) -> None:
        """Frame patches instead of those before.

        Parameters
        ----------
        of : Layer
            Of the heatmap.
        found : sequence of Extremes
        """
        viewer = self._viewer()
        if viewer is None:
            return
        seen = {la.metadata["which"]: la.visible for la in self.layers}
        self.clear()
        guard_removals(viewer)
        for each in found:
            layer = frames(of, each)
            layer.visible = seen.get(each.which, True)
            self._layers.append(layer)
            put_beside(viewer, layer)

    def clear(self) -> None:
        """Take the frames away."""
        viewer, there = self._viewer(), self.layers
        self._layers = []
        for layer in there:
            assert viewer is not None
            viewer.layers.remove(layer)


def frames(of: Layer, found: Extremes) -> Points:
    """Squares around patches, with their ranks; the status bar says their scores."""
    frame = of.metadata["heatmap"].frame
    scale = np.asarray(frame.scale)
    where = OnMap(-np.asarray(frame.offset) / scale, 1 / scale)
    color = COLORS[found.which]
    layer = Points(
        found.positions + (np.asarray(found.size) - 1) / 2,
        name=f"{found.which} {len(found)}",
        symbol="square",
        size=max(found.size),
        face_color="transparent",
        border_color=color,
        border_width=0.06,
        canvas_size_limits=(LEAST_PX, 10_000),
        features={
            "rank": np.arange(1, len(found) + 1),
            "score": found.scores,
            "percentile": found.percentiles,
        },
        text={"string": "{rank}", "color": color, "size": 10, "anchor": "upper_left"},
        axis_labels=of.axis_labels,
        metadata={"job": None, "which": found.which},
        **placed_over(of, where),
    )
    layer.editable = False
    follow(layer, of, where)
    return layer
