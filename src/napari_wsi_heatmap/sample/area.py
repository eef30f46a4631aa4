"""A rectangle of the slide while it is painted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap.sample.noise import Field, enlarge, peak

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.scene import Scene


class Area:
    """A rectangle of a scene (y, x, height, width: multiples of CELL, px) and what lies there."""

    def __init__(self, scene: Scene, y: int, x: int, height: int, width: int) -> None:
        self.scene, self.box, self.shape = scene, (y, x, height, width), (height, width)
        self.fine = scene.textures.fine.at(*self.box)
        self.middle = scene.textures.middle.at(*self.box)
        self.coarse = scene.textures.coarse.at(*self.box)

    def field(self, name: str) -> Field:
        """Return a field of the layout, enlarged."""
        return enlarge(getattr(self.scene.layout, name), *self.box)

    def peak(self, name: str) -> float:
        """Return a bound of a field of the layout within the area."""
        return peak(getattr(self.scene.layout, name), *self.box)

    def grown(self, margin: int) -> Area:
        """Return the area with a margin on all sides."""
        y, x, height, width = self.box
        return Area(self.scene, y - margin, x - margin, height + 2 * margin, width + 2 * margin)
