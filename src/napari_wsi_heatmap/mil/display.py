"""Raw scores as they are drawn: 0…1, of each class for itself, with limits that hold still.

Three ways, all of them taken of raw values:

``percentile``
    Share of the patches whose score is not above a patch's (ties share the mean rank): colours
    are spread evenly over the slide, however skewed the scores are. CLAM's, over 100.
``minmax``
    Linear from the lowest score to the highest.
``raw``
    As it is, for scores that are in 0…1 already, such as weights; what is beyond is cut off.

**Stable limits.** While a run goes on, what has come so far decides. `GrowingLimits` widens and
never narrows, and only when a value lies beyond: a colour once drawn changes only when a more
extreme patch comes, and of N patches in any order, that happens about 2 ln N times in all. At the
end they are those of all values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from napari_wsi_heatmap.errors import ModelOutputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

How = Literal["percentile", "minmax", "raw"]
WAYS: Final[tuple[str, ...]] = get_args(How)
MIDDLE: Final = 0.5
"""Of scores that are all alike, drawn by `minmax`."""


def to_display(scores: Any, how: str = "percentile", reference: Any = None) -> Floats:
    """Raw scores as 0…1.

    Parameters
    ----------
    scores : array-like
        Raw scores of one class, of any shape; NaN stays NaN.
    how : {"percentile", "minmax", "raw"}
        See the module.
    reference : array-like, optional
        Scores that decide instead: those of a coarser pass, as CLAM's reference, or of the whole
        slide where only a part is drawn. For "minmax" the two limits suffice.

    Returns
    -------
    float64, of the shape of `scores`

    Raises
    ------
    ModelOutputError
        If there is no such way.
    """
    if how not in WAYS:
        raise ModelOutputError(f"no way {how!r} to draw scores", do=f"choose {', '.join(WAYS)}")
    values = np.asarray(scores, np.float64)
    if how == "raw":
        return np.clip(values, 0, 1)
    finite = np.isfinite(values)
    drawn = np.full(values.shape, np.nan)
    known = values[finite] if reference is None else _finite(reference)
    if known.size:
        drawn[finite] = _percentile(values[finite], known) if how == "percentile" else (
            _between(values[finite], float(known.min()), float(known.max()))
        )  # fmt: skip
    return drawn


def _finite(reference: ArrayLike) -> Floats:
    values = np.asarray(reference, np.float64).ravel()
    return values[np.isfinite(values)]


def _percentile(values: Floats, reference: Floats) -> Floats:
    """Mean rank among the reference, over its size: scipy's percentileofscore 'rank', over 100.

    Of a value that is in the reference that is its rank with ties shared, in 1/N … 1.
    """
    ordered = np.sort(reference)
    left = np.searchsorted(ordered, values, "left")
    right = np.searchsorted(ordered, values, "right")
    # In scipy's order of operations, which CLAM's pictures show in their last bits.
    return (left + right + (left < right)) * (50.0 / len(ordered)) / 100


def _between(values: Floats, low: float, high: float) -> Floats:
    if high <= low:
        return np.full(values.shape, MIDDLE)
    return np.clip((values - low) / (high - low), 0, 1)


class GrowingLimits:
    """Lowest and highest score of each class so far; they widen and never narrow.

    Attributes
    ----------
    changes : int
        How often they have widened; a viewer compares it to know whether to draw anew.
    """

    def __init__(self) -> None:
        self._low: Floats | None = None
        self._high: Floats | None = None
        self.changes = 0

    def add(self, scores: NDArray[Any]) -> bool:
        """Take raw scores (n, K); returns whether a limit has widened."""
        finite = scores[np.isfinite(scores).all(1)].astype(np.float64)
        if not len(finite):
            return False
        low, high = finite.min(0), finite.max(0)
        if self._low is not None and self._high is not None:
            low, high = np.minimum(low, self._low), np.maximum(high, self._high)
            if (low == self._low).all() and (high == self._high).all():
                return False
        self._low, self._high = low, high
        self.changes += 1
        return True

    def restart(self, scores: NDArray[Any]) -> None:
        """Begin anew: all scores (n, K) have changed at once, as where patches see each other."""
        self._low = self._high = None
        self.add(scores)

    def of(self, branch: int) -> tuple[float, float] | None:
        """(low, high) of a class; None while there are no scores."""
        if self._low is None or self._high is None:
            return None
        column = branch if len(self._low) > 1 else 0
        return float(self._low[column]), float(self._high[column])


class FrozenReference:
    """Scores that percentiles are taken of while more come: frozen until there are twice as many.

    So a patch that has its colour keeps it until the bag has doubled.
    """

    def __init__(self) -> None:
        self._values: NDArray[Any] | None = None
        self.changes = 0

    def look(self, scores: NDArray[Any], number: int) -> bool:
        """Take over scores (n, K) anew if they are twice as many; returns whether they were."""
        if self._values is not None and number < 2 * len(self._values):
            return False
        self.restart(scores)
        return True

    def restart(self, scores: NDArray[Any]) -> None:
        """Take over scores (n, K)."""
        self._values = np.array(scores[np.isfinite(scores).all(1)])
        self.changes += 1

    def of(self, branch: int) -> NDArray[Any] | None:
        """Scores (n,) of a class; None while there are none."""
        if self._values is None or not len(self._values):
            return None
        return self._values[:, branch if self._values.shape[1] > 1 else 0]
