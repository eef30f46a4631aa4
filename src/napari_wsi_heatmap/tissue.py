"""Which part of a slide is worth computing: a mask, and the share of it in each window.

`find_tissue` is the one entry; each rule is a file of `napari_wsi_heatmap.tissuerules`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.tissuerules.given import given_rule
from napari_wsi_heatmap.tissuerules.rings import inside_polygons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissuerules.rings import Polygon
    from napari_wsi_heatmap.tissuerules.values import TissueValues

    Mask = NDArray[np.bool_]

ROWS_AT_ONCE = 64
"""Rows of a mask, or of windows, that are worked on together."""

MAKERS = {
    "otsu": ("otsu", "otsu_mask"),
    "variance": ("variance", "variance_mask"),
    "variance2": ("variance2", "two_pass_mask"),
    "geojson": ("geojson", "geojson_mask"),
    "polygons": ("polygons", "polygon_mask"),
    "image": ("image", "image_mask"),
    "array": ("image", "array_mask"),
}
"""Kind of rule -> module of `tissuerules`, and its function."""
KEEPERS = {
    "otsu": ("otsu", "otsu_values"),
    "variance": ("variance", "variance_values"),
    "variance2": ("variance2", "two_pass_values"),
}
"""The same for what keeps the values that are compared with a rule's threshold."""


@dataclass(frozen=True)
class TissueMask:
    """Where tissue lies: a mask over the slide, or a decision for each window.

    Attributes
    ----------
    mask : (h, w) bool, or None
        True where tissue lies.
    downsample : (float, float)
        (y, x) level-0 pixels per pixel of the mask.
    record : dict
        Rule, threshold, file and notices, as written into the run's record.
    windows : (Y, X) bool, or None
        True where a window counts as tissue, by a rule that looks at windows themselves. With
        neither this nor a mask, everything counts.
    polygons : tuple of polygons, or None
        What the mask was drawn from: says exactly where a window's centre lies.
    """

    mask: Mask | None
    downsample: tuple[float, float] = (1.0, 1.0)
    record: dict[str, Any] = field(default_factory=dict)
    windows: Mask | None = None
    polygons: tuple[Polygon, ...] | None = None

    @property
    def notice(self) -> str | None:
        """Why the rule that was asked for is not in force, if so."""
        return self.record.get("notice")

    @property
    def decides(self) -> bool:
        """Whether any window can be left out."""
        return self.mask is not None or self.windows is not None


def find_tissue(
    slide: Slide,
    rule: Any = "otsu",
    grid: WindowGrid | None = None,
    wanted: Mask | None = None,
    *,
    cancelled: Event | None = None,
) -> TissueMask:
    """Find out where the tissue of a slide lies.

    Parameters
    ----------
    slide : Slide
    rule : str, path, (H, W) bool or int array, or polygons
        "otsu[:T]", "none", "variance[:T]", "variance2[:T]", a GeoJSON, a mask image; or a mask of
        the whole slide of any size, or (N, 2) polygons (y, x) in level-0 pixels.
    grid : WindowGrid, optional
        The windows in question. "variance" needs it, the others read or draw to suit it.
    wanted : (Y, X) bool, optional
        Windows that matter: a rule that looks at pixels need not read elsewhere.
    cancelled : threading.Event, optional
        When it is set, a rule that reads much of the slide gives up with a `HeatmapError`.

    Raises
    ------
    GridError
        If the rule is unknown, or its file cannot be used for this slide.
    """
    chosen = given_rule(rule)
    if chosen.kind == "none":
        return TissueMask(None, record={"rule": "none"})
    make = _function(*MAKERS[chosen.kind])
    if chosen.kind == "otsu":
        return make(slide, chosen.value, cancelled)
    if chosen.kind in ("variance", "variance2"):
        return make(slide, chosen.value, grid, wanted, cancelled)
    return make(slide, chosen.value, grid)


