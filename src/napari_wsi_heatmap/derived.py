"""Maps made of a heatmap: its classes, what overlapping windows differ by, a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from napari_wsi_heatmap.disagreement import KIND

if TYPE_CHECKING:
    from napari_wsi_heatmap.classes import ClassMap
    from napari_wsi_heatmap.heatmap import Heatmap

STD: Final = "tta_std"
ENTROPY: Final = "tta_entropy"
UNSURE: Final = (STD, ENTROPY, KIND)
"""Names of channels of uncertainty: those of test-time augmentation, and of overlaps."""


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
        """Names of the channels that say how sure the others are; they are the last.

        Where a record does not say it, as that of a table read back, they are told by their names.
        """
        model = self.run["model"]
        unsure = [name in UNSURE for name in model["names"]]
        outputs = len(unsure) - [*reversed(unsure), False].index(False)
        return tuple(model.get("uncertainty", model["names"][max(1, outputs) :]))

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
