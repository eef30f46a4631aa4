"""The levels that a viewer reads: stored in the file, halved from a finer one, kept in memory.

Each has a `shape` (height, width) and ``read(y, x, height, width)``, which returns RGB of a box
inside it, and ``peek``, which gives what is there without reading. `plan_levels` says which levels
a slide gets.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np

from napari_wsi_heatmap.slides.base import Level
from napari_wsi_heatmap.viewtiles import LockedTiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_wsi_heatmap.slides.base import Rgb, Slide
    from napari_wsi_heatmap.viewtiles import SlideTiles

    Box = tuple[int, int, int, int]

SMALLEST_SIDE = 1024
"""px: halving goes on until the longer side is not above this; napari reads that level whole."""

CHUNK = 512
"""px: side of what is read at once and of halved tiles kept; smaller costs time, larger pans."""


class ViewLevel(Protocol):
    """One resolution as a viewer reads it."""

    shape: tuple[int, int]
    """(height, width) in pixels of this level."""
    chunk: tuple[int, int]
    """(height, width) of the boxes that are best read at once."""
    cost: float
    """Pixels of the file that are decoded for one of this level."""

    def read(self, y: int, x: int, height: int, width: int, *, spare: bool = False) -> Rgb:
        """Return (height, width, 3) uint8 of a box inside the level.

        What is decoded for a `spare` read is kept only while there is room.
        """
        ...

    def peek(self, y: int, x: int, out: Rgb) -> bool:
        """Fill `out` (h, w, 3) with the box at (y, x) if that takes no decoding; else False."""
        ...

    def holds(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether `peek` of that box would succeed."""
        ...


class PlannedLevel(NamedTuple):
    """A level of the pyramid: one of the file, or the finer one halved."""

    shape: tuple[int, int]
    stored: int | None
    """Index among the slide's levels; None for a halved one."""


def plan_levels(shapes: Sequence[tuple[int, int]]) -> list[PlannedLevel]:
    """Fill the gaps between a slide's levels, and below them, with halved ones.

    Parameters
    ----------
    shapes : sequence of (int, int)
        (height, width) of the slide's levels, finest first.

    Returns
    -------
    list of PlannedLevel
        Areas strictly decreasing, neighbours about a factor 2 apart, the last with a longer
        side of at most `SMALLEST_SIDE`. Levels of the file that are not smaller than the one
        before are left out.
    """
    plan = [PlannedLevel(shapes[0], 0)]
    for index, shape in enumerate(shapes[1:], start=1):
        ratio = math.sqrt(_area(plan[-1].shape) / _area(shape))
        for _ in range(round(math.log2(max(1, ratio))) - 1):
            plan.append(PlannedLevel(half_shape(plan[-1].shape), None))
        if _area(shape) < _area(plan[-1].shape):
            plan.append(PlannedLevel(shape, index))
    while max(plan[-1].shape) > SMALLEST_SIDE:
        plan.append(PlannedLevel(half_shape(plan[-1].shape), None))
    return plan


def half_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a level halved; an odd last row or column is kept."""
    return -(-shape[0] // 2), -(-shape[1] // 2)


def halve(rgb: Rgb) -> Rgb:
    """Mean of each 2 x 2 pixels, rounded half up; at an odd border of those that exist.

    Parameters
    ----------
    rgb : (H, W, 3) uint8

    Returns
    -------
    (ceil(H/2), ceil(W/2), 3) uint8
    """
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    sums = np.add(rgb[0::2], rgb[1::2], dtype=np.uint16)
    fours = sums[:, 0::2] + sums[:, 1::2]
    fours += 2
    fours >>= 2
    return fours.astype(np.uint8)


class FileLevel:
    """A level stored in the file."""

    cost = 1.0

    def __init__(self, tiles: SlideTiles, index: int) -> None:
        self._tiles, self._index = tiles, index
        self.shape = tiles.slide.levels[index].shape
        self.chunk = chunk_for(tiles.tile_shape(index), self.shape)

    def read(self, y: int, x: int, height: int, width: int, *, spare: bool = False) -> Rgb:
        """Return stored pixels; a checker where they cannot be read."""
        return self._tiles.read_region(self._index, y, x, height, width, spare=spare)

    def peek(self, y: int, x: int, out: Rgb) -> bool:
        """Give stored pixels whose tiles are kept."""
        return self._tiles.peek_region(self._index, y, x, out)

    def holds(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether those tiles are kept."""
        return self._tiles.holds_region(self._index, y, x, height, width)


