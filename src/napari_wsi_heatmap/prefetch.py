"""Tiles that will be looked at next, decoded before they are.

`boxes_ahead` says which, `Prefetcher` reads them into the pyramid's cache in the background: the
newest view wins, and what is on view has the right of way.

Memory bound
------------
What is read for one view takes at most `SHARE` of the cache.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from napari_wsi_heatmap.levels import boxes_under
from napari_wsi_heatmap.readqueue import ReadQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.levels import Box, ViewLevel
    from napari_wsi_heatmap.pyramid import Pyramid
    from napari_wsi_heatmap.viewtiles import SlideTiles

    Job = tuple[int, Box]
    """A level, and a chunk of it."""

LOOK_AHEAD_S = 1.0
"""s: how far ahead of a moving camera is read."""

SHARE = 1 / 8
"""Of the cache's bytes that one view may read ahead."""

DEAREST = 16.0
"""Stored pixels a pixel read ahead may cost: levels halved more than twice are left alone."""

THREADS = 2


class Motion(NamedTuple):
    """How a view moved last."""

    y: float = 0.0
    """Pixels of its level per second, down."""
    x: float = 0.0
    """Pixels of its level per second, to the right."""
    zoom: int = 0
    """1: it zooms in; -1: it zooms out."""


class Glance(NamedTuple):
    """What is on view, and how it got there."""

    level: int
    box: Box
    """(y, x, height, width) in pixels of the level; may reach beyond it."""
    motion: Motion = Motion()


def boxes_ahead(view: ViewLevel, box: Box, motion: Motion) -> list[Box]:
    """Chunks of a level that will be on view next.

    Parameters
    ----------
    view : ViewLevel
    box : (int, int, int, int)
        (y, x, height, width) on view, pixels of the level.
    motion : Motion

    Returns
    -------
    list of (y, x, height, width)
        First those that the camera sweeps over within `LOOK_AHEAD_S` (at most the length of the
        view ahead), nearest to the view first; then those around the view, nearest to its middle
        first. Chunks on view are not among them.
    """
    inside = _clipped(box, view.shape)
    if inside is None:
        return []
    on_view = set(boxes_under(view.chunk, view.shape, inside))
    swept = _around(view, _swept(box, motion)) if motion.y or motion.x else []
    ahead = sorted(
        (one for one in swept if one not in on_view), key=lambda one: (_gap(one, box), one)
    )
    seen = on_view.union(ahead)
    ring = _around(view, _grown(box, view.chunk))
    return ahead + sorted((one for one in ring if one not in seen), key=lambda one: _off(one, box))


class Prefetcher:
    """Reads ahead for one pyramid, which it does not keep alive.

    Parameters
    ----------
    pyramid : Pyramid
    threads : int
    """

    def __init__(self, pyramid: Pyramid, *, threads: int = THREADS) -> None:
        self._pyramid = ref(pyramid)
        self._queue = ReadQueue(
            partial(_read, pyramid.views, pyramid.tiles, ref(self)),
            pyramid,
            threads=threads,
            name="wsi-prefetch",
        )

    def look(self, glance: Glance) -> None:
        """Read ahead for this view, and no longer for the last."""
        pyramid = self._pyramid()
        self._queue.replace([] if pyramid is None else list(_affordable(pyramid, glance)))

    def stop(self) -> None:
        """Read nothing more."""
        self._queue.clear()

    @property
    def idle(self) -> bool:
        """Whether all that was worth it has been read."""
        return self._queue.idle

    def wishes(self, job: Job) -> bool:
        """Whether a chunk is still worth reading."""
        return self._queue.wished(job)


def _read(views: list[ViewLevel], tiles: SlideTiles, known: ref[Prefetcher], job: Job) -> None:
    """Read a chunk, after all that is on view; not if the view moved on meanwhile."""
    while (prefetcher := known()) is not None and prefetcher.wishes(job):
        if not tiles.traffic.wait_clear(timeout=0.25):
            continue
        failures = tiles.failures
        views[job[0]].read(*job[1])
        if tiles.failures != failures:
            # What nobody asked for need not be tried where the file is damaged, or gone.
            prefetcher.stop()
        return


def _affordable(pyramid: Pyramid, glance: Glance) -> Iterator[tuple[int, Box]]:
    """Chunks to read, best first, until they take their share of the cache."""
    room = pyramid.tiles.cache.max_bytes * SHARE
    for level, box in _jobs(pyramid, glance):
        view = pyramid.views[level]
        if not 0 < view.cost <= DEAREST or view.holds(*box):
            continue
        room -= 3 * box[2] * box[3] * (1 + view.cost)
        if room < 0:
            return
        yield level, box


def _jobs(pyramid: Pyramid, glance: Glance) -> Iterator[tuple[int, Box]]:
    level, box, motion = glance
    view = pyramid.views[level]
    for one in boxes_ahead(view, box, motion):
        yield level, one
    target = level - motion.zoom
    if motion.zoom and 0 <= target < len(pyramid.views):
        other = pyramid.views[target]
        for one in _zoomed(view, other, box):
            yield target, one


def _zoomed(view: ViewLevel, other: ViewLevel, box: Box) -> list[Box]:
    """Chunks of another level that the same canvas will show, if it goes on zooming."""
    fy, fx = (theirs / ours for ours, theirs in zip(view.shape, other.shape, strict=True))
    y, x = (box[0] + box[2] / 2) * fy, (box[1] + box[3] / 2) * fx
    canvas = int(y - box[2] / 2), int(x - box[3] / 2), box[2], box[3]
    return sorted(_around(other, canvas), key=lambda one: _off(one, canvas))


def _around(view: ViewLevel, box: Box) -> list[Box]:
    inside = _clipped(box, view.shape)
    return [] if inside is None else list(boxes_under(view.chunk, view.shape, inside))


def _swept(box: Box, motion: Motion) -> Box:
    """The box stretched to where it will be, by at most its own length."""
    y, x, height, width = box
    down = round(max(-height, min(height, motion.y * LOOK_AHEAD_S)))
    right = round(max(-width, min(width, motion.x * LOOK_AHEAD_S)))
    return y + min(0, down), x + min(0, right), height + abs(down), width + abs(right)


def _grown(box: Box, by: tuple[int, int]) -> Box:
    return box[0] - by[0], box[1] - by[1], box[2] + 2 * by[0], box[3] + 2 * by[1]


def _clipped(box: Box, shape: tuple[int, int]) -> Box | None:
    y, x = max(0, box[0]), max(0, box[1])
    bottom, right = min(shape[0], box[0] + box[2]), min(shape[1], box[1] + box[3])
    return (y, x, bottom - y, right - x) if bottom > y and right > x else None


def _gap(chunk: Box, box: Box) -> float:
    """Distance between two boxes, pixels; 0 if they touch."""
    down = max(chunk[0] - box[0] - box[2], box[0] - chunk[0] - chunk[2], 0)
    right = max(chunk[1] - box[1] - box[3], box[1] - chunk[1] - chunk[3], 0)
    return math.hypot(down, right)


def _off(chunk: Box, box: Box) -> float:
    """Distance between the middles of two boxes, pixels."""
    return math.hypot(
        chunk[0] + chunk[2] / 2 - box[0] - box[2] / 2,
        chunk[1] + chunk[3] / 2 - box[1] - box[3] / 2,
    )
