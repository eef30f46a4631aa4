"""The thread of a run: plans it, iterates it, and leaves behind what the GUI looks at.

Nothing is sent to the GUI: it looks at `RunTask` ten times a second. napari never forgets a
worker, so the worker holds nothing but its task, and the task is emptied at the end.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Signal
from superqt.utils import WorkerBase
from superqt.utils._qthreading import WorkerBaseSignals

from napari_wsi_heatmap._napari.live_map import live_maps
from napari_wsi_heatmap._napari.polite import polite_torch, run_politely
from napari_wsi_heatmap.errors import HeatmapError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_wsi_heatmap._napari.live_map import LiveMap
    from napari_wsi_heatmap._napari.region import Points
    from napari_wsi_heatmap._napari.slide_source import SlideSource
    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.heatmap import Piece
    from napari_wsi_heatmap.order import Box
    from napari_wsi_heatmap.progress import Progress

logger = logging.getLogger(__name__)

COUNT_SHARE = 0.05
"""Share of the worker's time that counting windows may take, on grids of millions of them."""
COUNT_S = 0.1

ADDED_S = 1.0
"""Seconds that a run waits at most for its layer to be added."""


class UnexpectedError(HeatmapError):
    """Something went wrong that no error of ours describes; the log has all of it."""


class RunTask:
    """What a worker does, and where the GUI looks while it does it.

    Parameters
    ----------
    title : str
        Shown by napari when somebody closes the window during the run.
    source : SlideSource
    model : object
        See `load_model`.
    control : RunControl
    settings : dict
        Keyword arguments of `launch.prepare`.
    titles : sequence of str
        What the models are called.

    Attributes
    ----------
    run : Run or None
        None until it is planned.
    begun : bool
        Whether there is something to show.
    added : threading.Event
        To be set when the layers of the planned run are in the viewer.
    progress : Progress or None
    maps : list of LiveMap
        What there is to show; empty until it is planned.
    why_no_difference : str
        Of two models; empty if there is one.
    """

    def __init__(
        self,
        title: str,
        source: SlideSource,
        model: Any,
        control: RunControl,
        settings: dict[str, Any],
        titles: Sequence[str] = (),
    ) -> None:
        self.title, self.control, self._titles = title, control, titles
        self._source: SlideSource | None = source
        self._model, self._settings = model, settings
        self._viewport: Box | None = None
        self._drawn: deque[list[Points]] = deque()
        self._count_at, self.moved_at = 0.0, time.monotonic()
        self.run: Run | None = None
        self.begun, self.added = False, threading.Event()
        self.progress: Progress | None = None
        self.maps: list[LiveMap] = []
        self.why_no_difference = ""

    def __repr__(self) -> str:
        return self.title

    def look_at(self, viewport: Box) -> None:
        """Compute this part of the slide next: (y0, x0, y1, x1), level-0 pixels.

        Only noted here. The order is rearranged by the worker: readers may hold its lock.
        """
        self._viewport = viewport

    def look_at_drawn(self, polygons: list[Points]) -> None:
        """Compute a region (N, 2) (y, x) of the slide before all else, level-0 pixels."""
        self._drawn.append(polygons)

    def work(self, planned: Callable[[], None]) -> None:
        """Plan the run and iterate it to its end; called in the worker's thread.

        Parameters
        ----------
        planned : callable
            Called once, when `run` is planned; then it is waited for `added`.
        """
        source = self._source
        if source is None or self.control.cancelled.is_set():
            return
        slide = source.open()
        try:
            with polite_torch():
                try:
                    run = self._prepare(slide)
                except HeatmapError:
                    if not self.control.cancelled.is_set():
                        raise
                if self.control.cancelled.is_set():
                    return
                planned()
                self.added.wait(ADDED_S)
                self._iterate(run)
        finally:
            if slide is not source.slide:
                slide.close()

    def _prepare(self, slide: Any) -> Run:
        from napari_wsi_heatmap import launch

        run = launch.prepare(slide, self._model, control=self.control, **self._settings)
        self.maps, self.why_no_difference = live_maps(run, self._titles)
        self.run, self.progress = run, run.progress
        return run

    def _iterate(self, run: Run) -> None:
        try:
            with contextlib.closing(run.pieces()) as pieces:
                for piece in pieces:
                    self._note(run, piece)
        finally:
            self.progress = run.progress
        # A run that continues one that was whole brings no piece.
        self.begun = self.begun or self.progress.done + self.progress.failed > 0

    def _note(self, run: Run, piece: Piece) -> None:
        for live_map in self.maps:
            live_map.take(piece)
        self.begun, self.moved_at = True, time.monotonic()
        if self.moved_at >= self._count_at:
            self.progress = run.progress
            took = time.monotonic() - self.moved_at
            self._count_at = self.moved_at + max(COUNT_S, took / COUNT_SHARE)
        viewport, self._viewport = self._viewport, None
        if viewport is not None:
            run.look_at(viewport)
        while self._drawn:
            run.look_at(self._drawn.popleft())

    def clear(self) -> None:
        """Let go of model, slide and map: the worker that holds this is never freed."""
        self.run, self._source, self._model = None, None, None
        self.maps, self._settings = [], {}


class RunSignals(WorkerBaseSignals):
    """Those of any worker; that the run is planned; that it was stopped."""

    aborted = Signal()
    planned = Signal()


class RunWorker(WorkerBase):
    """Runs a `RunTask`; whatever goes wrong is raised as a `HeatmapError`."""

    def __init__(self, task: RunTask) -> None:
        super().__init__(SignalsClass=RunSignals)
        self._task = task

    def quit(self) -> None:
        """Stop at the next batch; napari calls this when the window is closed."""
        self._task.control.cancel()
        self._task.added.set()
        super().quit()

    def work(self) -> None:
        """Run the task."""
        try:
            run_politely(lambda: self._task.work(self.planned.emit))
        except HeatmapError:
            logger.info("%s failed", self._task.title, exc_info=True)
            raise
        # Even a SystemExit of a model: it would end the process, slide, layers and all.
        except BaseException as error:
            logger.exception("%s failed", self._task.title)
            raise UnexpectedError(
                f"unexpected {type(error).__name__}: {one_line(error)}", self._task.title
            ) from error
        if self.abort_requested:
            self.aborted.emit()


def start_worker(task: RunTask, **slots: Callable[..., None]) -> RunWorker:
    """Run a task in a thread that napari knows of.

    Parameters
    ----------
    **slots
        For the signals planned, errored and finished.
    """
    worker: RunWorker = create_worker(
        task,
        _worker_class=RunWorker,
        _start_thread=False,
        _connect={"warned": _log_warning, **slots},
    )
    worker.start()
    return worker


def _log_warning(shown: tuple[Any, ...]) -> None:
    """Log what a library warned of; as notifications they would flood the viewer."""
    message, category, *_ = shown
    logger.warning("%s: %s", category.__name__, one_line(message))
