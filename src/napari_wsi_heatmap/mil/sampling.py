"""Which patches are saved as pictures: the highest, the lowest, or some of a range of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.config import Sample


def chosen_patches(scores: NDArray[np.generic], sample: Sample) -> NDArray[np.int64]:
    """Choose patches of a slide.

    Parameters
    ----------
    scores : (N,)
    sample : Sample
        Mode ``topk`` or ``bottomk``: the k highest or lowest. ``range``: k of those whose rank, a
        share of all in 0…1, lies from `score_start` to `score_end`, drawn at random by `seed`.

    Returns
    -------
    (n,) int64
        Indices, n at most k. In the order of rank: of ``bottomk`` the lowest first, else the
        highest first; equal ones as they stand.

    Raises
    ------
    ExportError
        If no patch lies in the range.
    """
    values = np.asarray(scores, np.float64).ravel()
    if sample.mode == "bottomk":
        return np.argsort(values, kind="stable")[: sample.k]
    order = np.argsort(-values, kind="stable")
    return order[: sample.k] if sample.mode == "topk" else _of_range(values, order, sample)


def _of_range(
    values: NDArray[np.float64], order: NDArray[np.int64], sample: Sample
) -> NDArray[np.int64]:
    from scipy.stats import rankdata

    ranks = rankdata(values, "average") / len(values)
    inside = (ranks >= sample.score_start) & (ranks <= sample.score_end)
    candidates = order[inside[order]]
    if not len(candidates):
        what = f"no patch has a rank in {sample.score_start:g}…{sample.score_end:g}"
        raise ExportError(what, f"sample {sample.name}", "widen score_start and score_end")
    # In the order of the patches: equal seeds choose the same whatever order the ranks have.
    random = np.random.default_rng(sample.seed)
    count = min(sample.k, len(candidates))
    taken = random.choice(np.sort(candidates), count, replace=False)
    return candidates[np.isin(candidates, taken)]
