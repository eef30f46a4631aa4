"""Sums of pixels and of their squares over the cells of a lattice, each pixel read once."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.shrink import LenientRead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Rgb, Slide

    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Matters = Callable[[int, int, int, int], bool]

BLOCK = 2048
"""px: side of what is read at once, rounded up to whole tiles of the file."""


@dataclass(frozen=True)
class Sums:
    """What lies in each cell of a lattice, or in each window of one; all (Y, X) int64."""

    total: Ints
    """Sum of all values of all channels."""
    squares: Ints
    """Sum of their squares."""
    scanned: Ints
    """Number of pixels that were scanned."""
    unread: Ints
    """Above 0 where damage lies."""

    @classmethod
    def zero(cls, shape: tuple[int, int]) -> Sums:
        """Nothing summed yet."""
        return cls(*np.zeros((4, *shape), np.int64))

    def each(self, function: Callable[[Ints], Ints]) -> Sums:
        """The same for each of the four."""
        return Sums(*map(function, (self.total, self.squares, self.scanned, self.unread)))


def cell_sums(
    slide: Slide,
    level: int,
    edges: tuple[Ints, Ints],
    matters: Matters,
    *,
    align: int = 1,
    cancelled: Event | None = None,
) -> Sums:
    """Sum over the cells between some rows and columns of a level.

    Parameters
    ----------
    edges : (Y + 1,), (X + 1,) int
        Ascending borders of the cells, pixels of the level; what lies beyond the level has no
        pixels.
    matters : callable
        ``matters(y, x, height, width)``: whether a block, pixels of the level, must be read.
    align : int
        Blocks begin at multiples of it, so that what matters is read in whole squares of it.
    cancelled : threading.Event, optional
        When it is set no further block is read.

    Raises
    ------
    HeatmapError
        If it was cancelled: sums of a part of the slide are none.

    Notes
    -----
    Memory bound: 32 bytes a cell, and a block with its squares, some 60 MB.
    """
    sums = Sums.zero((len(edges[0]) - 1, len(edges[1]) - 1))
    for y, x, height, width in _blocks(slide, level, edges, align):
        if cancelled is not None and cancelled.is_set():
            raise HeatmapError("cancelled while tissue was looked for", slide.name)
        if matters(y, x, height, width):
            _add_block(sums, edges, slide, level, (y, x, height, width))
    return sums


def _blocks(
    slide: Slide, level: int, edges: tuple[Ints, Ints], align: int
) -> Iterator[tuple[int, int, int, int]]:
    """Blocks of whole tiles, clipped to the cells and to the level."""
    rows, cols = (
        _parts(int(edge[0]), min(int(edge[-1]), side), _unit(tile, align))
        for edge, side, tile in zip(
            edges, slide.levels[level].shape, slide.levels[level].tile, strict=True
        )
    )
    for top, bottom in rows:
        for left, right in cols:
            yield top, left, bottom - top, right - left


def _unit(tile: int, align: int) -> int:
    """Whole tiles where these are of a usual size, else whatever is asked for."""
    both = math.lcm(tile, align)
    return both if both <= 2 * BLOCK else align


def _parts(first: int, end: int, unit: int) -> list[tuple[int, int]]:
    """Cut a range at multiples of about a block's side."""
    step = unit * max(1, BLOCK // unit)
    cuts = [first, *range((first // step + 1) * step, end, step), end]
    return list(itertools.pairwise(cuts)) if first < end else []


def _add_block(
    sums: Sums, edges: tuple[Ints, Ints], slide: Slide, level: int, box: tuple[int, int, int, int]
) -> None:
    read = LenientRead(slide, (0, 0, 0))
    rgb, scanned = read(level, *box)
    everything = bool(scanned.all())
    if not everything:
        rgb[~scanned] = 0
    (i, down), (j, across) = (
        _cut(edge, start, size) for edge, start, size in zip(edges, box[:2], box[2:], strict=True)
    )
    at = np.s_[i : i + len(down), j : j + len(across)]
    sums.total[at] += _summed(rgb, down, across)
    sums.squares[at] += _summed(np.multiply(rgb, rgb, dtype=np.uint16), down, across)
    if everything:
        sizes = np.diff([*down, box[2]]), np.diff([*across, box[3]])
        sums.scanned[at] += np.outer(*sizes)
    else:
        sums.scanned[at] += _summed(scanned[..., None].view(np.uint8), down, across)
    for _, y, x, height, width in read.unread:
        sums.unread[_touched(edges[0], y, height), _touched(edges[1], x, width)] += 1


def _cut(edges: Ints, start: int, size: int) -> tuple[int, Ints]:
    """First cell of a stretch of pixels, and where in it each of its cells begins."""
    first = int(np.searchsorted(edges, start, "right")) - 1
    inner = edges[(edges > start) & (edges < start + size)] - start
    return first, np.concatenate([[0], inner])


def _touched(edges: Ints, start: int, size: int) -> slice:
    first = int(np.searchsorted(edges, start, "right")) - 1
    return slice(first, int(np.searchsorted(edges, start + size, "left")))


def _summed(values: Rgb | NDArray[np.uint16], down: Ints, across: Ints) -> Ints:
    """Sums over cells of all channels of (h, w, C)."""
    channels = values.shape[2]
    flat = values.reshape(len(values), -1)
    # A block has so few rows that 32 bits hold a column of squares.
    ends = [*down[1:].tolist(), len(flat)]
    columns = np.empty((len(down), flat.shape[1]), np.uint32)
    for row, (top, bottom) in enumerate(zip(down.tolist(), ends, strict=True)):
        np.sum(flat[top:bottom], 0, dtype=np.uint32, out=columns[row])
    return np.add.reduceat(columns, across * channels, 1, dtype=np.int64)
