"""Levels that never keep a viewer waiting: coarser pixels first, the right ones as they come.

>>> progressive = ProgressiveLevels(views, tiles)
>>> progressive.on_arrival(refresh)
>>> progressive.levels[0][:1000, :1000]        # at once; right after the last call of refresh()

In the main thread a slice gives what is there at that moment: exact pixels where they are kept,
else those of the first coarser level that has them. What is missing is read by threads, nearest
to the middle first, and what an earlier slice asked for and this one does not is forgotten. Any
other thread, and ``numpy.asarray`` of a level, waits for the exact pixels: only what draws needs
an answer at once.

Memory bound
------------
The chunks of the newest view that arrived, beside the cache below: at most one view.
"""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_wsi_heatmap.lazyarray import LazyArray
from napari_wsi_heatmap.levels import boxes_under
from napari_wsi_heatmap.readqueue import THREADS, ReadQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.levels import Box, ViewLevel
    from napari_wsi_heatmap.slides.base import Rgb
    from napari_wsi_heatmap.traffic import Traffic
    from napari_wsi_heatmap.viewtiles import SlideTiles


class Wish(NamedTuple):
    """A chunk that somebody looks at and that is not there."""

    level: int
    box: Box
    """(y, x, height, width) in pixels of that level."""


class ProgressiveLevels:
    """All levels of a slide, as arrays that answer at once.

    Parameters
    ----------
    views : sequence of ViewLevel
        Finest first.
    tiles : SlideTiles
        The cache below; its traffic hears of what is read.
    threads : int
        That read what is missing.

    Attributes
    ----------
    levels : tuple of ProgressiveArray
        Finest first, each (H, W, 3) uint8.
    """

    def __init__(
        self, views: Sequence[ViewLevel], tiles: SlideTiles, *, threads: int = THREADS
    ) -> None:
        self._views, self._tiles = tuple(views), tiles
        self._arrived: dict[Wish, Rgb] = {}
        self._on_view: frozenset[Wish] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._queue = ReadQueue(
            partial(_read, self._views, tiles.traffic),
            self,
            threads=threads,
            name="wsi-fill-in",
            deliver=self._deliver,
        )
        self.levels = tuple(
            ProgressiveArray(view, tiles, self, index) for index, view in enumerate(views)
        )

    def on_arrival(self, listener: Callable[[], None]) -> None:
        """Call ``listener()`` when pixels on view came, from the thread that read them."""
        self._listeners.append(listener)

    def cancel(self) -> None:
        """Forget what is missing."""
        self._queue.clear()

    @property
    def settled(self) -> bool:
        """Whether nothing is being read: the newest view is complete."""
        return self._queue.idle

    def now(self, level: int, box: Box) -> Rgb:
        """Return what is there of a box (y, x, height, width), and ask for the rest.

        Returns
        -------
        (height, width, 3) uint8
        """
        out = np.empty((*box[2:], 3), np.uint8)
        view = self._views[level]
        wishes = [Wish(level, one) for one in boxes_under(view.chunk, view.shape, box)]
        missing = []
        for wish in wishes:
            part, there = _overlap(out, box, wish.box)
            if not self._exact(wish, part, there):
                self._coarser(level, there, part)
                missing.append(wish)
        self._ask(wishes, sorted(missing, key=lambda wish: _distance(wish.box, box)))
        return out

    def _exact(self, wish: Wish, part: Rgb, there: Box) -> bool:
        arrived = self._arrived.get(wish)
        if arrived is None:
            return self._views[wish.level].peek(*there[:2], part)
        y, x = there[0] - wish.box[0], there[1] - wish.box[1]
        part[:] = arrived[y : y + there[2], x : x + there[3]]
        return True

    def _coarser(self, level: int, box: Box, out: Rgb) -> None:
        """Fill `out` from the first coarser level that has its pixels, else with background."""
        shape = self._views[level].shape
        for view in self._views[level + 1 :]:
            rows = _onto(box[0], box[2], shape[0], view.shape[0])
            columns = _onto(box[1], box[3], shape[1], view.shape[1])
            y, x = int(rows[0]), int(columns[0])
            below = np.empty((int(rows[-1]) + 1 - y, int(columns[-1]) + 1 - x, 3), np.uint8)
            if view.peek(y, x, below):
                out[:] = below.take(rows - y, axis=0).take(columns - x, axis=1)
                return
        out[:] = self._tiles.slide.background

    def _ask(self, on_view: list[Wish], missing: list[Wish]) -> None:
        with self._lock:
            self._on_view = frozenset(on_view)
            for wish in [wish for wish in self._arrived if wish not in self._on_view]:
                del self._arrived[wish]
        self._queue.replace(missing)

    def _deliver(self, wish: Wish, rgb: Rgb) -> None:
        with self._lock:
            if wish not in self._on_view:
                return
            # Held here, too: a cache may be too small for a view, and keeps nothing damaged.
            self._arrived[wish] = rgb
        for listener in tuple(self._listeners):
            listener()


def _read(views: Sequence[ViewLevel], traffic: Traffic, wish: Wish) -> Rgb:
    with traffic.visible_read():
        return views[wish.level].read(*wish.box)


class ProgressiveArray(LazyArray):
    """One level as an array that answers at once in the main thread.

    Attributes
    ----------
    chunks : (int, int, int)
        (height, width, 3) of what is read at once.
    """

    def __init__(
        self, view: ViewLevel, tiles: SlideTiles, source: ProgressiveLevels, index: int
    ) -> None:
        super().__init__(view, tiles.traffic)
        self._source, self._index = source, index
        self.chunks = (*view.chunk, 3)

    def _slice(self, y: int, x: int, height: int, width: int) -> Rgb:
        if height and width and threading.current_thread() is threading.main_thread():
            return self._source.now(self._index, (y, x, height, width))
        return self.exact(y, x, height, width)


def _overlap(out: Rgb, box: Box, chunk: Box) -> tuple[Rgb, Box]:
    """The part of `out` (the pixels of `box`) that a chunk covers, and where it lies."""
    y, x = max(box[0], chunk[0]), max(box[1], chunk[1])
    bottom = min(box[0] + box[2], chunk[0] + chunk[2])
    right = min(box[1] + box[3], chunk[1] + chunk[3])
    part = out[y - box[0] : bottom - box[0], x - box[1] : right - box[1]]
    return part, (y, x, bottom - y, right - x)


def _distance(chunk: Box, box: Box) -> float:
    """From the middle of a chunk to the middle of the box on view, pixels."""
    return math.hypot(
        chunk[0] + chunk[2] / 2 - box[0] - box[2] / 2,
        chunk[1] + chunk[3] / 2 - box[1] - box[3] / 2,
    )


def _onto(start: int, length: int, size: int, coarse: int) -> NDArray[np.int64]:
    """Pixels of an axis with `coarse` of them under those of one with `size`, centre to centre."""
    index = (np.arange(start, start + length) + 0.5) * (coarse / size)
    return np.minimum(index.astype(np.int64), coarse - 1)
