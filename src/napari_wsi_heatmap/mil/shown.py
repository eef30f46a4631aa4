"""A result as it is drawn on its slide: one class, one way, exactly where the patches lie.

Channel 0 of what is drawn is 0…1 (or the raw score); all raw values follow it, so that whatever
reads the heatmap, an export say, gets both. Neither another class nor another way scores again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.heatmap import Heatmap
from napari_wsi_heatmap.mil.display import to_display
from napari_wsi_heatmap.models.mil.bag import column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.bags import SlideFeatures
    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.slides.base import Slide

    Values = NDArray[np.float32]

NAMES: Final = {
    "percentile": "rank of the score",
    "minmax": "score, lowest to highest",
    "raw": "raw score",
}
"""Of channel 0, by how it is drawn."""


def drawn(scores: Any, how: str, reference: Any = None) -> Values:
    """Scores as they are drawn, of any shape: 0…1, but raw ones as the model gave them.

    Parameters
    ----------
    scores, how, reference
        See `to_display`.
    """
    if how == "raw":
        return np.array(scores, np.float32)
    return to_display(scores, how, reference).astype(np.float32)


def limits(values: Any, how: str) -> tuple[float, float]:
    """What the colours span: 0…1, of raw scores the lowest and the highest."""
    if how != "raw":
        return 0.0, 1.0
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low, low + 1.0)


def features_of(heatmap: Heatmap, in_dim: int | None = None) -> SlideFeatures:
    """Features that a heatmap holds, in memory or in its store; of a run at hand those so far.

    Raises
    ------
    FeatureError
        If there are none, or they are of another length than `in_dim`.
    """
    from napari_wsi_heatmap.mil.kept import Kept, bag_of

    if heatmap.features is None:
        what, do = "the heatmap has no features", "run an encoder"
        raise FeatureError(what, heatmap.run["model"]["name"], do)
    return bag_of(
        Kept(
            heatmap.state.copy(),
            heatmap.features,
            heatmap.grid.positions,
            heatmap.window_size,
            heatmap.run,
            heatmap.path,
        ),
        in_dim,
    )


def laid(result: MilResult, on: Heatmap | Slide) -> Heatmap:
    """Lay a result on the windows of the heatmap that its features are of, or on a slide.

    Raises
    ------
    FeatureError
        If the features are of another slide.
    StoreError
        If nothing says where the patches lie.
    """
    from napari_wsi_heatmap.mil.resultstore import heatmap_on, listed_heatmap

    if isinstance(on, Heatmap):
        return heatmap_on(result, on)
    if result.coords is not None:
        _refuse_outside(result, on)
    return listed_heatmap(result, on)


def refuse_other_slide(heatmap: Heatmap, slide: Slide) -> None:
    """Refuse a heatmap that was not computed on a slide.

    Raises
    ------
    FeatureError
        Naming both.
    """
    record = heatmap.run["slide"]
    if record["fingerprint"] != slide.fingerprint:
        what = f"the features are of {record['name']}, and the slide is {slide.name}"
        raise FeatureError(what, heatmap.path, "choose the slide that they were made of")


def _refuse_outside(result: MilResult, slide: Slide) -> None:
    shape = slide.levels[0].shape
    assert result.coords is not None
    outside = int(np.count_nonzero((np.asarray(result.coords) >= shape).any(1)))
    if outside:
        what = f"{outside} of {len(result)} patches lie beyond {slide.name}"
        where = result.provenance["features"]["path"]
        raise FeatureError(what, where, "choose the slide that the features were made of")


def shown(base: Heatmap, result: MilResult, branch: int, how: str) -> Heatmap:
    """What is drawn of a result.

    Parameters
    ----------
    base : Heatmap
        The result, as `laid` gives it.
    result : MilResult
    branch : int
        Class whose attention is drawn.
    how : {"percentile", "minmax", "raw"}

    Returns
    -------
    Heatmap
        In memory. Channels: what is drawn (of patches that overlap the mean), the raw score of
        that class, then all raw scores and weights.
    """
    from napari_wsi_heatmap.listmap import ListHeatmap

    scores = result.score_of(branch)
    own = np.stack([drawn(scores, how), scores])
    names = (NAMES[how], *base.names)
    record = _record(base, names, branch, how)
    if isinstance(base, ListHeatmap):
        columns = _spread(own, result, len(base.listed)).T
        listed = np.concatenate([columns, base.listed[:, 1:]], axis=1)
        return ListHeatmap(base.frame.grid, listed, base.state, record)  # type: ignore[arg-type]
    on_grid = _spread(own, result, base.state.size).reshape(2, *base.state.shape)
    values = np.concatenate([on_grid, base.values[1:]])
    return Heatmap(values, base.state, replace(base.frame, channels=len(values)), record)


def _spread(values: Values, result: MilResult, size: int) -> Values:
    """(C, N) of patches -> (C, size) of all windows."""
    index = np.arange(size) if result.index is None else result.index
    spread = np.full((len(values), size), np.nan, np.float32)
    spread[:, index] = values
    return spread


def _record(base: Heatmap, names: Sequence[str], branch: int, how: str) -> dict[str, Any]:
    mil = {**base.run["mil"], "branch": branch, "display": how}
    model = {**base.run["model"], "names": list(names)}
    return {**base.run, "model": model, "mil": mil}


def branches_of(result: MilResult) -> int:
    """Number of classes that have an attention of their own; 1 if one serves all."""
    return int(result.bag.scores.shape[1])


def own_branch(result: MilResult, branch: int | None) -> int:
    """The branch that is meant: the predicted class's unless another is given."""
    return column(result.bag.branch if branch is None else branch, branches_of(result))
