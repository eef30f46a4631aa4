"""Slides made by a function, for tests of what a viewer reads of them."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides.array import ArraySlide

RNG = np.random.default_rng(7)


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def naive_half(rgb):
    """Mean of the pixels that exist under each 2 x 2 square, rounded half up, one by one."""
    height, width = -(-rgb.shape[0] // 2), -(-rgb.shape[1] // 2)
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            square = rgb[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, 3).astype(int)
            out[y, x] = (2 * square.sum(0) + len(square)) // (2 * len(square))
    return out


class Recorder:
    """A slide of any size made by a function, that knows what was read of it."""

    def __init__(self, shapes, value=200, broken=lambda level, y, x, height, width: False):
        self.pixels = Counter()
        self.threads = set()
        self._value, self._broken, self._lock = value, broken, threading.Lock()
        self.slide = ArraySlide.from_callable(self._read, shapes, mpp=0.25)

    def _read(self, level, y, x, height, width):
        with self._lock:
            self.pixels[level] += height * width
            self.threads.add(threading.current_thread().name)
        if self._broken(level, y, x, height, width):
            raise SlideReadError("not a JPEG", f"{y}, {x}")
        return np.full((height, width, 3), self._value, np.uint8)

    @property
    def total(self):
        return sum(self.pixels.values())


def levels_of(height, width, *factors):
    return [(-(-height // f), -(-width // f)) for f in factors]


def filled(pyramid):
    pyramid.start_overview()
    assert pyramid.overview_ready.wait(30)
    return pyramid


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def damaged(level, y, x, height, width):
    """The tile at (256, 512) of level 0 cannot be read."""
    return level == 0 and y < 512 and y + height > 256 and x < 768 and x + width > 512
