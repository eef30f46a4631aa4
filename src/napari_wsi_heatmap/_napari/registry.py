"""Which jobs there are: a dock that is opened again finds the run that it was closed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_wsi_heatmap._napari.job import HeatmapJob


class JobRegistry:
    """Jobs that run. One that is over belongs to its layer alone, and goes with it."""

    started = Signal(object)
    """A job that has just been started."""

    def __init__(self) -> None:
        self._running: list[HeatmapJob] = []

    def add(self, job: HeatmapJob) -> None:
        """Keep a job alive until `remove`, whatever becomes of docks and layers."""
        self._running.append(job)

    def remove(self, job: HeatmapJob) -> None:
        """Let go of a job that is over."""
        if job in self._running:
            self._running.remove(job)

    def running(self, viewer: ViewerModel) -> HeatmapJob | None:
        """The job that runs in a viewer, if one does."""
        return next((job for job in self._running if job.viewer is viewer), None)

    def latest(self, viewer: ViewerModel) -> HeatmapJob | None:
        """The job that runs in a viewer, else the last one whose layer is still there."""
        finished = [job_of(layer) for layer in viewer.layers]
        return self.running(viewer) or next((job for job in reversed(finished) if job), None)


def job_of(layer: Any) -> HeatmapJob | None:
    """The job that made a layer, if one did."""
    job: HeatmapJob | None = layer.metadata.get("job")
    return job


JOBS = JobRegistry()