class HalvedLevel:
    """The next finer level at half its size, its tiles kept in the same cache.

    Parameters
    ----------
    finer : ViewLevel
    tiles : SlideTiles
        Of the slide below; tiles are not kept while it cannot be read.
    """

    def __init__(self, finer: ViewLevel, tiles: SlideTiles) -> None:
        self.shape = half_shape(finer.shape)
        self.chunk = chunk_for((CHUNK, CHUNK), self.shape)
        self.cost = 4 * finer.cost
        # CachedSlide uses of a slide what _HalvedPixels has; making it a whole Slide says no more.
        pixels = cast("Slide", _HalvedPixels(finer, self.shape, tiles))
        self._tiles = _HalvedTiles(pixels, tiles)

    def read(self, y: int, x: int, height: int, width: int, *, spare: bool = False) -> Rgb:
        """Return means of 2 x 2 pixels of the finer level."""
        return self._tiles.read_region(0, y, x, height, width, spare=spare)

    def peek(self, y: int, x: int, out: Rgb) -> bool:
        """Give means that were made before and are kept."""
        return self._tiles.peek_region(0, y, x, out)

    def holds(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether they are kept."""
        return self._tiles.holds_region(0, y, x, height, width)


class _HalvedPixels:
    """What `CachedSlide` needs to know of a slide: here, a level halved."""

    def __init__(self, finer: ViewLevel, shape: tuple[int, int], tiles: SlideTiles) -> None:
        self._finer = finer
        self.levels = (Level(shape, (1.0, 1.0), (CHUNK, CHUNK)),)
        self.background = tiles.slide.background

    def read_region(self, level: int, y: int, x: int, height: int, width: int) -> Rgb:
        finer_height, finer_width = self._finer.shape
        y, x, height, width = 2 * y, 2 * x, 2 * height, 2 * width
        box = (y, x, min(height, finer_height - y), min(width, finer_width - x))
        # Four times and more the bytes of what is on view: they must not drive that out.
        return halve(self._finer.read(*box, spare=True))


class _HalvedTiles(LockedTiles):
    """Halved tiles; one with a checker in it is handed out, not kept."""

    def __init__(self, pixels: Slide, below: SlideTiles) -> None:
        super().__init__(pixels, below.cache)
        self._below = below

    def _tile(self, level: int, tile_y: int, tile_x: int, *, spare: bool) -> Rgb:
        key = (self._token, level, tile_y, tile_x)
        with self._locks[hash(key) % len(self._locks)]:
            tile = self.cache.get(key)
            if tile is not None:
                return tile
            failures = self._below.failures
            tile = self._decode(level, tile_y, tile_x)
            if self._below.failures == failures:
                self.cache.put(key, tile, spare=spare)
            return tile


class KeptLevel:
    """A small level whose chunks stay in memory once they were read.

    Several threads may read it; each chunk is pasted by the one that reads it.
    """

    def __init__(self, level: ViewLevel, tiles: SlideTiles) -> None:
        self._level, self._tiles = level, tiles
        self.shape, self.chunk, self.cost = level.shape, level.chunk, level.cost
        self._pixels: Rgb = np.empty((*self.shape, 3), np.uint8)
        self._kept: set[Box] = set()

    def read(self, y: int, x: int, height: int, width: int, *, spare: bool = False) -> Rgb:
        """Return a view into the level in memory."""
        for box in boxes_under(self.chunk, self.shape, (y, x, height, width)):
            if box not in self._kept:
                self._keep(box)
        view = self._pixels[y : y + height, x : x + width]
        view.flags.writeable = False
        return view

    def peek(self, y: int, x: int, out: Rgb) -> bool:
        """Give what is in memory, or in the cache below."""
        height, width = out.shape[:2]
        if not self._all_kept(y, x, height, width):
            return self._level.peek(y, x, out)
        out[:] = self._pixels[y : y + height, x : x + width]
        return True

    def holds(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether it is in memory, or in the cache below."""
        return self._all_kept(y, x, height, width) or self._level.holds(y, x, height, width)

    def _all_kept(self, *box: int) -> bool:
        y, x, height, width = box
        under = boxes_under(self.chunk, self.shape, (y, x, height, width))
        return all(one in self._kept for one in under)

    def _keep(self, box: Box) -> None:
        failures = self._tiles.failures
        y, x, height, width = box
        # Where it lies is known; the cache need not hold it a second time.
        self._pixels[y : y + height, x : x + width] = self._level.read(*box, spare=True)
        if self._tiles.failures == failures:
            self._kept.add(box)


def boxes_under(chunk: tuple[int, int], shape: tuple[int, int], box: Box) -> Iterator[Box]:
    """Chunks of a level (height, width) that a box (y, x, height, width) touches, as boxes."""
    y, x, height, width = box
    for top in range(y - y % chunk[0], y + height, chunk[0]):
        for left in range(x - x % chunk[1], x + width, chunk[1]):
            yield top, left, min(chunk[0], shape[0] - top), min(chunk[1], shape[1] - left)


def chunk_for(tile: tuple[int, int], shape: tuple[int, int], most: int = 40_000) -> tuple[int, int]:
    """(height, width) of chunks: whole tiles, about `CHUNK` px, at most `most` of them.

    A header may claim any size: the number of chunks decides what building the array costs.
    """
    height, width = (
        size * max(1, round(CHUNK / size)) if size <= 2 * CHUNK else CHUNK for size in tile
    )
    while math.ceil(shape[0] / height) * math.ceil(shape[1] / width) > most:
        height, width = 2 * height, 2 * width
    return height, width


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
