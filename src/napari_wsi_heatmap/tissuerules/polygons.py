"""Polygons as a mask of tissue."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.tissue import TissueMask
from napari_wsi_heatmap.tissuerules.rings import inside_polygons

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissuerules.rings import Polygon

MOST_PIXELS = 1 << 24
"""Of the mask that is drawn; a byte each, and four more while shares are added up."""
PER_WINDOW = 32
"""Pixels of the mask along a window's shorter side, where that is not too many."""


def polygon_mask(
    slide: Slide, polygons: Sequence[NDArray[np.float64]], grid: WindowGrid | None
) -> TissueMask:
    """Mask of polygons (N, 2) of (y, x), level-0 pixels, without holes."""
    return drawn_mask(slide, [(ring,) for ring in polygons], grid, {"rule": "polygons"})


def drawn_mask(
    slide: Slide,
    polygons: Sequence[Polygon],
    grid: WindowGrid | None,
    record: dict[str, Any],
    where: str | None = None,
) -> TissueMask:
    """Draw polygons with holes; a pixel of the mask is tissue if its centre lies in one.

    Whether a window's centre lies in one is answered from the polygons themselves.

    Raises
    ------
    GridError
        If none of them touches the slide.

    Notes
    -----
    Memory bound: `MOST_PIXELS` bytes.
    """
    _refuse_elsewhere(slide, polygons, where)
    height, width = slide.levels[0].shape
    side = _pixel(height, width, grid)
    shape = math.ceil(height / side), math.ceil(width / side)
    rows, cols = ((np.arange(n, dtype=np.float64) + 0.5) * side for n in shape)
    mask = inside_polygons(polygons, rows, cols)
    record = record | {"polygons": len(polygons)}
    return TissueMask(mask, (side, side), record, polygons=tuple(polygons))


def _pixel(height: int, width: int, grid: WindowGrid | None) -> float:
    """Level-0 pixels along a pixel of the mask."""
    fewest = math.sqrt(height * width / MOST_PIXELS)
    fine = 1.0 if grid is None else min(grid.spec.footprint_level0) / PER_WINDOW
    return max(1.0, fine, fewest)


def _refuse_elsewhere(slide: Slide, polygons: Sequence[Polygon], where: str | None) -> None:
    corners = np.concatenate([ring for rings in polygons for ring in rings])
    (top, left), (bottom, right) = corners.min(0), corners.max(0)
    height, width = slide.levels[0].shape
    if top < height and left < width and bottom > 0 and right > 0:
        return
    raise GridError(
        f"all polygons lie outside the slide: x {left:g} to {right:g}, y {top:g} to {bottom:g}, "
        f"on {width} x {height} px",
        where,
        "coordinates are level-0 pixels from the slide's top left, not µm",
    )
