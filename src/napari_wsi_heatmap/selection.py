"""Which windows of a grid a run computes: region of interest, scanned bounds, tissue.

The result is the initial state of every window; positions that are left out keep their place on
the lattice and say why they are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError, one_line
from napari_wsi_heatmap.states import BACKGROUND, HANGS_OVER, OUTSIDE, PENDING, state_of
from napari_wsi_heatmap.tissue import tissue_at_centre, tissue_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissue import TissueMask

    Mask = NDArray[np.bool_]
    Polygon = NDArray[np.float64]
    Roi = tuple[float, float, float, float] | Sequence[Polygon]


@dataclass(frozen=True)
class Selection:
    """The initial state (Y, X) uint8 of every window, and what identifies the choice."""

    state: NDArray[np.uint8]

    @property
    def count(self) -> int:
        """Number of windows to compute."""
        return int(np.count_nonzero(state_of(self.state) == PENDING))

    @property
    def sha256(self) -> str:
        """Digest of the choice; part of the plan's identity."""
        return hashlib.sha256(self.state.tobytes()).hexdigest()


def select_windows(
    slide: Slide,
    grid: WindowGrid,
    tissue: TissueMask,
    *,
    tissue_min: float | str = 0.1,
    roi: Roi | None = None,
) -> Selection:
    """Decide for every window whether it is computed.

    Parameters
    ----------
    tissue_min : float or "centre"
        A window counts as tissue if at least this share of its area is, or if its centre is.
    roi : (y0, x0, y1, x1) or sequence of (N, 2) polygons, optional
        Level-0 pixels; windows whose centre lies in it are computed.

    Raises
    ------
    GridError
        If nothing is left to compute, or an argument makes no sense.
    """
    selection = choose_windows(slide, grid, tissue, tissue_min=tissue_min, roi=roi)
    if selection.count == 0:
        raise GridError("no window is left to compute", slide.name, _advice(roi, tissue))
    return selection


def choose_windows(
    slide: Slide,
    grid: WindowGrid,
    tissue: TissueMask,
    *,
    tissue_min: float | str = 0.1,
    roi: Roi | None = None,
) -> Selection:
    """Decide like `select_windows`; that none is left is no error."""
    share = None if tissue_min == "centre" else _share(tissue_min)
    wanted = windows_wanted(slide, grid, roi)
    state = np.where(wanted, PENDING, OUTSIDE).astype(np.uint8)
    if tissue.decides:
        state[wanted & ~_on_tissue(tissue, grid, share)] = BACKGROUND
    state[grid.hanging] |= HANGS_OVER
    return Selection(state)


def windows_wanted(slide: Slide, grid: WindowGrid, roi: Roi | None) -> Mask:
    """(Y, X): windows that touch the scanned bounds and whose centre lies in the region."""
    wanted = _touching_bounds(slide, grid)
    if roi is not None:
        wanted &= _centre_inside(grid, roi)
    return wanted


def _advice(roi: Roi | None, tissue: TissueMask) -> str:
    causes = []
    if roi is not None:
        causes.append("the region lies on the slide (y0, x0, y1, x1 in level-0 pixels)")
    if tissue.decides:
        causes.append("the tissue rule is right (tissue='none' computes all)")
    return "check that " + " and that ".join(causes or ["the slide was scanned at all"])


def _share(tissue_min: float | str) -> float:
    try:
        share = float(tissue_min)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise GridError(f"tissue_min is {tissue_min!r}", do="give a share in 0…1, or 'centre'")
    return share


def _on_tissue(tissue: TissueMask, grid: WindowGrid, share: float | None) -> Mask:
    """Windows of which at least `share` is tissue; None: whose centre is."""
    if tissue.windows is not None:
        return tissue.windows
    if share is None:
        return tissue_at_centre(tissue, grid)
    # A hair below the share: 0.1 of a window must not be lost to rounding.
    return tissue_share(tissue, grid) >= share - 1e-6


def _touching_bounds(slide: Slide, grid: WindowGrid) -> Mask:
    y, x, height, width = slide.bounds
    rows, cols = grid.spans_level0
    down = (rows[:, 1] > y) & (rows[:, 0] < y + height)
    across = (cols[:, 1] > x) & (cols[:, 0] < x + width)
    return down[:, None] & across[None, :]


def _centre_inside(grid: WindowGrid, roi: Roi) -> Mask:
    rows, cols = (span.mean(1) for span in grid.spans_level0)
    box, polygons = _parts_of(roi)
    if box is not None:
        y0, x0, y1, x1 = box
        return ((rows >= y0) & (rows < y1))[:, None] & ((cols >= x0) & (cols < x1))[None, :]
    inside = np.zeros(grid.shape, bool)
    for polygon in polygons:
        add_polygon(inside, rows, cols, polygon)
    return inside


def _parts_of(roi: Any) -> tuple[NDArray[np.float64] | None, list[Polygon]]:
    """The region as a box (4,), or as polygons (N, 2); one polygon need not be in a list."""
    try:
        parts = [np.asarray(part, np.float64) for part in roi]
    except (TypeError, ValueError):
        raise _no_region(roi) from None
    if len(parts) == 4 and all(part.ndim == 0 for part in parts) and not np.isnan(parts).any():
        return np.array(parts), []
    if parts and all(part.shape == (2,) for part in parts):
        parts = [np.array(parts)]
    for part in parts:
        if part.ndim != 2 or part.shape[1] != 2 or len(part) < 3 or not np.isfinite(part).all():
            raise _no_region(roi)
    return None, parts


def _no_region(roi: object) -> GridError:
    return GridError(
        f"the region is {one_line(repr(roi), 100)}",
        do="give (y0, x0, y1, x1) or (N, 2) polygons, level-0 pixels",
    )


def add_polygon(
    inside: Mask, rows: NDArray[np.float64], cols: NDArray[np.float64], polygon: Polygon
) -> None:
    """Mark the places (Y, X), at the given rows and columns, that lie in a polygon."""
    from skimage.measure import points_in_poly

    # Only around it: an annotated slide may have hundreds of small ones.
    (top, left), (bottom, right) = polygon.min(0), polygon.max(0)
    i, j = np.searchsorted(rows, [top, bottom + 1]), np.searchsorted(cols, [left, right + 1])
    near = np.s_[i[0] : i[1], j[0] : j[1]]
    if inside[near].size:
        points = np.stack(np.meshgrid(rows[near[0]], cols[near[1]], indexing="ij"), axis=-1)
        inside[near] |= points_in_poly(points.reshape(-1, 2), polygon).reshape(inside[near].shape)
