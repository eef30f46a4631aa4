"""Which windows of a grid a run computes: region of interest, scanned bounds, tissue.

The result is the initial state of every window; positions that are left out keep their place on
the lattice and say why they are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError
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
    wanted = _touching_bounds(slide, grid)
    if roi is not None:
        wanted &= _centre_inside(grid, roi)
    state = np.where(wanted, PENDING, OUTSIDE).astype(np.uint8)
    if tissue.mask is not None:
        state[wanted & ~_on_tissue(tissue, grid, tissue_min)] = BACKGROUND
    state[grid.hanging] |= HANGS_OVER
    selection = Selection(state)
    if selection.count == 0:
        raise GridError("no window is left to compute", slide.name, _advice(roi, tissue))
    return selection


def _advice(roi: Roi | None, tissue: TissueMask) -> str:
    causes = []
    if roi is not None:
        causes.append("the region lies on the slide (y0, x0, y1, x1 in level-0 pixels)")
    if tissue.mask is not None:
        causes.append("the tissue rule is right (tissue='none' computes all)")
    return "check that " + " and that ".join(causes or ["the slide was scanned at all"])


def _on_tissue(tissue: TissueMask, grid: WindowGrid, tissue_min: float | str) -> Mask:
    if tissue_min == "centre":
        return tissue_at_centre(tissue, grid)
    try:
        share = float(tissue_min)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise GridError(f"tissue_min is {tissue_min!r}", do="give a share in 0…1, or 'centre'")
    # A hair below the share: 0.1 of a window must not be lost to rounding.
    return tissue_share(tissue, grid) >= share - 1e-9


def _touching_bounds(slide: Slide, grid: WindowGrid) -> Mask:
    y, x, height, width = slide.bounds
    rows, cols = grid.spans_level0
    down = (rows[:, 1] > y) & (rows[:, 0] < y + height)
    across = (cols[:, 1] > x) & (cols[:, 0] < x + width)
    return down[:, None] & across[None, :]


def _centre_inside(grid: WindowGrid, roi: Roi) -> Mask:
    rows, cols = (span.mean(1) for span in grid.spans_level0)
    if _is_box(roi):
        y0, x0, y1, x1 = (float(v) for v in roi)
        return ((rows >= y0) & (rows < y1))[:, None] & ((cols >= x0) & (cols < x1))[None, :]
    inside = np.zeros(grid.shape, bool)
    for polygon in roi:
        inside |= _inside_polygon(rows, cols, np.asarray(polygon, np.float64))
    return inside


def _is_box(roi: Roi) -> bool:
    return len(roi) == 4 and all(np.ndim(v) == 0 for v in roi)


def _inside_polygon(rows: NDArray[np.float64], cols: NDArray[np.float64], polygon: Polygon) -> Mask:
    from skimage.measure import points_in_poly

    if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3:
        raise GridError(
            f"a region of shape {polygon.shape}", do="give (y0, x0, y1, x1) or (N, 2) polygons"
        )
    points = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    inside: Mask = points_in_poly(points, polygon)
    return inside.reshape(len(rows), len(cols))
