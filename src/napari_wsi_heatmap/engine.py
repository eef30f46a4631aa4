"""The loop: regions are read, windows cut from them, run through the model, put on the map.

`Run.pieces` is all there is: one generator of `Piece` that script, console, command line, dock
and tests consume alike. Reading goes on in threads while the model computes; a writer thread
saves. Nothing is called back.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap import at_exit
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.cut import BatchCutter
from napari_wsi_heatmap.dense import new_map
from napari_wsi_heatmap.errors import HeatmapError, SlideChangedError, StoreFullError
from napari_wsi_heatmap.heatmap import Heatmap, Piece
from napari_wsi_heatmap.loader import Loader
from napari_wsi_heatmap.order import REGION_SIDE, GridOrder
from napari_wsi_heatmap.output import RunOutput
from napari_wsi_heatmap.plan import place_model
from napari_wsi_heatmap.progress import Progress, stalled_notice
from napari_wsi_heatmap.states import DONE, FAILED, HANGS_OVER, NOT_FINITE, count_states
from napari_wsi_heatmap.tilecache import CachedSlide, TileCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from napari_wsi_heatmap.cut import Batch
    from napari_wsi_heatmap.growing import GrowingMap
    from napari_wsi_heatmap.loader import LoadedRegion
    from napari_wsi_heatmap.order import Box
    from napari_wsi_heatmap.plan import Plan

REGION_S = 1.0
"""Seconds of computing that a region may hold, so that slow models follow who pans."""
CHECK_S = 5.0
"""Seconds between looks at whether the slide's file is still the one that was opened."""


