"""Level-0 pixels of a slide, as a layer over it has them; whole numbers are centres of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap._napari.placement import placed_over

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    Pair = tuple[float, float]

LEAST_SHARE, USUAL_SHARE = 1 / 8, 1 / 3
"""Of the canvas: a window that takes less is zoomed in on, until it takes so much."""


class _Cells(NamedTuple):
    """See `placed_over`."""

    offset: Any
    scale: Any


@dataclass(frozen=True)
class Level0:
    """How a layer's own pixels lie on the slide: i at level-0 pixel ``offset + i * scale``."""

    layer: Layer
    offset: Pair = (0.0, 0.0)
    scale: Pair = (1.0, 1.0)

    @classmethod
    def of_heatmap(cls, layer: Layer) -> Level0:
        """Of a layer that shows the cells of a heatmap."""
        frame = layer.metadata["heatmap"].frame
        return cls(layer, frame.offset, frame.scale)

    def at(self, viewer: ViewerModel, world: Any) -> Pair:
        """Level-0 pixel (y, x) at a position of the viewer's world."""
        seen = np.asarray(world, float)[-2:] * self._factors(viewer)
        y, x = self.offset + np.asarray(self.layer.world_to_data(seen))[-2:] * self.scale
        return float(y), float(x)

    def world(self, viewer: ViewerModel, point: Any) -> Pair:
        """Position in the viewer's world of a level-0 pixel (y, x)."""
        own = (np.asarray(point) - self.offset) / self.scale
        y, x = np.asarray(self.layer.data_to_world(own))[-2:] / self._factors(viewer)
        return float(y), float(x)

    def pixel_size(self, viewer: ViewerModel) -> float:
        """Canvas pixels of a level-0 pixel, at the zoom there is."""
        steps = np.subtract(self.world(viewer, (1, 1)), self.world(viewer, (0, 0)))
        return float(np.linalg.norm(steps) / np.sqrt(2) * viewer.scene.camera.zoom)

    @property
    def placed(self) -> dict[str, Any]:
        """Attributes of another layer whose own pixels are level-0 pixels."""
        scale = np.asarray(self.scale)
        return placed_over(self.layer, _Cells(-np.asarray(self.offset) / scale, 1 / scale))

    def _factors(self, viewer: ViewerModel) -> Any:
        """How many of the layer's units one of the viewer's is; 1 where napari ignores them."""
        units = viewer.layers.units
        if units is None:
            return np.ones(2)
        pairs = list(zip(units[-2:], self.layer.units[-2:], strict=True))
        if not all(seen.is_compatible_with(own) for seen, own in pairs):
            return np.ones(2)
        return np.array([float((1 * seen).m_as(own)) for seen, own in pairs])


def look_at(viewer: ViewerModel, level0: Level0, corner: Any, size: Pair) -> None:
    """Move the camera to a window, and zoom if it would be tiny, or larger than the canvas.

    Parameters
    ----------
    corner : (y, x)
        Top left, level-0 pixels counted from the border.
    size : (height, width)
        Level-0 pixels.
    """
    camera = viewer.scene.camera
    centre = np.asarray(corner) + np.asarray(size) / 2 - 0.5
    camera.center = (*camera.center[:-2], *level0.world(viewer, centre))
    share = max(size) * level0.pixel_size(viewer) / min(viewer.canvas.size)
    if not LEAST_SHARE <= share <= 1:
        camera.zoom *= USUAL_SHARE / share