def keep_values(
    slide: Slide,
    rule: Any = "otsu",
    grid: WindowGrid | None = None,
    wanted: Mask | None = None,
    *,
    cancelled: Event | None = None,
) -> TissueValues | None:
    """Look at a slide as `find_tissue` does, and keep what is compared with the threshold.

    Returns
    -------
    TissueValues or None
        Its `tissue()` is what `find_tissue` returns, also with the threshold moved; None if the
        rule has no threshold.
    """
    chosen = given_rule(rule)
    if chosen.kind not in KEEPERS:
        return None
    keep = _function(*KEEPERS[chosen.kind])
    if chosen.kind == "otsu":
        return keep(slide, chosen.value, cancelled)
    return keep(slide, chosen.value, grid, wanted, cancelled)


def _function(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"napari_wsi_heatmap.tissuerules.{module}"), name)


def strips(rows: int) -> Iterator[slice]:
    """Few rows at once: what is computed from bytes on the way takes many times their room."""
    for first in range(0, rows, ROWS_AT_ONCE):
        yield slice(first, min(rows, first + ROWS_AT_ONCE))


def tissue_share(tissue: TissueMask, grid: WindowGrid) -> NDArray[np.float32]:
    """Share of each window's area that is tissue, (Y, X) in 0…1.

    The mask is piecewise constant; its exact integral over every window comes from one
    summed-area table, sampled between its nodes linearly. What hangs over the slide counts as
    no tissue.

    Notes
    -----
    Memory bound: four bytes a pixel of the mask and a window, and a few rows of both.
    """
    assert tissue.mask is not None
    table = _summed(tissue.mask)
    rows, cols = (
        span / down for span, down in zip(grid.spans_level0, tissue.downsample, strict=True)
    )
    share = np.empty(grid.shape, np.float32)
    for part in strips(len(rows)):
        band = (_rows_at(table, rows[part, 1]) - _rows_at(table, rows[part, 0])).T
        tissue_area = (_rows_at(band, cols[:, 1]) - _rows_at(band, cols[:, 0])).T
        share[part] = tissue_area / np.outer(np.diff(rows[part]), np.diff(cols))
    return share


def _summed(mask: Mask) -> NDArray[np.uint32]:
    """Summed-area table (h + 1, w + 1): how many pixels of a mask lie above and left of a node."""
    table = np.zeros(np.add(mask.shape, 1), np.uint32)
    inner = table[1:, 1:]
    np.cumsum(mask, 0, dtype=np.uint32, out=inner)
    np.cumsum(inner, 1, out=inner)
    return table


def _rows_at(table: NDArray[Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of a table at fractional positions, linear in between, constant beyond."""
    at = np.clip(at, 0, len(table) - 1)
    low = np.minimum(at.astype(np.int64), len(table) - 2)
    below = table[low].astype(np.float64)
    return below + (at - low)[:, None] * (table[low + 1] - below)


def tissue_at_centre(tissue: TissueMask, grid: WindowGrid) -> Mask:
    """Whether each window's centre lies on tissue, (Y, X)."""
    if tissue.polygons is not None:
        # Of an odd window WSInfer, whose rule this is, rounds the half to a whole pixel.
        centres = [span[:, 0] + np.round(np.ptp(span[0]) / 2) for span in grid.spans_level0]
        return inside_polygons(tissue.polygons, centres[0], centres[1])
    assert tissue.mask is not None
    rows, cols = (
        (span.mean(1) / down).astype(np.int64)
        for span, down in zip(grid.spans_level0, tissue.downsample, strict=True)
    )
    inside = (rows < tissue.mask.shape[0])[:, None] & (cols < tissue.mask.shape[1])[None]
    rows, cols = (
        np.minimum(i, n - 1) for i, n in zip((rows, cols), tissue.mask.shape, strict=True)
    )
    return tissue.mask[rows][:, cols] & inside