class Run:
    """A planned run, to be iterated once.

    Parameters
    ----------
    plan : Plan
    out : Path, optional
        The store; None keeps the map in memory.
    control : RunControl, optional
    model_spec : str, optional
        What `load_model` makes the model from again, for a later resume.
    again : bool
        Compute windows that failed once more.
    closes_slide : bool
        Whether the slide is the run's own, to be closed at its end.

    Attributes
    ----------
    growing : GrowingMap
        The buffer that a viewer may look at while the run goes on.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path | None = None,
        control: RunControl | None = None,
        *,
        model_spec: str | None = None,
        again: bool = False,
        closes_slide: bool = False,
    ) -> None:
        self.plan, self._closes_slide, self._begun = plan, closes_slide, False
        self.control = control or RunControl()
        self.growing: GrowingMap = new_map(plan.frame, plan.selection.state, plan.settings.blend)
        self._output = RunOutput(plan, self.growing, out, model_spec, again=again)
        self._computed, self._active_s = 0, 0.0
        self._tick = self._checked = time.monotonic()
        self._tiles = TileCache(plan.settings.memory_bytes // 2)
        slide = CachedSlide(plan.slide, self._tiles)
        self._order = GridOrder(
            plan.grid,
            self.growing.pending,
            slide.tile_shape(plan.grid.spec.level),
            plan.settings.order,
            plan.settings.viewport,
            sparse=not plan.frame.dense,
            most=self._windows_a_region,
        )
        self._loader = Loader(
            slide,
            plan.grid,
            self._order,
            self.control.cancelled,
            readers=plan.settings.reader_threads,
            memory=min(plan.settings.memory_bytes // 2, self._read_ahead),
        )

    @property
    def _windows_a_region(self) -> int:
        """What the model computes in `REGION_S`: a look elsewhere waits for the region at hand."""
        size, seconds = self.plan.batch_size, self.plan.dry.seconds_per_batch
        return max(size, int(size * REGION_S / max(seconds, 1e-6)))

    @property
    def _read_ahead(self) -> int:
        """Bytes of regions: enough to keep all readers busy.

        What is read ahead is computed before what somebody begins to look at, so no more.
        """
        return (self.plan.settings.reader_threads + 2) * 3 * REGION_SIDE**2

    def pieces(self) -> Iterator[Piece]:
        """Compute what is pending; yield each batch as it is done.

        Closing the generator, cancelling, an error, the end, or the end of Python all leave the
        store complete up to the last piece, with the reason in its record.
        """
        with self._session():
            cutter = BatchCutter(self.plan.grid, self.plan.batch_size, self.plan.predictor.device)
            for loaded in self._loader:
                if loaded.failed and self._go_on(slide_now=True):
                    yield self._fail(loaded)
                for batch in cutter.cut(loaded):
                    if not self._go_on():
                        return
                    yield self._compute(batch)
            for batch in cutter.tail():
                if self._go_on():
                    yield self._compute(batch)
            self._check_counts()
            self._go_on(slide_now=True, saving=True)

    def look_at(self, viewport: Box) -> None:
        """Compute what somebody looks at next: (y0, x0, y1, x1), level-0 pixels."""
        if self.plan.settings.order == "viewport":
            self._order.look_at(viewport)

    @property
    def record(self) -> dict[str, Any]:
        """What is, or would be, in ``run.json``."""
        return self._output.record

    @property
    def out(self) -> Path | None:
        """The store; None if the map is only in memory."""
        return self._output.path

    @property
    def heatmap(self) -> Heatmap:
        """The heatmap as it is now; it shares the run's buffer."""
        growing = self.growing
        return Heatmap(growing.values, growing.state, self.plan.frame, self.record, self.out)

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        counts = count_states(self.growing.state)
        planned = counts["done"] + counts["failed"] + counts["pending"]
        rate = self._computed / self._active_s if self._active_s > 0 else 0.0
        left = counts["pending"] / rate if rate else None
        waiting = self._loader.still_waiting_s
        return Progress(planned, counts["done"], counts["failed"], rate, left, waiting)

    @property
    def notice(self) -> str:
        """What somebody who sees nothing happen should know; empty if nothing."""
        return stalled_notice(self._loader.still_waiting_s)

    def _compute(self, batch: Batch) -> Piece:
        n, shape = len(batch.index), self.plan.value_shape
        values = self.plan.predictor(batch.patches, n, shape)  # (n, C[, h, w])
        for halving in self.plan.predictor.halvings:
            self._output.halved(int(batch.index[halving.row]), halving)
        finite = np.isfinite(values.reshape(len(values), -1)).all(1)
        state = np.where(finite, DONE, DONE | NOT_FINITE).astype(np.uint8)
        return self._place(batch.index, values, state)

    def _fail(self, loaded: LoadedRegion) -> Piece:
        self._output.failures |= loaded.failed
        index = np.array(sorted(loaded.failed), np.int64)
        values = np.full((len(index), *self.plan.value_shape), np.nan, np.float32)
        return self._place(index, values, np.full(len(index), FAILED, np.uint8))

    def _place(
        self, index: NDArray[np.int64], values: NDArray[np.float32], state: NDArray[np.uint8]
    ) -> Piece:
        state |= self.growing.state.ravel()[index] & np.uint8(HANGS_OVER)
        self.growing.add(index, values, state)
        self._count(len(index))
        positions = self.plan.grid.positions(index)
        return Piece(values, index, positions, state, self.plan.model.name)

    def _count(self, windows: int) -> None:
        now = time.monotonic()
        self._computed, self._active_s = self._computed + windows, self._active_s + now - self._tick
        self._tick = now

    def _go_on(self, *, slide_now: bool = False, saving: bool = False) -> bool:
        """Wait while paused; False when cancelled; raise what must stop the run."""
        while self._wait():
            self._check_slide(now=slide_now)
            try:
                self._output.check()
                if saving:
                    self._output.save()
            except StoreFullError as full:
                if not self.control.pauses_on_trouble:
                    raise
                self.control.pause(str(full))
            else:
                return True
        return False

    def _wait(self) -> bool:
        """Wait while paused, and say so in the record; False when cancelled."""
        if not self.control.paused:
            return not self.control.cancelled.is_set()
        self._output.paused(self.control.reason)
        going = self.control.wait_while_paused()
        self._output.resumed()
        self._tick = time.monotonic()
        return going

    def _check_slide(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._checked < CHECK_S:
            return
        self._checked = time.monotonic()
        reason = self.plan.slide.changed()
        if reason is not None:
            raise SlideChangedError(
                reason, self.plan.slide.path, "what was computed before is kept; begin a new output"
            )

    def _check_counts(self) -> None:
        """Every window that was planned is done or failed, or somebody wanted it otherwise."""
        left = int(np.count_nonzero(self.growing.pending))
        if left and not self.control.cancelled.is_set():
            raise HeatmapError(
                f"{left} windows were planned and never computed",
                self.plan.slide.path,
                "resume the run to compute them, and report this",
            )

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Open output and model; close them, the loader and the slide whatever happens."""
        if self._begun:
            raise HeatmapError(
                "this run was iterated before", do="start another: an output is continued"
            )
        self._begun = True
        self._checked = self._tick = time.monotonic()
        error: BaseException | None = None
        try:
            at_exit.remember(self._end_with_python)
            place_model(self.plan.model, self.plan.predictor.device)
            self._output.open()
            yield
            self._check_slide(now=True)
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        stopped = "cancelled" if self.control.cancelled.is_set() else "interrupted"
        with ExitStack() as each:  # the last first, whatever another one raises
            if self._closes_slide:
                each.callback(self.plan.slide.close)
            each.callback(at_exit.forget, self._end_with_python)
            each.callback(self._output.close, error, stopped)
            each.callback(self._note_seconds)
            each.callback(self.plan.model.restore)
            each.callback(self._tiles.clear)
            each.callback(self._loader.close)

    def _end_with_python(self) -> None:
        self.control.cancel()
        self._output.close(None, "the program ended")

    def _note_seconds(self) -> None:
        seconds = self.record["seconds"]
        spent = {"active": self._active_s, "waiting_for_reading": self._loader.wait_s}
        for name, value in spent.items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
