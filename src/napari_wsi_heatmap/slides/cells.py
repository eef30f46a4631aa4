"""Stored pixels of a level whose downsample is no whole number.

OpenSlide addresses every level in level-0 pixels, so at a downsample of 4.0043 hardly any
position falls on a whole pixel of the level, and what it returns there is interpolated: up to
50 grey levels off. From an origin x with ``|round(x * ds) / ds - x| < 1/512`` it draws the
stored pixels unchanged. But it does so in surfaces of 4096 pixels whose corners it rounds
again, so one origin serves that far and no further.

A level is therefore cut into cells, each read once from such an origin and kept for a while.
Where no origin is near enough (on large levels with a downsample such as 4.0001) the nearest
position serves, and pixels are interpolated, shifted by at most half a level-0 pixel.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.slides.base import Mask, Rgb

    Pixels = tuple[Rgb, Mask | None]
    Read = Callable[[int, int, int, int], Pixels]

SURFACE = 4096
"""Pixels that OpenSlide draws from one origin (`d` in its `openslide_read_region`)."""
TOLERANCE = 1 / 512
"""Pixels: below this, cairo takes a position for whole (measured: at 1/256 it does not)."""
SIDE = 1024
"""Pixels: cells are at least this wide where origins allow."""
MAX_BYTES = 160 << 20
"""Of cells kept: three of the largest (50 MB), or about fifty of 1024 px."""


class Span(NamedTuple):
    """A piece of an axis, in pixels of the level, that is read from its own start."""

    start: int
    stop: int
    exact: bool


class Axis:
    """Where along one axis of a level OpenSlide draws stored pixels.

    Parameters
    ----------
    length : int
        Pixels of the level along this axis.
    downsample : float
        OpenSlide's own, the average of both axes.
    """

    def __init__(self, length: int, downsample: float) -> None:
        self.length, self.downsample = length, downsample
        x = np.arange(length)
        shift = np.abs(np.rint(x * downsample) / downsample - x)
        self.origins = np.flatnonzero(shift < TOLERANCE)  # 0 is always one of them
        self.spans = tuple(self._cut())

    def level0(self, position: int) -> int:
        """Level-0 position that OpenSlide takes for `position`."""
        return round(position * self.downsample)

    def origin(self, start: int, stop: int) -> int:
        """Nearest origin that draws `start` to `stop` exactly, or `start` where none does."""
        before = int(self.origins[np.searchsorted(self.origins, start, "right") - 1])
        return before if stop - before <= SURFACE else start

    @property
    def exact(self) -> float:
        """Part of the axis, 0 to 1, whose pixels come out as stored."""
        return sum(span.stop - span.start for span in self.spans if span.exact) / self.length

    def _cut(self) -> Iterator[Span]:
        start = 0
        while start < self.length:
            span = self._span(start)
            yield span
            start = span.stop

    def _span(self, start: int) -> Span:
        at = int(np.searchsorted(self.origins, start, "right"))
        after = int(self.origins[at]) if at < len(self.origins) else self.length
        if int(self.origins[at - 1]) != start:
            return Span(start, min(after, start + SIDE), exact=False)
        # Up to the last origin within SIDE, else as far as this one reaches.
        later = int(self.origins[np.searchsorted(self.origins, start + SIDE, "right") - 1])
        stop = later if later > start else after
        if self.length - start <= SIDE:
            stop = self.length
        return Span(start, min(stop, start + SURFACE), exact=True)


class CellReader:
    """Boxes of one level, put together from cells.

    Parameters
    ----------
    shape : (int, int)
        (height, width) of the level.
    downsample : float
        OpenSlide's own.
    read : callable
        ``read(y0, x0, height, width)``: origin in level-0 pixels, size in pixels of the level.

    Notes
    -----
    Memory bound: `MAX_BYTES`, plus one cell of at most 50 MB per thread that reads.
    """

    def __init__(self, shape: tuple[int, int], downsample: float, read: Read) -> None:
        self.y, self.x = Axis(shape[0], downsample), Axis(shape[1], downsample)
        self._read = read
        self._kept: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._bytes = 0
        self._broken: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._busy: dict[tuple[int, int], threading.Lock] = {}

    def box(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Read a box inside the level; see `Slide._read`."""
        rgb = np.empty((height, width, 3), np.uint8)
        scanned = np.ones((height, width), bool)
        for row, top, bottom in _overlaps(self.y.spans, y, y + height):
            for column, left, right in _overlaps(self.x.spans, x, x + width):
                part, mask = self._part(row, column, top, bottom, left, right)
                place = slice(top - y, bottom - y), slice(left - x, right - x)
                rgb[place] = part
                if mask is not None:
                    scanned[place] = mask
        return rgb, None if scanned.all() else scanned

    def _part(self, row: int, column: int, top: int, bottom: int, left: int, right: int) -> Pixels:
        key = row, column
        if key not in self._broken:
            try:
                start = self.y.spans[row].start, self.x.spans[column].start
                return _crop(self._cell(key), *start, top, bottom, left, right)
            except SlideReadError:
                self._broken.add(key)
        return self._around_damage(top, bottom, left, right)

    def _around_damage(self, top: int, bottom: int, left: int, right: int) -> Pixels:
        # Read no more of a damaged cell than has to be, and rather interpolated than not at all.
        origin = self.y.origin(top, bottom), self.x.origin(left, right)
        try:
            near = self._from(*origin, bottom, right)
        except SlideReadError:
            if origin == (top, left):
                raise
            return self._from(top, left, bottom, right)
        return _crop(near, *origin, top, bottom, left, right)

    def _cell(self, key: tuple[int, int]) -> Pixels:
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:  # of two threads at one cell the second takes what the first has read
            with self._lock:
                kept = self._kept.get(key)
                if kept is not None:
                    self._kept.move_to_end(key)
                    return kept
            down, across = self.y.spans[key[0]], self.x.spans[key[1]]
            cell = self._from(down.start, across.start, down.stop, across.stop)
            self._keep(key, cell)
        return cell

    def _from(self, top: int, left: int, bottom: int, right: int) -> Pixels:
        return self._read(self.y.level0(top), self.x.level0(left), bottom - top, right - left)

    def _keep(self, key: tuple[int, int], cell: Pixels) -> None:
        with self._lock:
            self._kept[key] = cell
            self._bytes += cell[0].nbytes
            while self._bytes > MAX_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][0].nbytes


def _crop(pixels: Pixels, y: int, x: int, top: int, bottom: int, left: int, right: int) -> Pixels:
    rgb, scanned = pixels
    place = slice(top - y, bottom - y), slice(left - x, right - x)
    return rgb[place], None if scanned is None else scanned[place]


def _overlaps(spans: tuple[Span, ...], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    for index, span in enumerate(spans):
        low, high = max(start, span.start), min(stop, span.stop)
        if low < high:
            yield index, low, high
