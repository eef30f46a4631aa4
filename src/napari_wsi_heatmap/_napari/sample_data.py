"""npe2 sample data: an H&E-like slide, made on first use while the window stays alive."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.utils import progress
from qtpy.QtWidgets import QApplication, QMainWindow

from napari_wsi_heatmap._napari.notify import tell
from napari_wsi_heatmap._napari.reader import read_slides
from napari_wsi_heatmap.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_wsi_heatmap._napari.reader import LayerData

    Make = Callable[[Callable[[float], None], threading.Event], Path]

QUIET_SECONDS = 0.7
"""s: a slide that is there already opens without a word."""

_one_at_a_time = threading.Lock()


def open_sample() -> list[LayerData]:
    """Make the sample slide if it is not there yet, and return its layer.

    Raises
    ------
    SlideError
        If the window was closed meanwhile, or the slide is being made already.
    """
    from napari_wsi_heatmap.sample import sample_slide_path

    def make(report: Callable[[float], None], cancel: threading.Event) -> Path:
        return sample_slide_path(progress=report, cancel=cancel)

    return read_slides(make_alive(make))


def make_alive(make: Make) -> Path:
    """Let ``make(report, cancel)`` work in a thread while Qt's events are served here.

    Parameters
    ----------
    make : callable
        Gets a function to report the fraction done, and an Event that is set when it should stop.
    """
    if not _one_at_a_time.acquire(blocking=False):
        raise SlideError("the sample slide is being made", do="it opens by itself when ready")
    try:
        job = _Job(make)
        try:
            _wait(job)
        finally:
            job.cancel.set()
        return job.result()
    finally:
        _one_at_a_time.release()


class _Job(threading.Thread):
    """Runs `make`; its outcome is asked for in the thread that waits."""

    def __init__(self, make: Make) -> None:
        super().__init__(name="sample slide", daemon=True)
        self.cancel = threading.Event()
        self.fraction = 0.0
        self._make, self._outcome = make, []
        self.start()

    def run(self) -> None:
        try:
            self._outcome.append(self._make(self._report, self.cancel))
        # Whatever it is, it is raised again where the user asked for the slide.
        except BaseException as error:  # noqa: BLE001
            self._outcome.append(error)

    def _report(self, fraction: float) -> None:
        self.fraction = fraction

    def result(self) -> Any:
        if not self._outcome:
            raise SlideError("the sample slide was not finished", do="open it again")
        if isinstance(self._outcome[0], BaseException):
            raise self._outcome[0]
        return self._outcome[0]


def _wait(job: _Job) -> None:
    """Return when the job is done, or its windows are gone."""
    windows, began, told = _visible_windows(), time.monotonic(), False
    with progress(total=100, desc="Making the sample slide") as bar:
        while job.is_alive():
            _serve_events()
            job.join(0.01)
            bar.update(int(100 * job.fraction) - bar.n)
            if windows and not _visible_windows():
                return
            if not told and time.monotonic() - began > QUIET_SECONDS:
                told = True
                tell("Making the sample slide, about 20 s")


def _serve_events() -> None:
    app = QApplication.instance()
    if app is not None:
        app.processEvents()


def _visible_windows() -> list[QMainWindow]:
    app = QApplication.instance()
    if app is None:
        return []
    visible = []
    for widget in app.topLevelWidgets():
        with suppress(RuntimeError):  # the widget may be deleted under our feet
            if isinstance(widget, QMainWindow) and widget.isVisible():
                visible.append(widget)
    return visible
