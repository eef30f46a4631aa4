"""A slide whose tiles come only when a test lets them."""

from __future__ import annotations

import threading

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides.array import ArraySlide


def position(y, x, height, width):
    """(height, width, 3) uint8 that tell where they are."""
    rows, columns = np.arange(y, y + height)[:, None], np.arange(x, x + width)
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = rows % 251, columns % 241
    rgb[..., 2] = rows // 256 * 16 + columns // 256
    return rgb


class Gated:
    """Reads of level 0 wait for `gate`, or for one `permits` each; the others come at once.

    Attributes
    ----------
    reads : list of (level, y, x)
        In the order in which they were begun.
    most : int
        Reads of level 0 at the same time, at most.
    """

    def __init__(self, shapes, *, broken=lambda y, x: False, waits=(0,)):
        self.gate = threading.Event()
        self.permits = threading.Semaphore(0)
        self.reads, self.threads = [], set()
        self.now = self.most = 0
        self._lock, self._broken, self._waits = threading.Lock(), broken, waits
        self.slide = ArraySlide.from_callable(self._read, shapes, mpp=0.25, name="gated")

    def _read(self, level, y, x, height, width):
        with self._lock:
            self.reads.append((level, y, x))
            self.threads.add(threading.current_thread().name)
            self.now += level in self._waits
            self.most = max(self.most, self.now)
        if level in self._waits:
            self._wait()
        if self._broken(y, x):
            raise SlideReadError("not a JPEG", f"{y}, {x}")
        factor = self.slide.levels[0].shape[0] // self.slide.levels[level].shape[0]
        return position(y * factor, x * factor, height * factor, width * factor)[::factor, ::factor]

    def _wait(self):
        while not self.gate.is_set():
            if self.permits.acquire(timeout=0.01):
                break
        with self._lock:
            self.now -= 1

    def begun(self, level=0):
        """(y, x) of the reads of a level so far."""
        with self._lock:
            return [(y, x) for at, y, x in self.reads if at == level]
