"""One pass over a stream: everything that it opens, and its end."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from napari_wsi_heatmap import at_exit
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.handover import quick_handover
from napari_wsi_heatmap.streams.batches import Gatherer, PatchBatch
from napari_wsi_heatmap.streams.cutting import Cutter
from napari_wsi_heatmap.streams.laid import OpenSlides
from napari_wsi_heatmap.streams.ordered import OrderedRegions, StreamLoader
from napari_wsi_heatmap.streams.sampled import Sampler
from napari_wsi_heatmap.streams.sliding import sliding_regions
from napari_wsi_heatmap.tilecache import TileCache
from napari_wsi_heatmap.workers import Plant, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_wsi_heatmap.streams.failures import Failures
    from napari_wsi_heatmap.streams.laid import Done, Layout
    from napari_wsi_heatmap.streams.regions import StreamRegion
    from napari_wsi_heatmap.streams.settings import StreamSettings
    from napari_wsi_heatmap.streams.sources import Source

CASTERS: Final = 2
"""Threads that make patches of windows; each has a batch."""
PATIENCE_S: Final = 0.5
"""Seconds that the end of a pass waits for the batches at hand."""
OUR_THREADS: Final = "wsi-"


class Session:
    """A pass, to be iterated once.

    Parameters
    ----------
    sources : sequence of Source
    settings : StreamSettings
    failures : Failures
    epoch : int
        Number of the pass.
    done, layouts : mapping, optional
        See `OpenSlides`.

    Notes
    -----
    Memory bound: of ``memory`` MB a half for regions, a quarter for decoded tiles; besides
    `CASTERS` + 2 batches.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: StreamSettings,
        failures: Failures,
        epoch: int = 0,
        done: Done | None = None,
        layouts: dict[Any, Layout] | None = None,
    ) -> None:
        memory = settings.reading.memory_bytes
        self._settings, self._stopped, self._pid = settings, threading.Event(), os.getpid()
        self._tiles = TileCache(memory // 4)
        self.slides = OpenSlides(settings, self._tiles, done, layouts)
        if settings.random:
            plan = Sampler(sources, self.slides, settings, failures, epoch).regions()
        else:
            plan = sliding_regions(sources, self.slides, settings, failures)
        self._order = OrderedRegions(plan, memory // 2, self._stopped)
        readers = settings.reading.reader_threads
        self._loader = StreamLoader(self._order, self._stopped, readers, settings.read)
        self._cutter: Cutter | None = Cutter(settings, failures, epoch, self._let_go)
        batches = Gatherer(settings).batches(self._cutter.windows(self._loader.in_order()))
        plant = Plant(batches, CASTERS, False, 1, torch.device("cpu"))
        self._workers: Workers | None = Workers([plant], self._stopped.is_set)

    @property
    def held_bytes(self) -> int:
        """Bytes of regions and tiles that are held now."""
        return self._order.held + self._tiles.bytes

    def batches(self) -> Iterator[PatchBatch]:
        """Yield the batches; closing the generator, an error and the end close all.

        Raises
        ------
        HeatmapError
            Whatever stands in line; or if at the end a window that was planned has not come.
        """
        seen = 0
        with quick_handover(), self._opened() as workers:
            for work in workers:
                seen += len(work)
                yield self._transformed(work.batch)
            self._check_count(seen)

    def _check_count(self, seen: int) -> None:
        """Every window that was planned has come, or is noted as unreadable."""
        cutter = None if self._stopped.is_set() else self._cutter
        if cutter is None or self._settings.cut is not None:  # then a hook decides what comes
            return
        lost = self._order.planned - seen - cutter.failed
        if lost:
            raise HeatmapError(f"{lost} windows were planned and never came", do="report this")

    @contextmanager
    def _opened(self) -> Iterator[Workers]:
        assert self._workers is not None
        at_exit.remember(self._close)
        try:
            yield self._workers
        finally:
            self.close()

    def _transformed(self, batch: PatchBatch) -> PatchBatch:
        """Apply the user's transforms, in the thread that iterates and in the batches' order."""
        x = batch.x
        if self._settings.patch_transform is not None:
            x = torch.stack([self._settings.patch_transform(patch) for patch in x])
        if self._settings.transform is not None:
            x = self._settings.transform(x)
        return batch._replace(x=x)

    def _let_go(self, region: StreamRegion) -> None:
        self._order.give_back(region)
        self.slides.give_back(region.slide, for_good=not self._settings.random)

    def close(self) -> None:
        """Stop all threads, close all slides; whoever collects a generator may call it."""
        # A fork has none of the threads: all of it is the parent's.
        if os.getpid() != self._pid:
            return
        self._stopped.set()
        if threading.current_thread().name.startswith(OUR_THREADS):  # it would wait for itself
            threading.Thread(target=self._close, name="closing", daemon=True).start()
        else:
            self._close()

    def _close(self) -> None:
        self._stopped.set()
        at_exit.forget(self._close)
        self._loader.close()
        # What they hold holds this, too: pixels would stay until somebody collects such circles.
        workers, self._workers, self._cutter = self._workers, None, None
        if workers is not None:
            workers.close(PATIENCE_S)
        self.slides.close()
        self._tiles.clear()
