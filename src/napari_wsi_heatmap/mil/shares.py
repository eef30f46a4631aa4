"""Which patches are drawn, and how strongly: their scores as shares 0…1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.ground import Roi

    Floats = NDArray[np.float64]


def with_score(coords: NDArray[np.generic], scores: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Places (N, 2) and scores (N,) of the patches that have a score."""
    places = np.asarray(coords, np.float64)
    values = np.asarray(scores, np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if places.ndim != 2 or places.shape[1] != 2 or values.shape != places.shape[:1]:
        raise ExportError(
            f"{values.shape} scores for {places.shape} coordinates", do="give (N,) and (N, 2)"
        )
    known = ~np.isnan(values)
    if not known.any():
        raise ExportError("no patch has a score", do="check what made them")
    return places[known], values[known]


def in_region(places: Floats, values: Floats, roi: Roi | None) -> tuple[Floats, Floats]:
    """Those with their top left in the region, placed from its top left on."""
    if roi is None:
        return places, values
    inside = ((places >= roi[:2]) & (places <= roi[2:])).all(1)
    if not inside.any():
        y0, x0, y1, x1 = roi
        what = f"no patch lies in the region y {y0:g} to {y1:g}, x {x0:g} to {x1:g}"
        raise ExportError(what, do="give level-0 pixels of a region with patches")
    return places[inside] - roi[:2], values[inside]


def as_shares(values: Floats, percentiles: bool) -> Floats:
    """What is drawn, 0…1."""
    if percentiles:
        return percentile_ranks(values) / 100
    if values.min() < 0 or values.max() > 1:
        raise ExportError(
            f"scores are {values.min():.3g} to {values.max():.3g}, to draw they must be 0…1",
            do="give percentiles=True, or to_display(scores)",
        )
    return values


def percentile_ranks(values: Floats) -> Floats:
    """Rank of each among all, in per cent; equal ones share the mean of theirs."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(values, "average") / len(values) * 100
    return ranks


def least_share(binarize: bool, threshold: float, patches: int) -> float:
    """What a patch must have to be drawn; -1 stands for 1 / number of patches."""
    if not binarize:
        return 0.0
    return 1 / patches if threshold < 0 else threshold


def pair(size: float | tuple[float, float]) -> tuple[float, float]:
    """(height, width) of one number or two."""
    return size if isinstance(size, tuple) else (size, size)


def refuse_nonsense(alpha: float, threshold: float) -> None:
    """ExportError for an alpha or a threshold that is none."""
    if not 0 <= alpha <= 1:
        raise ExportError(f"alpha is {alpha}", do="give 0…1")
    if not threshold <= 1:
        raise ExportError(f"the threshold is {threshold}", do="give 0…1, or -1 for 1 / patches")
