"""The live MIL run of a viewer, whichever dock has started it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.mil_job import MilJob
from napari_wsi_heatmap._napari.registry import JOBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel


class FollowedRun:
    """Tells of a run whenever something of it may have changed, until it is over.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    started, changed : callable
        Called with the job.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        started: Callable[[MilJob], None],
        changed: Callable[[MilJob], None],
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self._started, self._changed = started, changed
        self.job: MilJob | None = None
        """None when it is over."""

    def begin(self) -> None:
        """Follow from now on; also the last run, whose layer is still there."""
        JOBS.started.connect(self._on_started)
        viewer = self._viewer()
        latest = None if viewer is None else JOBS.latest(viewer)
        if isinstance(latest, MilJob):
            self._follow(latest)

    def leave(self) -> None:
        """Follow no longer."""
        JOBS.started.disconnect(self._on_started, missing_ok=True)
        self._let_go()

    def _follow(self, job: MilJob) -> None:
        self._let_go()
        self.job = job
        job.changed.connect(self._on_changed)
        self._started(job)
        self._on_changed()

    def _let_go(self) -> None:
        if self.job is not None:
            self.job.changed.disconnect(self._on_changed, missing_ok=True)
        self.job = None

    @guarded
    def _on_started(self, job: Any) -> None:
        if isinstance(job, MilJob) and job.viewer is self._viewer():
            self._follow(job)

    @guarded
    def _on_changed(self) -> None:
        job = self.job
        if job is not None:
            if job.over:
                self._let_go()
            self._changed(job)
