"""What a user may choose for a run; script, command line and dock take their defaults from here."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.grid import EDGES
from napari_wsi_heatmap.order import ORDERS

if TYPE_CHECKING:
    from napari_wsi_heatmap.grid import LevelChoice, Sides
    from napari_wsi_heatmap.order import Box
    from napari_wsi_heatmap.selection import Roi

PRECISIONS = ("float32", "bfloat16", "float16")
RESIZE_KINDS = ("pillow", "torch")


@dataclass(frozen=True)
class RunSettings:
    """Settings of one run; frozen, so that later edits cannot reach it."""

    window: Sides | None = None
    """Pixels that the model sees, one or (h, w); None: the model's own."""
    stride: Sides | None = None
    """Pixels at the same scale; None: the window."""
    mpp: float | None = None
    """µm per pixel at which the model sees; None: the model's own."""
    level: LevelChoice = None
    """Read this level as it is, instead of `mpp`."""
    edge: str = "pad"
    tissue: str = "otsu"
    tissue_min: float | str = 0.1
    """Share of a window's area that must be tissue, or "centre"."""
    roi: Roi | None = None
    """(y0, x0, y1, x1) or polygons, level-0 pixels; None: the whole slide."""
    device: str = "auto"
    batch_size: int | None = None
    """None: the model's own, or measured at the dry run; at least 2."""
    precision: str = "float32"
    resize: str = "pillow"
    readers: int = 0
    """Threads that read; 0: two, or more on machines with many cores."""
    memory: int = 384
    """MB for regions in flight and decoded tiles, halves of it each."""
    order: str = "raster"
    viewport: Box | None = None
    """(y0, x0, y1, x1) level-0 pixels that come first with ``order="viewport"``."""

    def __post_init__(self) -> None:
        _one_of("edge", self.edge, EDGES)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("resize", self.resize, RESIZE_KINDS)
        _one_of("order", self.order, ORDERS)
        if self.level is not None and self.mpp is not None:
            raise GridError("both mpp and level are given", do="give one of them")
        if self.batch_size is not None and self.batch_size < 2:
            raise GridError(f"batch_size is {self.batch_size}", do="give at least 2")
        if self.memory < 1 or self.readers < 0:
            raise GridError("memory and readers must be positive")

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
        chosen = asdict(self) | {"level": None, "mpp": None, "window": window} | scale
        return {k: _plain(v) for k, v in chosen.items() if k != "viewport"}


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise GridError(f"{name} is {value!r}", do=f"choose one of {', '.join(choices)}")


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists, NumPy scalars as Python's, for JSON."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
