"""How the difference of two models is coloured: blue below 0, red above, and grey where equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils import Colormap

from napari_wsi_heatmap._napari.colors import ValueSample
from napari_wsi_heatmap.difference import symmetric

if TYPE_CHECKING:
    from napari_wsi_heatmap._napari.colors import Limits

NAME = "matplotlib:coolwarm"
"""Lighter than tissue in its middle, and redder or bluer than stains at its ends."""
COLOURS = 256
OPACITY = 0.75
"""Its light middle lets the tissue through as it is."""


def diverging() -> Colormap:
    """Make the colour map, under a name that fits into napari's list."""
    from cmap import Colormap as Known

    return Colormap(Known(NAME).lut(COLOURS), name="difference", display_name="difference")


class SymmetricSample(ValueSample):
    """An even sample of differences, with limits about 0."""

    def limits(self, channel: int) -> Limits | None:
        """Limits about 0 that hold the low and the high percentile; None while there are none."""
        seen = super().limits(channel)
        return None if seen is None else symmetric(seen)
