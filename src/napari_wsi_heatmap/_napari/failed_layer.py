"""Windows that failed, hatched: a layer over the heatmap that is there only if there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from napari.layers import Image
from napari.utils import Colormap

from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.placement import FOLLOWED, place, placed_over
from napari_wsi_heatmap._napari.qt_window import paint_later
from napari_wsi_heatmap._napari.window_words import word_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid

    Index = NDArray[np.int64]

MOST_BYTES = 1 << 25
"""Of the picture: on lattices of millions of windows the hatching is coarser, or plain."""
FINEST = 8
"""Pixels along a window."""
GROUND, STRIPE = 1, 2
COLORS = [(0, 0, 0, 0), (1, 1, 1, 0.9), (0.85, 0, 0.85, 1)]
"""Nothing; white; magenta, which neither a slide nor the heatmap's colours hold."""


PAINT_MS = 5
"""ms between adding the layer and painting it, in which the mouse is answered."""


class Placed(NamedTuple):
    """Where the hatching lies; pixel i has its centre at ``offset + i * scale``, level-0 pixels."""

    offset: tuple[float, float]
    scale: tuple[float, float]


class FailedLayer:
    """Makes the layer, and hatches windows in it.

    Parameters
    ----------
    grid : WindowGrid
    state : (Y, X) uint8
        Of its windows; not copied.
    slide_layer : Layer
    name : str
        Of the heatmap.
    reasons : mapping
        Flat index of a window that failed -> why; not copied.

    Attributes
    ----------
    layer : napari.layers.Image
        Belongs into the viewer once a window has failed.
    """

    def __init__(
        self,
        grid: WindowGrid,
        state: NDArray[np.uint8],
        slide_layer: Layer,
        name: str,
        reasons: Mapping[int, str],
    ) -> None:
        self._side = pixels_along(grid.shape)
        self._pixels = np.zeros([n * self._side for n in grid.shape], np.uint8)
        self._placed, self._slide_layer = hatching_place(grid, self._side), slide_layer
        self._state, self._reasons = state, reasons
        self.layer = self._make(name)
        for attribute in FOLLOWED:
            getattr(slide_layer.events, attribute).connect(self._follow)

    def _make(self, name: str) -> Image:
        layer = Image(
            self._pixels,
            name=f"{name}: failed",
            rgb=False,
            multiscale=False,
            cache=False,
            contrast_limits=(0, STRIPE),
            colormap=Colormap(COLORS, name="failed windows", controls=[0, 0.5, 1]),
            blending="translucent_no_depth",
            interpolation2d="nearest",
            axis_labels=self._slide_layer.axis_labels,
            metadata={"job": None},  # as every layer of a run has: nobody takes it for a slide
            **placed_over(self._slide_layer, self._placed),
        )
        say_under_cursor(layer, self._say)
        return layer

    def add(self, index: Index) -> None:
        """Hatch windows (n,)."""
        side = self._side
        rows, cols = np.divmod(index, self._pixels.shape[1] // side)
        by_window = self._pixels.reshape(-1, side, self._pixels.shape[1] // side, side)
        by_window[rows, :, cols, :] = hatching(side)
        self.layer.refresh()

    def _say(self, row: int, col: int) -> str:
        return word_of(self._state, self._reasons, (row // self._side, col // self._side))

    @guarded
    def _follow(self, event: Any = None) -> None:
        place(self.layer, self._slide_layer, self._placed)


def put_beside(viewer: ViewerModel, layer: Layer) -> None:
    """Add a layer, and leave selected what was selected."""
    selected, active = set(viewer.layers.selection), viewer.layers.selection.active
    paint_later(viewer, PAINT_MS)
    viewer.add_layer(layer)
    viewer.layers.selection = selected
    viewer.layers.selection.active = active


def pixels_along(shape: tuple[int, int]) -> int:
    """Pixels along a window of a lattice (Y, X) that is hatched."""
    side = FINEST
    while side > 1 and shape[0] * shape[1] * side**2 > MOST_BYTES:
        side //= 2
    return side


def hatching(side: int) -> NDArray[np.uint8]:
    """(side, side): stripes that go on in the next window."""
    i, j = np.indices((side, side))
    stripe = (i + j) % max(2, side // 2) < max(1, side // 4)
    return np.where(stripe | (side == 1), STRIPE, GROUND).astype(np.uint8)


def hatching_place(grid: WindowGrid, side: int) -> Placed:
    """Lay `side` pixels along each window's place on the lattice, around its centre."""
    spec, downsample = grid.spec, np.asarray(grid.spec.downsample)
    scale = np.asarray(spec.stride) * downsample / side
    centre = (np.asarray(spec.footprint) * downsample - 1) / 2
    offset = centre - scale * (side - 1) / 2
    return Placed((float(offset[0]), float(offset[1])), (float(scale[0]), float(scale[1])))
