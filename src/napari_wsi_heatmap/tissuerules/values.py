"""What a rule with a threshold compares with it, kept: another threshold needs no pixel again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.tissue import TissueMask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64] | NDArray[np.int16]
    Mask = NDArray[np.bool_]

BEFORE, AFTER = -1, 256
"""In maps of whole numbers 0…255: nothing to look at, and damage."""


@dataclass(frozen=True)
class TissueValues:
    """A map of values, and the threshold that they must be above.

    Attributes
    ----------
    rule : str
        otsu, variance or variance2.
    values : (h, w) float64 or int16
        Variance of each window or tile, or saturation 0…255 of each pixel. NaN (-1) where nothing
        was looked at, infinite (256) where damage lies, which counts as tissue.
    threshold : float
    first : (h / n, w / n) float64, or None
        Variance of the squares of n x n tiles that the first of two passes looks at: a tile is
        tissue if its square is above the threshold as well.
    downsample : (float, float)
        (y, x) level-0 pixels per value; without a meaning if `windows`.
    windows : bool
        Whether there is a value for each window of a grid (Y, X).
    notice : str, optional
        Why the threshold means nothing: then everything counts as tissue.
    automatic : float, optional
        Threshold that is in force when none is given; None: none would mean anything.
    more : dict
        What else the record says.
    """

    rule: str
    values: Values
    threshold: float
    first: NDArray[np.float64] | None = None
    downsample: tuple[float, float] = (1.0, 1.0)
    windows: bool = False
    notice: str | None = None
    automatic: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def moved(self, threshold: float) -> TissueValues:
        """The same values with a threshold that somebody has chosen; takes no time."""
        return replace(self, threshold=threshold, notice=None)

    def tissue(self) -> TissueMask:
        """What is above the threshold: bit for bit what a run with this rule finds."""
        record = {"rule": self.rule, "threshold": self.threshold, **self.more}
        if self.notice is not None:
            record |= {"rule": "none", "asked": self.rule, "notice": self.notice}
            return TissueMask(None, record=record)
        if self.windows:
            return TissueMask(None, record=record, windows=self.mask())
        return TissueMask(self.mask(), self.downsample, record)

    def mask(self) -> Mask:
        """(h, w): where the values are above the threshold, those of the first pass too."""
        if self.first is None:
            return above(self.values, self.threshold)
        return above_both(self.values, self.first, self.threshold)

    def at(self, y: int, x: int) -> float:
        """The value at a place of the map: NaN if unknown, infinite if damaged."""
        value = self.values[y, x].item()
        if isinstance(value, int):
            return {BEFORE: math.nan, AFTER: math.inf}.get(value, value)
        return value

    def first_at(self, y: int, x: int) -> float | None:
        """The value that the first pass saw around a place, None if there is one pass."""
        if self.first is None:
            return None
        side = self.values.shape[0] // self.first.shape[0]
        return float(self.first[y // side, x // side])


def above(values: Values, threshold: float) -> Mask:
    """Whether values are above a threshold; NaN is not."""
    # Whole numbers are compared as such: many times as fast as after a conversion.
    limit = threshold if values.dtype.kind == "f" else math.floor(min(threshold, AFTER - 1))
    mask: Mask = values > limit
    return mask


def above_both(values: Values, first: Values, threshold: float) -> Mask:
    """Whether values (h, w) are, and those of the squares (h / n, w / n) that they lie in."""
    side = values.shape[0] // first.shape[0]
    squares = above(first, threshold).repeat(side, 0).repeat(side, 1)
    return above(values, threshold) & squares
