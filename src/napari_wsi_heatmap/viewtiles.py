"""Decoded tiles for a viewer: each decoded by one thread, a checker where one cannot be read.

A viewer must go on where a file is damaged: what cannot be read is drawn as a grey checker,
never as white, and reported once for each slide.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.errors import one_line
from napari_wsi_heatmap.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.slides.base import Rgb, Slide
    from napari_wsi_heatmap.tilecache import TileCache

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""s: a tile that could not be read is asked for again after this, not at every pan."""

_CHECKER = (np.indices((64, 64)) // 16).sum(0) % 2
_CHECKER_GREYS = (np.array([176, 144], np.uint8))[_CHECKER][..., None].repeat(3, axis=2)


class LockedTiles(CachedSlide):
    """Tiles through the cache, each decoded by one thread at a time.

    A lock of many, chosen by the tile: two threads in need of the same tile decode it once, and
    hardly ever wait for another's.
    """

    def __init__(self, slide: Slide, cache: TileCache) -> None:
        super().__init__(slide, cache)
        self._locks = tuple(threading.Lock() for _ in range(64))

    def _tile(self, level: int, tile_y: int, tile_x: int, *, spare: bool) -> Rgb:
        with self._locks[hash((level, tile_y, tile_x)) % len(self._locks)]:
            return super()._tile(level, tile_y, tile_x, spare=spare)


class _KnownBadError(Exception):
    """A tile that could not be read a moment ago; it is not tried again yet."""


class SlideTiles(LockedTiles):
    """A slide's tiles for a viewer: unreadable ones become a checker, said once.

    Attributes
    ----------
    failures : int
        Tiles given out as a checker so far.
    problem : str or None
        The first thing that went wrong, one line.
    traffic : Traffic
        Who reads what is on view at the moment.
    """

    def __init__(self, slide: Slide, cache: TileCache) -> None:
        super().__init__(slide, cache)
        self.failures = 0
        self.traffic = Traffic()
        self.problem: str | None = None
        self._failed: dict[tuple[int, int, int], float] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._reporting = threading.Lock()

    def on_problem(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(message)`` at the first unreadable tile, or now if there was one.

        It is called from the thread that reads.
        """
        with self._reporting:
            self._listeners.append(listener)
            problem = self.problem
        if problem is not None:
            listener(problem)

    def report(self, error: Exception) -> None:
        """Log and pass on the first problem of this slide; stay silent about the others."""
        with self._reporting:
            if self.problem is not None:
                return
            self.problem = (
                f"{self.slide.name}: parts cannot be read and are drawn as a grey checker "
                f"({one_line(error, 160)})"
            )
            listeners = tuple(self._listeners)
        logger.warning("%s", self.problem)
        for listener in listeners:
            listener(self.problem)

    def _decode(self, level: int, tile_y: int, tile_x: int) -> Rgb:
        key = (level, tile_y, tile_x)
        if time.monotonic() - self._failed.get(key, -math.inf) < RETRY_SECONDS:
            raise _KnownBadError
        try:
            return super()._decode(level, tile_y, tile_x)
        except Exception:
            self._failed[key] = time.monotonic()
            raise

    def _tile(self, level: int, tile_y: int, tile_x: int, *, spare: bool) -> Rgb:
        try:
            return super()._tile(level, tile_y, tile_x, spare=spare)
        # A slide may come from the user's own function: whatever it raises, the viewer goes on.
        except Exception as error:  # noqa: BLE001
            self.failures += 1
            self.report(error)
            return self._checker(level, tile_y, tile_x)

    def _checker(self, level: int, tile_y: int, tile_x: int) -> Rgb:
        (tile_h, tile_w), (level_h, level_w) = (
            self.tile_shape(level),
            self.slide.levels[level].shape,
        )
        y, x = tile_y * tile_h, tile_x * tile_w
        rows = np.arange(y, min(y + tile_h, level_h)) % 64
        columns = np.arange(x, min(x + tile_w, level_w)) % 64
        return cast("Rgb", _CHECKER_GREYS[np.ix_(rows, columns)])
