"""When a device is busy, and when it waits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from napari_wsi_heatmap.timings import Timings


class Busy:
    """Busy while at least one thread is inside ``with busy:``.

    Parameters
    ----------
    timings : Timings
        Gets the seconds as those of the model.
    """

    def __init__(self, timings: Timings) -> None:
        self._timings, self._lock = timings, threading.Lock()
        self._inside, self._idle_s, self._since = 0, 0.0, time.perf_counter()

    def __enter__(self) -> Self:
        with self._lock:
            if not self._inside:
                self._idle_s += self._turned()
            self._inside += 1
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._timings.add("model", self._turned())

    def _turned(self) -> float:
        """Seconds since it was last like this."""
        before, self._since = self._since, time.perf_counter()
        return self._since - before

    @property
    def idle_s(self) -> float:
        """Seconds by now during which nobody was inside."""
        with self._lock:
            now = 0.0 if self._inside else time.perf_counter() - self._since
            return self._idle_s + now
