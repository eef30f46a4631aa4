"""What a user may choose for a stream."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.settings import RunSettings

if TYPE_CHECKING:
    Hook = Callable[..., Any] | None

SAMPLINGS = ("sliding", "random")
ON_ERROR = ("report", "raise")
WEIGHTS = ("equal", "area")
OF_RUNS = (
    "window", "stride", "mpp", "level", "edge", "tissue", "tissue_min", "roi", "resize", "icc",
    "readers", "memory", "device",
)  # fmt: skip
"""Settings of `RunSettings` that a stream has, too."""


@dataclass(frozen=True)
class StreamSettings:
    """Settings of one stream; frozen, so that later edits cannot reach it.

    Raises
    ------
    GridError
        Naming the first that cannot be.
    """

    reading: RunSettings
    """Window, level, tissue and all else that a stream has in common with a run."""
    batch_size: int = 32
    sampling: str = "sliding"
    seed: int = 0
    epoch_size: int | None = None
    """Random windows of one pass; None: it never ends."""
    windows_per_region: int = 64
    """Random windows cut from each region that is read."""
    region_size: int = 2048
    """px of the level read: side of a region that random windows are cut from."""
    mix: int = 8
    """Regions whose random windows are mixed with each other."""
    weights: Any = "equal"
    """How often random regions are of each slide."""
    on_error: str = "report"
    transform: Hook = None
    patch_transform: Hook = None
    regions: Hook = None
    cut: Hook = None
    read: Hook = None
    shard: tuple[int, int] = field(default=(0, 1))
    """(i, n): the i-th of n parts of all windows."""

    def __post_init__(self) -> None:
        for name, low in LEAST.items():
            value = getattr(self, name)
            if value is not None or name not in ("epoch_size",):
                object.__setattr__(self, name, whole(name, value, low))
        one_of("sampling", self.sampling, SAMPLINGS)
        one_of("on_error", self.on_error, ON_ERROR)
        for name in ("transform", "patch_transform", "regions", "cut", "read"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise GridError(f"{name} is {getattr(self, name)!r}", do="give a function")
        self._refuse_misfits()

    def _refuse_misfits(self) -> None:
        part, parts = self.shard
        if not 0 <= part < parts:
            raise GridError(f"shard is {self.shard}", do="give (i, n), i from 0 to n - 1")
        plain = isinstance(self.weights, str) and self.weights == "equal"
        if self.sampling == "sliding" and not (plain and self.epoch_size is None):
            raise GridError(
                "a sliding window sees every window once",
                do="leave out epoch_size and weights, or choose sampling='random'",
            )
        if isinstance(self.weights, str):
            one_of("weights", self.weights, WEIGHTS)
        elif np.iterable(self.weights) and not isinstance(self.weights, Mapping):
            object.__setattr__(self, "weights", list(self.weights))
        elif not isinstance(self.weights, Mapping) and not callable(self.weights):
            raise GridError(
                f"weights is {self.weights!r}",
                do=f"give {' or '.join(WEIGHTS)}, a number for each slide, or a function of one",
            )

    @classmethod
    def of(cls, settings: dict[str, Any]) -> StreamSettings:
        """Make settings from keyword arguments; an unknown one is a TypeError that lists all."""
        own = [f.name for f in fields(cls) if f.name != "reading"]
        unknown = [name for name in settings if name not in (*own, *OF_RUNS)]
        if unknown:
            raise TypeError(f"no setting {unknown[0]!r}; there are {', '.join((*own, *OF_RUNS))}")
        shared = {"window": 224, "tissue": "none", "device": "cpu"}
        shared |= {name: value for name, value in settings.items() if name in OF_RUNS}
        mine = {name: value for name, value in settings.items() if name in own}
        return cls(RunSettings.of(shared), **mine)

    @property
    def random(self) -> bool:
        """Whether windows are drawn at random."""
        return self.sampling == "random"


LEAST = {
    "batch_size": 1,
    "seed": 0,
    "epoch_size": 1,
    "windows_per_region": 1,
    "region_size": 1,
    "mix": 1,
}
"""Settings that are whole numbers, and the smallest that each may be."""


def whole(name: str, value: Any, low: int) -> int:
    """Check a whole number."""
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or number < low:
        raise GridError(f"{name} is {value!r}", do=f"give a whole number, at least {low}")
    return number


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise GridError(f"{name} is {value!r}", do=f"choose one of {', '.join(choices)}")


def weight(value: Any, of: Any) -> float:
    """Check the weight of a slide."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise GridError(f"the weight of {of!r} is {value!r}", do="give a number, at least 0")
    return number
