"""Maps made of a heatmap: its classes, what overlapping windows differ by, a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from napari_wsi_heatmap.classes import ClassMap
    from napari_wsi_heatmap.heatmap import Heatmap


class DerivedMaps:
    """What can be asked of a heatmap beyond its values.

    Attributes
    ----------
    uncertainty : tuple of str
        Names of the channels that say how sure the others are; they are the last.
    """

    run: dict[str, Any]

    @property
    def uncertainty(self) -> tuple[str, ...]:
        """Names of the channels that say how sure the others are; they are the last."""
        return tuple(self.run["model"].get("uncertainty", ()))

    def classes(self) -> ClassMap:
        """Most likely class of each cell, as labels (My, Mx) and names.

        See `napari_wsi_heatmap.classes`: label 0 where nothing was computed, i + 1 for class i.
        """
        from napari_wsi_heatmap.classes import class_map

        return class_map(cast("Heatmap", self))

    def disagreement(self) -> Heatmap:
        """How far overlapping windows differ; see `napari_wsi_heatmap.disagreement`."""
        from napari_wsi_heatmap.disagreement import disagreement

        return disagreement(cast("Heatmap", self))

    def minus(self, other: Heatmap) -> Heatmap:
        """Subtract another heatmap over the same windows; see `napari_wsi_heatmap.minus`."""
        from napari_wsi_heatmap.minus import subtract

        return subtract(cast("Heatmap", self), other)
