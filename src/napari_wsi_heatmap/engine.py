"""The loop: regions are read, windows cut from them, run through the model, put on the map.

`Run.pieces` is all there is: one generator of `Piece` that script, console, command line, dock
and tests consume alike. Reading goes on in threads, and so does the work of each device (see
`supply`); a writer thread saves. Nothing is called back.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.ending import Ending
from napari_wsi_heatmap.errors import HeatmapError, StoreFullError
from napari_wsi_heatmap.foldedorder import order_of
from napari_wsi_heatmap.handover import quick_handover
from napari_wsi_heatmap.heap import kept_memory
from napari_wsi_heatmap.loader import Loader
from napari_wsi_heatmap.pacing import (
    read_ahead,
    region_bytes,
    seconds_a_window,
    windows_a_region,
)
from napari_wsi_heatmap.plan import place_model
from napari_wsi_heatmap.progress import Progress, stalled_notice
from napari_wsi_heatmap.slidewatch import SlideWatch
from napari_wsi_heatmap.states import DONE, count_states, state_of
from napari_wsi_heatmap.supply import UnreadableWork, plants_of, shared_devices
from napari_wsi_heatmap.tilecache import TileCache
from napari_wsi_heatmap.timings import Timings
from napari_wsi_heatmap.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from napari_wsi_heatmap.growing import GrowingMap
    from napari_wsi_heatmap.heatmap import Heatmap, Piece
    from napari_wsi_heatmap.order import Box, Polygon
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.share import Share
    from napari_wsi_heatmap.supply import BatchWork


class Run:
    """A planned run, to be iterated once.

    Parameters
    ----------
    shares : sequence of Share
        One for each model; their plans differ in the model alone.
    control : RunControl, optional
    closes_slide : bool
        Whether the slide is the run's own, to be closed at its end.

    Attributes
    ----------
    plan : Plan
    growing : GrowingMap
        The buffer that a viewer may look at while the run goes on. Like `plan`, `record`, `out`
        and `heatmap` that of the first model; `shares` has those of all.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        control: RunControl | None = None,
        *,
        closes_slide: bool = False,
    ) -> None:
        self.shares, self._closes_slide, self._begun = tuple(shares), closes_slide, False
        self.plan: Plan = shares[0].plan
        self.growing: GrowingMap = shares[0].growing
        self.control = control or RunControl()
        self._computed = 0
        self._tick, self._watch = time.monotonic(), SlideWatch(self.plan.slide)
        settings, plans = self.plan.settings, [share.plan for share in shares]
        self._tiles = TileCache(settings.memory_bytes // 8)
        slide = CachedSlide(self.plan.slide, self._tiles)
        tile = slide.tile_shape(self.plan.grid.spec.level)
        self._order = order_of(
            self.plan.grid,
            np.logical_or.reduce([share.growing.pending for share in shares]),
            tile,
            settings.order,
            settings.viewport,
            most=windows_a_region(plans),
            region_bytes=region_bytes(settings),
            computed=np.logical_and.reduce(
                [state_of(share.growing.state) == DONE for share in self.shares]
            ),
            costs=self._costs,
        )
        devices = shared_devices(self.shares)
        self._timings = Timings(devices[0].type, settings.reader_threads, len(devices))
        for share in self.shares:
            share.output.timings = self._timings
        self._loader = Loader(
            slide,
            self.plan.grid,
            self._order,
            self.control.cancelled,
            readers=settings.reader_threads,
            memory=read_ahead(settings, tile),
            timings=self._timings,
        )
        self._ending = Ending(self.shares, self._loader, self.control, self._let_go)

    def _costs(self) -> tuple[float, float]:
        """Seconds of the models for a window, and of the readers together for a tile."""
        reading_s = self._timings.seconds["reading"] / self.plan.settings.reader_threads
        models_s = seconds_a_window([share.plan for share in self.shares])
        return models_s, reading_s / max(1, self._tiles.misses)

    def pieces(self) -> Iterator[Piece]:
        """Compute what is pending; yield each batch as it is done.

        Closing the generator, cancelling, an error, the end, or the end of Python all leave the
        store complete up to the last piece, with the reason in its record.
        """
        with quick_handover(), kept_memory(), self._session() as workers:
            for done in workers:
                if not self._go_on(done):
                    return
                for piece in done.pieces():
                    self._count(len(piece))
                    yield piece
            self._check_counts()
            self._go_on(None)
            self._count(0)  # the time of the last save

    def look_at(self, place: Box | Sequence[Polygon]) -> None:
        """Compute next what somebody looks at, (y0, x0, y1, x1), or has drawn; level-0 pixels."""
        if self.plan.settings.order == "viewport":
            self._order.look_at(place)

    @property
    def record(self) -> dict[str, Any]:
        """What is, or would be, in ``run.json``."""
        return self.shares[0].output.record

    @property
    def out(self) -> Path | None:
        """The store; None if the map is only in memory."""
        return self.shares[0].output.path

    @property
    def heatmap(self) -> Heatmap:
        """The heatmap as it is now; it shares the run's buffer."""
        return self.shares[0].heatmap

    @property
    def heatmaps(self) -> list[Heatmap]:
        """Those of all models."""
        return [share.heatmap for share in self.shares]

    @property
    def progress(self) -> Progress:
        """How far the run has come: windows, each counted for each model."""
        counted = [count_states(share.growing.state) for share in self.shares]
        done, failed, pending = (
            sum(counts[name] for counts in counted) for name in ("done", "failed", "pending")
        )
        active_s = self._timings.seconds["active"]
        rate = self._computed / active_s if active_s > 0 else 0.0
        return Progress(
            planned=done + failed + pending,
            done=done,
            failed=failed,
            per_second=rate,
            seconds_left=pending / rate if rate else None,
            waiting_s=self._loader.still_waiting_s,
            shares=self._timings.shares,
            bottleneck=self._timings.bottleneck,
        )

    @property
    def notice(self) -> str:
        """What somebody who sees nothing happen should know; empty if nothing."""
        return stalled_notice(self._loader.still_waiting_s)

    def _count(self, windows: int) -> None:
        now = time.monotonic()
        self._computed += windows
        self._timings.add("active", now - self._tick)
        self._tick = now

    def _go_on(self, done: BatchWork | UnreadableWork | None) -> bool:
        """Wait while paused; False when cancelled; raise what must stop the run.

        Parameters
        ----------
        done : BatchWork or UnreadableWork, optional
            What is to be put on the maps; None at the end, when all is saved.
        """
        while self._wait():
            self._watch.look(now=not done or isinstance(done, UnreadableWork))
            try:
                for share in self.shares:
                    self._make_sure(share, done)
            except StoreFullError as full:
                if not self.control.pauses_on_trouble:
                    raise
                self.control.pause(str(full))
            else:
                return True
        return False

    def _make_sure(self, share: Share, done: BatchWork | UnreadableWork | None) -> None:
        """Raise StoreFullError where there is no room for what comes, or came."""
        share.output.check()
        if done is None:
            with self._timings.spent("saving"):
                share.output.save()
        else:
            share.growing.reserve(done.windows)

    def _wait(self) -> bool:
        """Wait while paused, and say so in the record; False when cancelled."""
        if not self.control.paused:
            return not self.control.cancelled.is_set()
        for share in self.shares:
            share.output.paused(self.control.reason)
        going = self.control.wait_while_paused()
        for share in self.shares:
            share.output.resumed()
        self._tick = time.monotonic()
        return going

    def _check_counts(self) -> None:
        """Every window that was planned is done or failed, or somebody wanted it otherwise."""
        left = sum(int(np.count_nonzero(share.growing.pending)) for share in self.shares)
        if left and not self.control.cancelled.is_set():
            raise HeatmapError(
                f"{left} windows were planned and never computed",
                self.plan.slide.path,
                "resume the run to compute them, and report this",
            )

    @contextmanager
    def _session(self) -> Iterator[Workers]:
        """Open outputs and models; close them, the loader and the slide whatever happens."""
        if self._begun:
            raise HeatmapError(
                "this run was iterated before", do="start another: an output is continued"
            )
        self._begun = True
        self._tick = time.monotonic()
        error: BaseException | None = None
        try:
            self._ending.begin()
            for share in self.shares:
                place_model(share.plan.model, self.plan.devices[0])
                share.output.open()
            plants = plants_of(self.shares, self._loader, self._timings)
            self._ending.workers = Workers(plants, self.control.cancelled.is_set)
            yield self._ending.workers
            self._watch.look(now=True)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._ending.close(error)

    def _let_go(self) -> None:
        self._tiles.clear()
        if self._closes_slide:
            self.plan.slide.close()
