"""One live run in one viewer: its worker, its layer, and what ends it.

A job belongs neither to the dock nor to its layer: closing the dock leaves it running. It ends
when it is done or cancelled, when the slide's or the heatmap's layer is removed, and when the
viewer is closed.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_wsi_heatmap._napari import progress_text
from napari_wsi_heatmap._napari.activity import ActivityBar
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.job_layers import JobLayers
from napari_wsi_heatmap._napari.job_results import JobResults
from napari_wsi_heatmap._napari.notices import tell_new
from napari_wsi_heatmap._napari.notify import tell_error, tell_warning
from napari_wsi_heatmap._napari.pace import Pace
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.viewer_watch import ViewerWatch
from napari_wsi_heatmap._napari.worker import RunTask, start_worker
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.slide_source import SlideSource
    from napari_wsi_heatmap._napari.worker import RunWorker
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.progress import Progress

TICK_MS = 100
"""ms between looks at what the worker has done: the layer is drawn at most this often."""
PREPARING, RUNNING, PAUSED = "preparing", "running", "paused"
DONE, CANCELLED, FAILED = "done", "cancelled", "failed"
BY_USER = "paused"
"""Reason of a pause that needs no notification."""
COARSE = "the others look like the nearest one that is"
"""What a layer shows of a run that was stopped; what is saved holds computed windows alone."""


class HeatmapJob(JobResults):
    """A heatmap that grows in a viewer. Made by `show_heatmap`, or by Run in the dock.

    Attributes
    ----------
    state : str
        preparing, running, paused, done, cancelled or failed.
    error : HeatmapError or None
        What ended the run, if it failed.
    notices : tuple of str
        What the user should know about the plan and the run, a line each.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        slide_layer: Layer,
        source: SlideSource,
        model: Any,
        settings: dict[str, Any],
        model_names: Sequence[str],
    ) -> None:
        self._watch = ViewerWatch(viewer, slide_layer, source.shapes[0], self._on_removed)
        self.slide_layer = slide_layer
        self.model, self.model_name = model, ", ".join(model_names)
        self.title = f"{self.model_name} on {source.name}"
        self._out = settings.get("out")
        self.state, self.error, self.notices = PREPARING, None, ()
        self._drawn = JobLayers(
            *(self._watch, slide_layer, {"job": self}),
            in_dock=lambda: len(self.changed) > 0,
            changed=self.changed.emit,
        )
        self._control = RunControl(pauses_on_trouble=True)
        self._why_cancelled, self._told = "", ""
        self._over = threading.Event()
        self._bar, self._pace = ActivityBar(self.title), Pace()
        self._task = RunTask(self.title, source, model, self._control, settings, model_names)
        self._worker: RunWorker | None = None
        self._timer: QTimer | None = None

    def start(self) -> None:
        """Start the worker, and look at it from now on."""
        JOBS.add(self)
        self._bar.begin()
        self._watch.begin()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)
        JOBS.started.emit(self)
        self._worker = start_worker(
            self._task, planned=self._on_planned, errored=self._on_error, finished=self._on_finished
        )

    @property
    def viewer(self) -> ViewerModel | None:
        """The viewer, None when it is gone."""
        return self._watch.viewer

    @property
    def over(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self._over.is_set()

    @property
    def cancelling(self) -> bool:
        """Whether it was told to end."""
        return self._control.cancelled.is_set()

    @property
    def progress(self) -> Progress | None:
        """How far the run is, None while it is being planned."""
        return self._task.progress

    def pause(self) -> None:
        """Hold the run after the batch at hand."""
        if not self.over:
            self._control.pause(BY_USER)
            self._look()

    def resume(self) -> None:
        """Let a paused run go on."""
        self._told = ""
        self._control.resume()
        self._look()

    def cancel(self, why: str = "") -> None:
        """End the run after the batch at hand, and say why; what is computed is kept."""
        if not self.over:
            self._why_cancelled = self._why_cancelled or why
            self._control.cancel()
            self.changed.emit()

    def wait(self, timeout: float | None = None) -> Heatmap:
        """Serve the GUI until the run is over; for scripts and the console.

        Returns
        -------
        Heatmap
            Whole, or what there is of it if the run was cancelled.

        Raises
        ------
        HeatmapError
            What ended the run, or that it was cancelled before its first window.
        TimeoutError
            After `timeout` seconds; the run goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self.over:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"{self.title} is not done after {timeout} s")
            QApplication.processEvents()
            self._over.wait(0.005)
        if self.error is not None:
            raise self.error
        if self.heatmap is None:
            raise HeatmapError("the run was cancelled before its first window", self.title)
        return self.heatmap

    @property
    def line(self) -> str:
        """The state of the run in one line."""
        if self.state == FAILED:
            return str(self.error)
        if self.state == DONE:
            assert self.heatmap is not None
            return progress_text.done_line(self.heatmap.run, len(self.heatmaps))
        if self.state == CANCELLED:
            line = progress_text.cancelled_line(self.progress, self._why_cancelled, self._out)
            return f"{line}; {COARSE}" if self._drawn.rough else line
        if self.cancelling:
            return "cancelling…"
        if self.state == PAUSED:
            return "; ".join(
                filter(None, (progress_text.progress_line(self.progress), self._control.reason))
            )
        still_s = time.monotonic() - self._task.moved_at
        line = progress_text.going_line(self.progress, still_s)
        run = self._task.run
        return "; ".join(filter(None, (line, "" if run is None else run.notice)))

    @guarded
    def _tick(self) -> None:
        """Look at what the worker has done; ten times a second."""
        if self.over or not self._pace.due:
            return
        if self._task.begun:
            self._drawn.draw()
        self._watch.tell(self._task)
        self._look()
        self._pace.drawing()

    def _look(self) -> None:
        """Bring state, bar and docks up to date."""
        if not self.over:
            planned = self._task.run is not None
            self.state = PAUSED if self._control.paused else RUNNING if planned else PREPARING
            self._tell_trouble()
            self.notices = tell_new(self.title, self._task.run, self.notices)
        self._bar.show(self.progress)
        self.changed.emit()

    def _tell_trouble(self) -> None:
        """Say once why the run has paused by itself."""
        trouble = self._control.reason if self._control.paused else ""
        if trouble and trouble != self._told and trouble != BY_USER:
            self._told = trouble
            tell_warning(f"{self.title} is paused: {trouble}")

    def _on_removed(self, layer: Layer) -> None:
        if layer is self.slide_layer:
            self.cancel("the slide's layer was removed")
        elif self._drawn.owns(layer) and not self._drawn.there:
            self.cancel("its layer was removed")

    @guarded
    def _on_planned(self) -> None:
        self._drawn.add(self._task)
        if self._task.why_no_difference:
            self.notices = (*self.notices, self._task.why_no_difference)
            tell_warning(f"{self.title}: {self._task.why_no_difference}")

    @guarded
    def _on_error(self, error: Exception) -> None:
        self.error = error

    @guarded
    def _on_finished(self) -> None:
        """The worker is through: show the last of it, tell, and let go of everything."""
        self._drawn.finish(self._task)
        self.notices = tell_new(self.title, self._task.run, self.notices)
        self.state = self._end_state()
        self._over.set()
        JOBS.remove(self)
        self._let_go()
        if self.error is not None:
            tell_error(f"{self.title}: {self.error}")
        self._look()

    def _end_state(self) -> str:
        if self.error is not None:
            return FAILED
        paused = any(heatmap.run["status"] == "paused" for heatmap in self.heatmaps)
        return CANCELLED if paused or self.heatmap is None else DONE

    def _let_go(self) -> None:
        self._watch.leave()
        if self._timer is not None:
            self._timer.stop()
            self._timer.deleteLater()
        self._task.clear()
        self._bar.close()
        self._timer, self._worker = None, None

    def __repr__(self) -> str:
        return f"<HeatmapJob {self.title}: {self.state}, {self.line}>"
