"""How long a viewer would wait for a view of a slide, found out with a few tiles.

The codec, the disk or network below and the levels that the file holds decide it together, so it
is measured.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.levels import plan_levels
from napari_wsi_heatmap.overview import LARGEST_LEVEL
from napari_wsi_heatmap.pyramid import SMALL_SOURCE, default_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.levels import PlannedLevel
    from napari_wsi_heatmap.slides.base import Slide

PATIENCE_S = 0.1
"""s: a window that does not answer for longer is felt to hang."""

MEASURE_S = 0.05
"""s: longest time that measuring takes."""

TILES = 6
"""Tiles read to know; the fastest counts, as nothing but the tile itself delays that one."""

VIEW = 6 << 20
"""px that are read for a window as large as a screen: between one and two pixels per pixel of
the screen and side, and whole chunks."""


def is_slow(slide: Slide) -> bool:
    """Whether a view of the slide would keep a viewer waiting for more than `PATIENCE_S`."""
    return view_seconds(slide) > PATIENCE_S


def view_seconds(slide: Slide) -> float:
    """Estimate how long the slowest view of a slide takes to read.

    Takes at most `MEASURE_S`; a slide that has not given a single tile by then counts as
    infinitely slow. One that cannot be read at all takes no time.

    Parameters
    ----------
    slide : Slide

    Returns
    -------
    float
        Seconds, with up to 8 cores.
    """
    pixels = heaviest_view(plan_levels([level.shape for level in slide.levels]))
    return _seconds_per_pixel(slide) * pixels / min(8, os.cpu_count() or 1)


def heaviest_view(plan: list[PlannedLevel]) -> float:
    """Stored pixels that the most expensive view of a pyramid takes.

    A level that is made by halving takes 4 of the finer one for each of its own.
    """
    last = max(i for i, planned in enumerate(plan) if planned.stored is not None)
    filled = _area(plan[last]) > SMALL_SOURCE
    heaviest = cost = 0.0
    for index, planned in enumerate(plan):
        cost = 1.0 if planned.stored is not None else 4 * cost
        if not (filled and index > last and _area(planned) <= LARGEST_LEVEL):
            heaviest = max(heaviest, cost * min(VIEW, _area(planned)))
    return heaviest


def _seconds_per_pixel(slide: Slide) -> float:
    times: list[float] = []
    reader = threading.Thread(
        target=_time_tiles,
        args=(slide, times, time.monotonic() + MEASURE_S),
        name="wsi-measure",
        daemon=True,
    )
    reader.start()
    reader.join(MEASURE_S)
    if times:
        return min(times)
    return math.inf if reader.is_alive() else 0.0


def _time_tiles(slide: Slide, times: list[float], end: float) -> None:
    """Read tiles near the middle of what was scanned, through the cache that will serve them."""
    tiles = CachedSlide(slide, default_cache)
    for y, x, height, width in _middle(slide, tiles.tile_shape(0)):
        begun = time.perf_counter()
        try:
            tiles.read_region(0, y, x, height, width)
        # Whatever a slide of the user's own raises, opening it will tell.
        except Exception:  # noqa: BLE001
            continue
        times.append((time.perf_counter() - begun) / (height * width))
        if time.monotonic() > end:
            return


def _middle(slide: Slide, tile: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of `TILES` tiles side by side, the middle one first."""
    (height, width), (y, x, h, w) = slide.levels[0].shape, slide.bounds
    top = min(max(0, y + h // 2), height - 1) // tile[0] * tile[0]
    middle = min(max(0, x + w // 2), width - 1) // tile[1]
    for step in range(TILES):
        left = (middle + (step + 1) // 2 * (-1) ** step) * tile[1]
        if 0 <= left < width:
            yield top, left, min(tile[0], height - top), min(tile[1], width - left)


def _area(planned: PlannedLevel) -> int:
    return planned.shape[0] * planned.shape[1]
