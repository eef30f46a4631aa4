"""Which patches of a slide an encoder sees, as a configuration in CLAM's manner says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.clamtissue import Tissue
    from napari_wsi_heatmap.mil.segmentation import Segmentation
    from napari_wsi_heatmap.slides.base import Slide

    Coords = NDArray[np.int64]
    Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PatchSize:
    """How large a patch is, and how far the next one lies; level-0 pixels, (y, x)."""

    size: tuple[float, float]
    step: tuple[float, float]

    @classmethod
    def of(cls, slide: Slide, side: int, level: int, overlap: float = 0.0) -> PatchSize:
        """Size of patches of `side` px of a level.

        Raises
        ------
        GridError
            If there is no such level.
        """
        if level >= len(slide.levels):
            what = f"there is no patch_level {level}"
            raise GridError(what, slide.name, f"choose 0 to {len(slide.levels) - 1}")
        down = slide.levels[level].downsample
        step = max(1, int((1 - overlap) * side))
        return cls((side * down[0], side * down[1]), (step * down[0], step * down[1]))


def patch_corners(
    slide: Slide,
    patch: PatchSize,
    tissue: Tissue,
    how: Segmentation,
    *,
    shifted: bool = True,
    box: Box | None = None,
) -> Coords:
    """Top-left corners (N, 2) (y, x) of patches on tissue, level-0 pixels, row by row.

    Parameters
    ----------
    shifted : bool
        Look at four points about the centre, half-way to the corners; else at the centre.
    box : (y0, x0, y1, x1), optional
        Only patches whose corner lies in it, borders included.

    Raises
    ------
    GridError
        If there is no patch.
    """
    height, width = slide.levels[0].shape
    rows, cols = (
        np.rint(np.arange(0, length, step)).astype(np.int64)
        for length, step in zip((height, width), patch.step, strict=True)
    )
    if not how.use_padding:
        rows = rows[rows + patch.size[0] <= height]
        cols = cols[cols + patch.size[1] <= width]
    corners = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    corners = corners[within(corners, box)] if box is not None else corners
    corners = corners[_on_tissue(corners, patch, tissue, how, shifted)]
    if not len(corners):
        raise GridError("no patch lies on tissue", slide.name, "check its tissue, or x1 … y2")
    return corners


def within(corners: NDArray[Any], box: Box) -> NDArray[np.bool_]:
    """Whether corners (N, 2) lie in (y0, x0, y1, x1), borders included."""
    inside = np.asarray((corners >= box[:2]) & (corners <= box[2:])).all(axis=1)
    return np.asarray(inside)


def _on_tissue(
    corners: Coords, patch: PatchSize, tissue: Tissue, how: Segmentation, shifted: bool
) -> NDArray[np.bool_]:
    size = np.asarray(patch.size)
    centre = corners + size // 2
    points = {"basic": [corners], "center": [centre]}.get(how.contour_fn)
    if points is None:
        shift = size // 2 * 0.5 if shifted else np.zeros(2)
        points = [centre + shift * signs for signs in ((-1, -1), (1, 1), (-1, 1), (1, -1))]
    inside = np.stack([tissue.at(tissue.filled, *point.T) for point in points])
    found = inside.all(0) if how.contour_fn == "four_pt_hard" else inside.any(0)
    on: NDArray[np.bool_] = found & ~tissue.at(tissue.holes, *centre.T)
    return on
