"""Tissue that somebody has drawn or painted in the viewer, as a rule of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Shapes

from napari_wsi_heatmap._napari.region import drawn_region, from_level0
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap.errors import GridError

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

MOST_PIXELS = 1 << 22
"""Of the mask: the window stands still while a painting is taken over."""
ROWS_AT_ONCE = 64


def marked_tissue(rule: Any, slide_layer: Layer) -> Any:
    """Turn a Shapes layer into polygons and a Labels layer into a mask; the rest stays as it is.

    Raises
    ------
    GridError
        If nothing of the slide is marked in the layer.
    """
    if isinstance(rule, Shapes):
        return drawn_region(rule, slide_layer)
    if isinstance(rule, Labels):
        return painted_mask(rule, slide_layer)
    return rule


def painted_mask(labels: Labels, slide_layer: Layer) -> Mask:
    """(h, w) bool over the whole slide: where any label was painted, wherever the layer lies."""
    painted = labels.data[0] if labels.multiscale else labels.data
    if painted.ndim != 2:
        raise GridError(f"it has {painted.ndim} dimensions", f"layer {labels.name!r}", "paint in 2")
    painted = np.asarray(painted)
    height, width = source_of(slide_layer).shapes[0]
    # Three points tell how the one layer lies over the other.
    origin, down, right = from_level0(
        np.array([(0.0, 0.0), (height, 0.0), (0.0, width)]), slide_layer, labels
    )
    rows, cols = _shape(height, width, down - origin, right - origin)
    mask = np.empty((rows, cols), bool)
    across = np.outer((np.arange(cols) + 0.5) / cols, right - origin)
    for first in range(0, rows, ROWS_AT_ONCE):
        i = np.arange(first, min(rows, first + ROWS_AT_ONCE))
        along = np.outer((i + 0.5) / rows, down - origin)
        mask[i] = _painted_at(painted, origin + along[:, None] + across[None])
    if not mask.any():
        raise GridError("nothing of the slide is painted", f"layer {labels.name!r}", "paint it")
    return mask


def _shape(height: int, width: int, down: Any, right: Any) -> tuple[int, int]:
    """Pixels of the mask: about those of the painting that cover the slide, never more than its."""
    rows = min(height, max(1.0, float(np.hypot(*down))))
    cols = min(width, max(1.0, float(np.hypot(*right))))
    # One factor for both, or the mask would have another aspect than the slide.
    factor = min(height / rows, width / cols)
    factor = max(factor, math.sqrt(height * width / MOST_PIXELS))
    return max(1, round(height / factor)), max(1, round(width / factor))


def _painted_at(painted: NDArray[Any], at: NDArray[np.float64]) -> Mask:
    """Whether the nearest pixel of a painting is not 0; beyond its border nothing is painted."""
    index = np.rint(at).astype(np.int64)
    inside = ((index >= 0) & (index < painted.shape)).all(-1)
    y, x = np.moveaxis(np.clip(index, 0, np.subtract(painted.shape, 1)), -1, 0)
    return (painted[y, x] != 0) & inside
