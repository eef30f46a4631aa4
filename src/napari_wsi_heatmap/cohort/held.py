"""What a worker holds for a cohort: the request, and the model, loaded once."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.models.settings import apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.cohort.request import Request


class Held:
    """A request in the process that works on it.

    Parameters
    ----------
    request : Request
    name : str
        Of the worker.

    Notes
    -----
    A worker that works on several slides at a time has as many copies of the model: one that is
    moved to a device, and back, cannot be shared.
    """

    def __init__(self, request: Request, name: str = "") -> None:
        self.request, self.name = request, name or f"process {os.getpid()}"
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        self._size: int | None = None
        self._lock = threading.Lock()

    @contextmanager
    def model(self) -> Iterator[Any]:
        """Borrow the model; it is loaded when it is first asked for."""
        try:
            model = self._free.get_nowait()
        except queue.Empty:
            model = self._load()
        try:
            yield model
        finally:
            self._free.put(model)

    def _load(self) -> Any:
        if self.request.threads:
            import torch

            torch.set_num_threads(self.request.threads)
        return self._made()

    def _made(self) -> Any:
        """Load the model."""
        from napari_wsi_heatmap.models import load_model

        request = self.request
        more = {} if request.arch is None else {"arch": request.arch}
        return load_model(request.model, trust=request.trust, **more, **apart(request.settings)[0])

    def settings(self) -> dict[str, Any]:
        """Settings of a run, with the batch size that was found for the first slide."""
        settings = apart(self.request.settings)[1]
        if settings.get("batch_size") is None and self._size is not None:
            settings["batch_size"] = self._size
        return settings

    def note_batch_size(self, size: int) -> None:
        """Spare the next slides the search for a batch size."""
        with self._lock:
            self._size = self._size or size
