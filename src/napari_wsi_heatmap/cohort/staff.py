"""Workers that know what they are to do: hired, told, and let go."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_wsi_heatmap.cohort.cluster import distributed, hired, threads_of_model
from napari_wsi_heatmap.errors import HeatmapError, ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.cohort.cluster import Crew
    from napari_wsi_heatmap.cohort.request import Request


@dataclass(frozen=True)
class Workplace:
    """Where a cohort is worked on; see `run_cohort`."""

    workers: int | None = None
    processes: bool = True
    scheduler: str | None = None
    dashboard_port: int | None = None
    on_crew: Callable[[Crew], None] | None = None

    def check(self) -> None:
        """Refuse what cannot be.

        Raises
        ------
        HeatmapError
            No workers, or dask.distributed is not installed.
        """
        if self.workers is not None and self.workers < 1:
            raise HeatmapError(f"{self.workers} workers", do="give at least 1")
        distributed()


@contextmanager
def staffed(
    place: Workplace, request: Request, tasks: int | None = None
) -> Iterator[tuple[Crew, str, str]]:
    """Hire workers and bring the request to them.

    Parameters
    ----------
    place : Workplace
    request : Request
    tasks : int, optional
        No more workers than these are started.

    Yields
    ------
    crew : Crew
    key : str
        Of the request, as workers hold it.
    sha256 : str
        Of the model, which one of them has loaded.

    Raises
    ------
    HeatmapError
        If no worker comes.
    ModelLoadError
        If the model cannot be loaded.
    """
    with hired(
        place.workers,
        processes=place.processes,
        scheduler=place.scheduler,
        dashboard_port=place.dashboard_port,
        device=str(request.settings.get("device", "auto")),
        most=tasks,
    ) as crew:
        if crew.local and place.processes:
            request = replace(request, threads=threads_of_model(len(crew.threads)))
        if place.on_crew is not None:
            place.on_crew(crew)
        with _plugged(crew, request):
            yield crew, request.key, _model_of(crew, request.key)


@contextmanager
def _plugged(crew: Crew, request: Request) -> Iterator[None]:
    """Bring the request to all workers, those that come later included."""
    from napari_wsi_heatmap.cohort.plugin import CohortPlugin, name_of

    crew.client.register_plugin(CohortPlugin(request))
    try:
        yield
    finally:
        if not crew.local:
            with suppress(Exception):  # the scheduler may be gone
                crew.client.unregister_worker_plugin(name_of(request.key))


def _model_of(crew: Crew, key: str) -> str:
    """Load the model on a worker, so that a wrong one is said once, and before all slides."""
    from napari_wsi_heatmap.cohort.plugin import model_task

    sha256, wrong = crew.client.submit(
        model_task, key, pure=False, resources=crew.resources
    ).result()
    if wrong:
        raise ModelLoadError(wrong)
    return str(sha256)
