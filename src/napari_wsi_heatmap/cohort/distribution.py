"""What values a cohort's maps hold: limits exactly, percentiles nearly, in a few kB a slide.

A float32 is counted under its upper 16 bits: sign, exponent and 7 bits of the mantissa. Values
in one bin differ by less than 2⁻⁷ of their size, so counts of any number of slides add up to
percentiles that are never further than that (0.8 %; 1e-38 around 0) from the value that has the
rank in question, whatever the range.
Count, least, largest and mean are exact (the mean in double precision).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Values = NDArray[np.float32]

EXACTNESS = (
    "count, min, max and mean are exact; a percentile is within 2^-7 (0.8 %) of the value that "
    "has this rank"
)
PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
_SIGN, _AT_ONCE = np.uint32(1 << 31), 1 << 20


@dataclass
class Distribution:
    """Of the finite values of one channel.

    Attributes
    ----------
    count : int
    least, largest : float
        inf and -inf without values.
    total : float
        Their sum.
    bins : dict
        Upper 16 bits, in the order of the values -> how many.
    """

    count: int = 0
    least: float = np.inf
    largest: float = -np.inf
    total: float = 0.0
    bins: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Any) -> Distribution:
        """Count values of any shape; what is not finite is left out."""
        found, flat = cls(), np.asarray(values, np.float32).reshape(-1)
        for first in range(0, flat.size, _AT_ONCE):
            found.take(_counted(flat[first : first + _AT_ONCE]))
        return found

    def take(self, other: Distribution) -> None:
        """Add another one."""
        self.count += other.count
        self.least, self.largest = min(self.least, other.least), max(self.largest, other.largest)
        self.total += other.total
        for key, number in other.bins.items():
            self.bins[key] = self.bins.get(key, 0) + number

    @property
    def mean(self) -> float:
        """NaN without values."""
        return self.total / self.count if self.count else float("nan")

    def percentile(self, percent: float) -> float:
        """Value of the rank nearest to so many percent; see the module for how exact it is.

        Linear within a bin, and never beyond the least and the largest value. NaN without values.
        """
        if not self.count:
            return float("nan")
        wanted, before = round(percent / 100 * (self.count - 1)), 0
        for key in sorted(self.bins):
            number = self.bins[key]
            if before + number > wanted:
                low, high = _edges(key)
                inside = low + (high - low) * (wanted - before + 0.5) / number
                return float(min(max(inside, self.least), self.largest))
            before += number
        return self.largest

    def limits(self, low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
        """Limits for a colour map: two percentiles, or all of it where they coincide."""
        ends = self.percentile(low), self.percentile(high)
        return ends if ends[0] < ends[1] else (self.least, self.largest)

    def to_json(self, percentiles: Sequence[float] = PERCENTILES) -> dict[str, Any]:
        """What people want to know, as plain values; None where there is no value."""
        if not self.count:
            return {"count": 0, "min": None, "max": None, "mean": None, "limits": None}
        return {
            "count": self.count,
            "min": self.least,
            "max": self.largest,
            "mean": self.mean,
            "limits": list(self.limits()),
            "percentiles": {f"{p:g}": self.percentile(p) for p in percentiles},
        }


def added(parts: Iterable[dict[str, Distribution]]) -> dict[str, Distribution]:
    """Distributions by channel, of several slides together."""
    found: dict[str, Distribution] = {}
    for part in parts:
        for name, distribution in part.items():
            found.setdefault(name, Distribution()).take(distribution)
    return found


def _counted(values: Values) -> Distribution:
    values = values[np.isfinite(values)]
    if not values.size:
        return Distribution()
    keys, numbers = np.unique(_keys(values), return_counts=True)
    bins = dict(zip(keys.tolist(), numbers.tolist(), strict=True))
    total = float(values.sum(dtype=np.float64))
    return Distribution(values.size, float(values.min()), float(values.max()), total, bins)


def _keys(values: Values) -> NDArray[np.uint32]:
    """Upper 16 bits, in the order of the values: those of negative ones are turned round."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN) >> np.uint32(16)


def _edges(key: int) -> tuple[float, float]:
    """Least and largest value of a bin."""
    ordered = np.array([key << 16, key << 16 | 0xFFFF], np.uint32)
    bits = np.where(ordered & _SIGN, ordered & ~_SIGN, ~ordered)
    low, high = bits.astype(np.uint32).view(np.float32).tolist()
    return low, high
