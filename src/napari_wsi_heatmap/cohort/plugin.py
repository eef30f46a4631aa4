"""What dask.distributed sees: a plugin that brings the request to each worker, and the tasks."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from napari_wsi_heatmap.cohort import bands
from napari_wsi_heatmap.cohort.facts import told
from napari_wsi_heatmap.cohort.slidework import work_on
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from napari_wsi_heatmap.cohort.bands import Banding
    from napari_wsi_heatmap.cohort.facts import SlideFacts
    from napari_wsi_heatmap.cohort.request import Request
    from napari_wsi_heatmap.cohort.slidelist import CohortSlide

PATIENCE_S = 120.0


class CohortPlugin(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """Holds the request, and later the model, in a worker; goes to workers that come later, too.

    Parameters
    ----------
    request : Request
    """

    def __init__(self, request: Request) -> None:
        self.name = name_of(request.key)
        self._request = request
        self.held: Any = None

    def setup(self, worker: Any) -> None:
        """Begin to hold; called by the worker."""
        self.held = self._hold(f"{worker.name} at {worker.address}")
        if self._request.expendable and threading.current_thread() is threading.main_thread():
            # Ctrl-C in a terminal reaches all its processes; the one that began the cohort ends it.
            with suppress(ValueError):
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _hold(self, name: str) -> Any:
        return self._request.holder()(self._request, name)


def name_of(key: str) -> str:
    """Name of the plugin of a cohort."""
    return f"napari-wsi-heatmap-{key}"


def held_by_worker(key: str) -> Any:
    """What the worker that runs this task holds for a cohort.

    Raises
    ------
    HeatmapError
        If the plugin has not come.
    """
    plugins, name = get_worker().plugins, name_of(key)
    patience = time.monotonic() + PATIENCE_S
    while name not in plugins:  # a worker may be given tasks before it is told what they are about
        if time.monotonic() > patience:
            raise HeatmapError("the worker was not told what to do", do="see its log")
        time.sleep(0.005)
    return plugins[name].held


def model_task(key: str) -> tuple[str, str]:
    """Load the model; returns its sha256 and "", or "" and why it cannot be loaded."""
    try:
        with held_by_worker(key).model() as model:
            return getattr(model, "sha256", ""), ""
    except Exception as error:  # noqa: BLE001 - some errors do not travel; the line does
        return "", told(error)


def slide_task(key: str, item: CohortSlide) -> SlideFacts:
    """Work on one slide."""
    return work_on(held_by_worker(key), item)


def mil_task(key: str, item: CohortSlide) -> SlideFacts:
    """Work on one slide of a MIL configuration."""
    from napari_wsi_heatmap.cohort.milwork import work_on_entry

    return work_on_entry(held_by_worker(key), item)


def banding_task(key: str, item: CohortSlide, parts: int) -> Banding | SlideFacts:
    """Divide a slide into row bands; or say that nothing is left to do, or why it cannot be."""
    return bands.divide(held_by_worker(key), item, parts)


def band_task(key: str, item: CohortSlide, banding: Banding, number: int) -> SlideFacts:
    """Work on one band of a slide."""
    return bands.work_on_band(held_by_worker(key), item, banding, number)


def merge_task(key: str, item: CohortSlide, banding: Banding) -> SlideFacts:
    """Make one output of all bands of a slide."""
    return bands.merge(held_by_worker(key), item, banding)
