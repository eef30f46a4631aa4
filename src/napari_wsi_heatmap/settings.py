"""What a user may choose for a run; script, command line and dock take their defaults from here."""

from __future__ import annotations

import math
import operator
import os
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.blend import BLENDS
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.grid import EDGES
from napari_wsi_heatmap.order import ORDERS
from napari_wsi_heatmap.sides import FARTHEST, pair_of
from napari_wsi_heatmap.tissuerules.given import plain_rule, rule_to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.grid import LevelChoice
    from napari_wsi_heatmap.order import Box
    from napari_wsi_heatmap.selection import Roi
    from napari_wsi_heatmap.sides import Sides

PRECISIONS = ("float32", "bfloat16", "float16")
RESIZE_KINDS = ("pillow", "torch")
MOST_READERS = 256


@dataclass(frozen=True)
class RunSettings:
    """Settings of one run; frozen, so that later edits cannot reach it.

    Raises
    ------
    GridError
        Naming the first that cannot be.
    """

    window: Sides | None = None
    """Pixels that the model sees, one or (h, w); None: the model's own."""
    stride: Sides | None = None
    """Pixels at the same scale; None: the window."""
    icc: bool = False
    """Models see sRGB by the file's ICC profile; False: pixels as stored."""
    mpp: float | None = None
    """µm per pixel at which the model sees; None: the model's own."""
    level: LevelChoice = None
    """Read this level as it is, instead of `mpp`."""
    edge: str = "pad"
    blend: str = "mean"
    """How a dense model's windows share the cells where they overlap."""
    disagreement: bool = False
    """Of a dense model also keep, as a channel, how far windows differ where they overlap."""
    tissue: Any = "otsu"
    """A rule's name, a file, or from Python a mask (H, W) or polygons; see `find_tissue`."""
    tissue_min: float | str = 0.1
    """Share of a window's area that must be tissue, or "centre"."""
    roi: Roi | None = None
    """(y0, x0, y1, x1) or polygons, level-0 pixels; None: the whole slide."""
    device: str = "auto"
    batch_size: int | None = None
    """None: the model's own, or measured at the dry run; at least 2."""
    precision: str = "float32"
    compile: bool = False
    """By torch.compile: starting takes a minute longer, heavy models then run faster."""
    resize: str = "pillow"
    readers: int = 0
    """Threads that read; 0: two, or more on machines with many cores."""
    memory: int = 384
    """MB for regions in flight and decoded tiles, halves of it each."""
    order: str = "raster"
    viewport: Box | None = None
    """(y0, x0, y1, x1) level-0 pixels that come first with ``order="viewport"``."""

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            value = getattr(self, name)
            if value is not None or name in REQUIRED:
                object.__setattr__(self, name, check(name, value))
        if self.level is not None and self.mpp is not None:
            raise GridError("both mpp and level are given", do="give one of them")

    @classmethod
    def of(cls, settings: dict[str, Any]) -> RunSettings:
        """Make settings from keyword arguments; an unknown one is a TypeError that lists all."""
        known = [field.name for field in fields(cls)]
        unknown = [name for name in settings if name not in known]
        if unknown:
            raise TypeError(f"no setting {unknown[0]!r}; there are {', '.join(known)}")
        return cls(**settings)

    @property
    def reader_threads(self) -> int:
        """Number of threads that read."""
        return self.readers or min(8, max(2, (os.cpu_count() or 2) // 2))

    @property
    def memory_bytes(self) -> int:
        """Bytes for regions in flight and decoded tiles together."""
        return self.memory << 20

    def to_json(self, level: int, window: tuple[int, int], mpp: float | None) -> dict[str, Any]:
        """Everything that a later run needs to continue this one, a model's own wishes included."""
        scale = {"mpp": mpp} if self.level is None and mpp else {"level": level}
        chosen = vars(self) | {"level": None, "mpp": None, "window": window} | scale
        chosen["tissue"] = rule_to_json(self.tissue)
        return {k: _plain(v) for k, v in chosen.items() if k != "viewport"}


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise GridError(f"{name} is {value!r}", do=f"choose one of {', '.join(choices)}")
        return value

    return check


def _whole(low: int, high: int = sys.maxsize) -> Callable[[str, Any], int]:
    most = "" if high == sys.maxsize else f", at most {high}"

    def check(name: str, value: Any) -> int:
        try:
            number = operator.index(value)
        except TypeError:
            number = low - 1
        if isinstance(value, bool) or not low <= number <= high:
            raise GridError(f"{name} is {value!r}", do=f"give a whole number, at least {low}{most}")
        return number

    return check


def _positive(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise GridError(f"{name} is {value!r}", do="give µm per pixel, above 0")
    return number


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise GridError(f"{name} is {value!r}", do="give True or False")
    return bool(value)


def _box(name: str, value: Any) -> Box:
    try:
        y0, x0, y1, x1 = (float(side) for side in value)
    except (TypeError, ValueError):
        y0 = x0 = y1 = x1 = math.nan
    if any(map(math.isnan, (y0, x0, y1, x1))):
        raise GridError(f"{name} is {value!r}", do="give (y0, x0, y1, x1) in level-0 pixels")
    return y0, x0, y1, x1


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "window": lambda name, value: pair_of(value, name),
    "stride": lambda name, value: pair_of(value, name),
    "mpp": _positive,
    "edge": _one_of(*EDGES),
    "tissue": lambda name, value: plain_rule(value),
    "blend": _one_of(*BLENDS),
    "device": lambda name, value: str(value),
    "batch_size": _whole(2),
    "precision": _one_of(*PRECISIONS),
    "resize": _one_of(*RESIZE_KINDS),
    "readers": _whole(0, MOST_READERS),
    "memory": _whole(1),
    "order": _one_of(*ORDERS),
    "viewport": _box,
    "icc": _flag,
    "disagreement": _flag,
    "compile": _flag,
}
"""Each returns the value in its one form. Level, region and a rule's file need the slide."""
REQUIRED = (
    "edge", "tissue", "blend", "device", "precision",
    "resize", "readers", "memory", "order", "icc", "compile", "disagreement",
)  # fmt: skip
"""Settings that have no None."""


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists, NumPy scalars as Python's, for JSON."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(FARTHEST, value)  # JSON knows no infinity, and no slide reaches as far
    return value
