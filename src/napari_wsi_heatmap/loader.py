"""Regions read ahead by threads, handed to one consumer.

Memory bound
------------
Pixels of regions that are read, or wait, or are in use are at most `memory` bytes (one region may
exceed it alone); decoded tiles that are kept are bounded by the `TileCache` below. Neither depends
on the slide's size.

Reader threads are daemons and are never waited for: a read that hangs on a dead network drive
must neither stop a cancel nor the end of the process.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.reused import ReusedArrays
from napari_wsi_heatmap.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.cachedslide import CachedSlide
    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.order import Region
    from napari_wsi_heatmap.slides.base import Mask, Rgb

POLL_S = 0.05
"""Seconds after which a waiting thread looks whether it is still wanted."""


class Order(Protocol):
    """What hands out regions; called from several threads."""

    def take(self) -> Region | None:
        """Next region, or None at the end."""


@dataclass
class LoadedRegion:
    """Pixels of a region, and the windows of it that cannot be read."""

    region: Region
    pixels: Rgb
    """(height, width, 3) uint8; the background colour where a window failed."""
    failed: dict[int, str] = field(default_factory=dict)
    """Flat index of a window -> why it cannot be read."""

    @property
    def readable(self) -> NDArray[np.int64]:
        """(n,) flat indices of windows whose pixels are all there."""
        if not self.failed:
            return self.region.index
        return self.region.index[~np.isin(self.region.index, list(self.failed))]


class ReadAhead:
    """Reads regions in threads and yields them as they arrive; a subclass says how one is read.

    Parameters
    ----------
    order : Order
        Hands out regions until it returns None.
    cancel : threading.Event
        When set, threads stop after the read at hand and iteration ends.
    readers : int
        Number of threads.
    memory : int
        Bytes of region pixels at most.
    timings : Timings, optional
        Gets what the threads spend on reading.
    """

    def __init__(
        self,
        order: Order,
        cancel: threading.Event,
        *,
        readers: int = 2,
        memory: int = 192 << 20,
        timings: Timings | None = None,
    ) -> None:
        self._order = order
        self._cancel, self._timings = cancel, timings or Timings()
        self._closed = threading.Event()
        self._ready: queue.Queue[LoadedRegion | BaseException | None] = queue.Queue()
        self._budget, self._arrays = _ByteBudget(memory), ReusedArrays()
        self._readers = max(1, readers)
        self._starting, self._started = threading.Lock(), False
        self._working = self._readers  # threads that have not said that they are through
        self._waiting_since: float | None = None

    @property
    def still_waiting_s(self) -> float:
        """Seconds that the consumer has waited for the next region by now; 0 if it does not."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def __iter__(self) -> Iterator[LoadedRegion]:
        """Yield regions; several threads may iterate at once, and share them."""
        self._start()
        while (item := self._next()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            self._budget.give_back(item.pixels.nbytes)

    def _start(self) -> None:
        with self._starting:
            begun, self._started = self._started, True
        for number in range(0 if begun else self._readers):
            threading.Thread(target=self._work, name=f"wsi-reader-{number}", daemon=True).start()

    def close(self) -> None:
        """Stop the threads after the read at hand, without waiting for them."""
        self._closed.set()

    @property
    def _stopped(self) -> bool:
        return self._closed.is_set() or self._cancel.is_set()

    def _next(self) -> LoadedRegion | BaseException | None:
        """The next region; None at the end, or when stopped."""
        self._waiting_since = time.monotonic()
        try:
            while not self._stopped and self._working > 0:
                with suppress(queue.Empty):
                    item = self._ready.get(timeout=POLL_S)
                    if item is not None:
                        return item
                    self._a_reader_is_through()
            return None
        finally:
            self._waiting_since = None

    def _a_reader_is_through(self) -> None:
        with self._starting:
            self._working -= 1
        if self._working <= 0:
            self._ready.put(None)  # for whoever else waits

    def _work(self) -> None:
        try:
            while not self._stopped and (region := self._order.take()) is not None:
                nbytes = 3 * region.box[2] * region.box[3]
                if not self._budget.take(nbytes, lambda: self._stopped):
                    return
                with self._timings.spent("reading", nbytes):
                    loaded = self._load(region)
                self._ready.put(loaded)
        # Even a SystemExit: a thread that ends without a word would be waited for for ever.
        except BaseException as error:  # noqa: BLE001 - carried over to the consumer's thread
            self._ready.put(error)
        else:
            self._ready.put(None)

    def _load(self, region: Region) -> LoadedRegion:
        raise NotImplementedError

    def _room_for(self, region: Region) -> Rgb:
        return self._arrays.empty((*region.box[2:], 3), np.uint8)


class Loader(ReadAhead):
    """Reads regions of one slide.

    Parameters
    ----------
    slide : CachedSlide
    windows : WindowGrid or WindowList
    order, cancel, **given
        As for `ReadAhead`.
    """

    def __init__(
        self,
        slide: CachedSlide,
        windows: WindowGrid | WindowList,
        order: Order,
        cancel: threading.Event,
        **given: Any,
    ) -> None:
        super().__init__(order, cancel, **given)
        self._reader = RegionReader(slide, windows)

    def _load(self, region: Region) -> LoadedRegion:
        return self._reader.load(region, self._room_for(region), lambda: self._stopped)


class RegionReader:
    """Reads a region of a slide as the windows in it need it.

    Parameters
    ----------
    slide : CachedSlide
    windows : WindowGrid or WindowList
        What a region's `index` counts.
    """

    def __init__(self, slide: CachedSlide, windows: WindowGrid | WindowList) -> None:
        self._slide, self._windows = slide, windows

    def load(self, region: Region, room: Rgb, stopped: _Stopped) -> LoadedRegion:
        """Read it into `room` (height, width, 3); if that fails, window by window."""
        try:
            self._slide.read_region(
                self._level,
                *region.box,
                out=room,
                wanted=self._tiles_of(region),
                inner=self._windows.overlap,
            )
            return LoadedRegion(region, room)
        except SlideReadError:
            return self._load_windows(region, stopped)

    def _tiles_of(self, region: Region) -> Mask:
        """Tiles that windows of the region touch: what lies between them is not decoded."""
        origins, footprint = self._windows.origins(region.index), self._windows.spec.footprint
        return self._slide.tiles_touched(self._level, region.box, origins, footprint)

    def _load_windows(self, region: Region, stopped: _Stopped) -> LoadedRegion:
        """Window by window, so that exactly those that touch the damage fail."""
        y, x, height, width = region.box
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[:] = self._slide.slide.background
        loaded = LoadedRegion(region, pixels)
        kh, kw = self._windows.spec.footprint
        for index, (top, left) in zip(
            region.index.tolist(), self._windows.origins(region.index).tolist(), strict=True
        ):
            if stopped():
                break
            try:
                patch = self._slide.slide.read_region(self._level, top, left, kh, kw)
            except SlideReadError as error:
                loaded.failed[index] = error.what
            else:
                pixels[top - y : top - y + kh, left - x : left - x + kw] = patch
        return loaded

    @property
    def _level(self) -> int:
        return self._windows.spec.level


class _ByteBudget:
    """Bytes that may be in flight; one taker may exceed it alone, else it could never begin."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._freed = threading.Condition()

    def take(self, nbytes: int, stopped: _Stopped) -> bool:
        """Wait until there is room; False if not wanted any more."""
        with self._freed:
            while self._used and self._used + nbytes > self._limit:
                if stopped():
                    return False
                self._freed.wait(POLL_S)
            self._used += nbytes
            return True

    def give_back(self, nbytes: int) -> None:
        """Make room."""
        with self._freed:
            self._used -= nbytes
            self._freed.notify_all()


class _Stopped(Protocol):
    def __call__(self) -> bool: ...
