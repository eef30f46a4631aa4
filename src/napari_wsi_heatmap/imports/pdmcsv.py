"""PyDmed's csv: rows as PyDmed wrote them, at the true position of their windows.

Names of the channels stand in the JSON file that `PdmcsvWriter` leaves beside it, if there is one.
Where a window has several values a channel, every one of them is a window of the list, as large as
its share of PyDmed's window.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.exports.pdmcsvwriter import beside
from napari_wsi_heatmap.imports.listed import Listed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Slide

FIELDS = 10
"""Numbers before the values of a row."""
NUMPY = re.compile(r"np\.\w+\(([^()]*)\)")
"""How NumPy 2 spells its numbers where a program prints them."""


@dataclass(frozen=True)
class Row:
    """One window."""

    head: tuple[float, ...]
    """y, x, H, W, level, kernel_size, downsample"""
    shape: tuple[int, int, int]
    """(C, h, w)"""
    values: list[float]

    @property
    def corner(self) -> tuple[float, float]:
        """Top-left (y, x), pixels of the level."""
        return self.head[0], self.head[1]

    @property
    def level_shape(self) -> tuple[float, float]:
        """(height, width) of the level."""
        return self.head[2], self.head[3]

    @property
    def level(self) -> float:
        """Of the slide's pyramid."""
        return self.head[4]

    @property
    def kernel(self) -> float:
        """Side of the window, pixels of the level."""
        return self.head[5]

    @property
    def alike(self) -> tuple[Any, ...]:
        """What all rows of a map have in common."""
        return (*self.head[2:6], *self.shape)


def read_rows(path: Path) -> tuple[list[Row], tuple[str, ...]]:
    """Read all rows, and what is to be said about them.

    A line that does not end is what a killed run leaves: it is left out, and told.

    Raises
    ------
    StoreError
        Naming the first line that is no such row, or if there is none.
    """
    rows, notices = [], []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                notices.append(f"line {number} is cut off and left out")
            elif line.strip():
                rows.append(_row(line, number, path))
    if not rows:
        raise StoreError("it holds no whole row", path, "check what wrote it")
    return rows, tuple(notices)


def _row(line: str, number: int, path: Path) -> Row:
    fields = [_number(field) for field in NUMPY.sub(r"\1", line).split(",")]
    head, values = fields[:FIELDS], fields[FIELDS:]
    shape = tuple(int(n) for n in head[7:] if np.isfinite(n))
    if len(head) < FIELDS or len(shape) < 3 or len(values) != np.prod(shape):
        raise StoreError(
            f"line {number} has {len(values)} values for a shape of {shape}",
            path,
            "a row is y, x, H, W, level, kernel_size, downsample, C, h, w, values",
        )
    return Row(tuple(head[:7]), (shape[0], shape[1], shape[2]), values)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read(path: Path, slide: Slide, window: int | None) -> Listed:
    """Read the rows of one slide."""
    rows, notices = read_rows(path)
    _refuse_mixed(rows, path)
    first = rows[0]
    channels, cells, across = first.shape
    if cells != across:
        raise StoreError(
            f"a window has {cells} x {across} values", path, "PyDmed places square ones only"
        )
    level = _level(first, slide, path)
    # Units so small that every cell begins and ends at a whole one.
    corners = np.array([row.corner for row in rows]) * cells
    values = np.array([row.values for row in rows], np.float32).reshape(-1, *first.shape)
    down, up = slide.levels[level].downsample
    return Listed(
        _cell_corners(corners, cells, first.kernel),
        (first.kernel, first.kernel),
        values.transpose(0, 2, 3, 1).reshape(-1, channels),
        _names(path, channels),
        unit=(down / cells, up / cells),
        level=level,
        cells=cells,
        notices=notices,
    )


def _names(path: Path, channels: int) -> tuple[str, ...]:
    """Names that stand beside the rows, or numbers."""
    told = beside(path)
    names = json.loads(told.read_text(encoding="utf-8")).get("names") if told.is_file() else None
    if names is None or len(names) != channels:
        return tuple(map(str, range(channels)))
    return tuple(map(str, names))


def _cell_corners(corners: NDArray[Any], cells: int, kernel: float) -> NDArray[Any]:
    """(n · h · h, 2): of each cell of each window, row by row."""
    inside = np.mgrid[:cells, :cells].reshape(2, -1).T * kernel
    return (corners[:, None] + inside).reshape(-1, 2)


def _refuse_mixed(rows: list[Row], path: Path) -> None:
    other = next((i for i, row in enumerate(rows) if row.alike != rows[0].alike), None)
    if other is not None:
        raise StoreError(
            f"row {other + 1} has another slide, level, window or shape than row 1",
            path,
            "give the file of one slide (PyDmed writes one a patient into a directory)",
        )


def _level(row: Row, slide: Slide, path: Path) -> int:
    level = int(row.level) if row.level < len(slide.levels) else -1
    shape = int(row.level_shape[0]), int(row.level_shape[1])
    if level < 0 or slide.levels[level].shape != shape:
        raise StoreError(
            f"level {row.level:g} had {shape[0]} x {shape[1]} px, which {slide.name} has not",
            path,
            "hand over the slide that it was computed on",
        )
    return level
