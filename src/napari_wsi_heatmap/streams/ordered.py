"""Regions read ahead by several threads, and handed on in the order of their plan.

Memory bound: `limit` bytes of regions that are being read, wait, or are being cut; one region may
exceed it alone.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.loader import POLL_S, LoadedRegion, ReadAhead, RegionReader
from napari_wsi_heatmap.streams.regions import StreamRegion, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Planned = StreamRegion | Trouble


class OrderedRegions:
    """Hands out regions to readers while there is room for them.

    Room is given in the order of the plan: else regions that are wanted later could take it all
    from the one that everybody waits for.

    Parameters
    ----------
    regions : iterator of StreamRegion or Trouble
        The plan.
    limit : int
        Bytes of pixels that may be in flight.
    stopped : threading.Event
    """

    def __init__(self, regions: Iterator[Planned], limit: int, stopped: threading.Event) -> None:
        self._regions, self._limit, self._stopped = regions, limit, stopped
        self._turn, self._freed = threading.Lock(), threading.Condition()
        self._numbers: dict[int, int] = {}  # id of a region in flight -> its place in the plan
        self._given = 0
        self.held = 0
        """Bytes in flight."""
        self.planned = 0
        """Windows in the regions that were handed out."""

    def take(self) -> Planned | None:
        """Next region, as soon as there is room for it; None at the end."""
        with self._turn:
            region = None if self._stopped.is_set() else next(self._regions, None)
            if region is None or not self._make_room(region.nbytes):
                return None
            self._numbers[id(region)] = self._given
            self._given += 1
            self.planned += len(region.index)
            return region

    def _make_room(self, nbytes: int) -> bool:
        with self._freed:
            while self.held and self.held + nbytes > self._limit:
                if self._stopped.is_set():
                    return False
                self._freed.wait(POLL_S)
            self.held += nbytes
            return True

    def number_of(self, region: Planned) -> int:
        """Place in the plan; asked once, when the region has been read."""
        return self._numbers.pop(id(region))

    def give_back(self, region: Planned) -> None:
        """Make room: its windows are cut."""
        with self._freed:
            self.held -= region.nbytes
            self._freed.notify_all()


class StreamLoader(ReadAhead):
    """Reads the regions of a plan, each from its own slide.

    Parameters
    ----------
    order : OrderedRegions
    stopped : threading.Event
    readers : int
        Number of threads.
    read : callable, optional
        A hook that reads instead of the slide.
    """

    def __init__(
        self,
        order: OrderedRegions,
        stopped: threading.Event,
        readers: int,
        read: Callable[..., Any] | None = None,
    ) -> None:
        # Room is given by the order; here it is without limit.
        super().__init__(order, stopped, readers=readers, memory=1 << 62)
        self._plan, self._read = order, read

    def _load(self, region: Any) -> LoadedRegion:
        if isinstance(region, Trouble):
            return LoadedRegion(region, np.empty((0, 0, 3), np.uint8))
        if self._read is not None:
            return self._load_by_hook(region)
        reader = RegionReader(region.slide.cached, region.windows)
        return reader.load(region, self._room_for(region), lambda: self._stopped)

    def _load_by_hook(self, region: StreamRegion) -> LoadedRegion:
        assert self._read is not None
        try:
            pixels = np.asarray(self._read(region.slide, *region.box))
        except SlideReadError as error:
            none = np.zeros((*region.box[2:], 3), np.uint8)
            return LoadedRegion(region, none, dict.fromkeys(region.index.tolist(), error.what))
        if pixels.shape != (*region.box[2:], 3) or pixels.dtype != np.uint8:
            raise SlideReadError(
                f"read() returned {pixels.dtype} {pixels.shape}",
                f"slide {region.slide.id}, (y, x, height, width) = {region.box}",
                f"it must return uint8 {(*region.box[2:], 3)}",
            )
        return LoadedRegion(region, pixels)

    def in_order(self) -> Iterator[LoadedRegion]:
        """Regions as they were planned, whichever thread was first."""
        waiting: dict[int, LoadedRegion] = {}
        wanted = 0
        for loaded in self:
            waiting[self._plan.number_of(cast("Planned", loaded.region))] = loaded
            while wanted in waiting:
                yield waiting.pop(wanted)
                wanted += 1
