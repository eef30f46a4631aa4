"""What a MIL model says of the part of a slide that is encoded by now.

**What it costs.** The bag so far is scored again when it has grown by `GROWTH`, and only if the
time that all such scorings have taken, with what the next one is expected to take (what the
shortest took, and the rest in proportion to the patches), stays below `SHARE` of the time that the
run has taken. So a costly model is asked more rarely, whatever the encoder and the slide.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_wsi_heatmap.growing import empty_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]

SHARE: Final = 0.08
"""Of the run's time, that scoring the bag so far may take."""
GROWTH: Final = 1.2
"""How many times the patches of last time there must be."""


@dataclass(frozen=True, eq=False)
class SoFar:
    """The slide's prediction, of the patches that are there."""

    patches: int
    """Patches that were scored."""
    planned: int
    """Patches that the whole bag will have, if all can be read."""
    logits: Values
    """(C,)."""
    probabilities: Values
    """(C,), two of one logit."""
    prediction: int | None
    """None without a classifier."""
    branch: int
    """Class whose attention is drawn."""

    @property
    def share(self) -> float:
        """Share of the bag."""
        return self.patches / max(1, self.planned)

    def __str__(self) -> str:
        bag = f"{100 * self.share:.0f} % of the bag"
        if self.prediction is None:
            return f"{bag}, no classifier"
        return f"class {self.prediction} (p {self.probabilities[self.prediction]:.3f}), {bag}"


class Intervals:
    """When to score again; see the module.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._begun = clock, clock()
        self._spent = self._each = 0.0
        self._fixed = math.inf  # of a scoring, however few the patches
        self._last, self._stopped = 0, False

    def stop(self) -> None:
        """Let nothing be scored any more."""
        self._stopped = True

    def due(self, patches: int) -> bool:
        """Whether so many patches are to be scored now."""
        if self._stopped or patches < 1 or patches < self._last * GROWTH:
            return False
        elapsed = self._clock() - self._begun
        expected = self._fixed + self._each * patches
        return self._spent + expected <= SHARE * elapsed or not self._last

    @contextmanager
    def scoring(self, patches: int) -> Iterator[None]:
        """Take the time of a scoring."""
        begun = self._clock()
        yield
        taken = self._clock() - begun
        self._fixed = min(self._fixed, taken)
        self._each = (taken - self._fixed) / patches
        self._spent, self._last = self._spent + taken, patches


class GrowingBag:
    """Features of the patches that have come, in the order of their coming.

    Memory bound: all of them, float32; above 1 GB in a scratch file.

    Parameters
    ----------
    most : int
        Patches that can come.
    length : int
        Of a vector.
    """

    def __init__(self, most: int, length: int) -> None:
        self._features: Values = empty_values((most, length), "features")
        self._index: Index = np.zeros(most, np.int64)
        self._number = 0

    def __len__(self) -> int:
        """Number of patches."""
        return self._number

    def add(self, index: Index, features: Values) -> None:
        """Take patches (n,), (n, D)."""
        end = self._number + len(index)
        self._features[self._number : end] = features
        self._index[self._number : end] = index
        self._number = end

    @property
    def index(self) -> Index:
        """(n,) flat indices of the windows."""
        return self._index[: self._number]

    @property
    def features(self) -> Values:
        """(n, D), a view."""
        return self._features[: self._number]
