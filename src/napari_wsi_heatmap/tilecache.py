"""Decoded tiles, kept while there is room: one bounded cache under viewer and runs.

Neighbouring regions, and successive views, share tiles of the file. Reading through this cache
decodes each of them once as long as they stay within reach.

Memory bound
------------
`TileCache.max_bytes`, plus one tile per thread that decodes at the moment. A single tile larger
than the bound is handed out and not kept.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.slides.base import Rgb, Slide

Key = tuple[int, int, int, int]

# Tiles are told apart by a number per slide: an id() would be given again after a slide is gone.
_tokens: WeakKeyDictionary[Slide, int] = WeakKeyDictionary()
_next_token = itertools.count()
_token_lock = threading.Lock()

SMALLEST_TILE = 256
"""px: smaller tiles of a file are grouped, since each tile kept costs a look-up and a copy."""


class TileCache:
    """Least recently used tiles of any number of slides, at most `max_bytes` of them."""

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.misses = 0
        self._tiles: OrderedDict[Key, Rgb] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Rgb | None:
        """Return the tile and mark it as used, or None."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is None:
                self.misses += 1
            else:
                self._tiles.move_to_end(key)
            return tile

    def peek(self, key: Key) -> Rgb | None:
        """Return the tile like `get`, but count no miss: who peeks decodes nothing."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def __contains__(self, key: Key) -> bool:
        return key in self._tiles

    def put(self, key: Key, tile: Rgb, *, spare: bool = False) -> None:
        """Keep a tile; the least recently used ones make room.

        A `spare` one is kept while there is room, and is the first to go.
        """
        with self._lock:
            if key in self._tiles or tile.nbytes > self.max_bytes:
                return
            self._tiles[key] = tile
            if spare:
                self._tiles.move_to_end(key, last=False)
            self.bytes += tile.nbytes
            self._make_room()

    def resize(self, max_bytes: int) -> None:
        """Change the bound; if it shrinks, the least recently used tiles go."""
        with self._lock:
            self.max_bytes = max_bytes
            self._make_room()

    def _make_room(self) -> None:
        while self.bytes > self.max_bytes:
            self.bytes -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._tiles.clear()
            self.bytes = 0


class CachedSlide:
    """Reads boxes of a slide through a `TileCache`.

    Parameters
    ----------
    slide : Slide
    cache : TileCache
        May be shared between slides and threads.
    """

    def __init__(self, slide: Slide, cache: TileCache) -> None:
        self.slide, self.cache = slide, cache
        with _token_lock:
            self._token = _tokens.setdefault(slide, next(_next_token))
        self._tiles = tuple(_cache_tile(level.tile, level.shape) for level in slide.levels)

    def tile_shape(self, level: int) -> tuple[int, int]:
        """(height, width) of the unit that is decoded and kept, pixels of `level`."""
        return self._tiles[level]

    def read_region(
        self,
        level: int,
        y: int,
        x: int,
        height: int,
        width: int,
        *,
        spare: bool = False,
        out: Rgb | None = None,
    ) -> Rgb:
        """Read a box like `Slide.read_region`, decoding only tiles that are not kept.

        Tiles decoded for a `spare` read are kept only while there is room. The box is put into
        `out` (height, width, 3), if given.

        Raises
        ------
        SlideReadError
            If one of the tiles under the box cannot be read. A damaged tile can so fail a box
            that touches only its sound neighbour within the same unit: read that box from the
            slide itself to know.
        """
        out = np.empty((height, width, 3), np.uint8) if out is None else out
        level_height, level_width = self.slide.levels[level].shape
        if y < 0 or x < 0 or y + height > level_height or x + width > level_width:
            out[:] = self.slide.background
        for tile_y, tile_x in self._touched(level, y, x, height, width):
            tile = self._tile(level, tile_y, tile_x, spare=spare)
            top, left = tile_y * self._tiles[level][0] - y, tile_x * self._tiles[level][1] - x
            _paste(out, tile, top, left)
        return out

    def peek_region(self, level: int, y: int, x: int, out: Rgb) -> bool:
        """Fill `out` (h, w, 3) with the box at (y, x) if all of it is kept; decode nothing.

        Returns
        -------
        bool
            False if a tile is not there; `out` is then as it was. The box must lie inside the
            level.
        """
        tile_h, tile_w = self._tiles[level]
        found = []
        for tile_y, tile_x in self._touched(level, y, x, *out.shape[:2]):
            tile = self._peek(level, tile_y, tile_x)
            if tile is None:
                return False
            found.append((tile, tile_y * tile_h - y, tile_x * tile_w - x))
        for tile, top, left in found:
            _paste(out, tile, top, left)
        return True

    def holds_region(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        """Whether all tiles under a box are kept."""
        return all(
            (self._token, level, *tile) in self.cache
            for tile in self._touched(level, y, x, height, width)
        )

    def _peek(self, level: int, tile_y: int, tile_x: int) -> Rgb | None:
        return self.cache.peek((self._token, level, tile_y, tile_x))

    def _touched(
        self, level: int, y: int, x: int, height: int, width: int
    ) -> Iterator[tuple[int, int]]:
        (tile_h, tile_w), (level_h, level_w) = self._tiles[level], self.slide.levels[level].shape
        for tile_y in range(max(0, y) // tile_h, -(-min(y + height, level_h) // tile_h)):
            for tile_x in range(max(0, x) // tile_w, -(-min(x + width, level_w) // tile_w)):
                yield tile_y, tile_x

    def _tile(self, level: int, tile_y: int, tile_x: int, *, spare: bool) -> Rgb:
        key = (self._token, level, tile_y, tile_x)
        tile = self.cache.get(key)
        if tile is None:
            tile = self._decode(level, tile_y, tile_x)
            self.cache.put(key, tile, spare=spare)
        return tile

    def _decode(self, level: int, tile_y: int, tile_x: int) -> Rgb:
        (tile_h, tile_w), (level_h, level_w) = self._tiles[level], self.slide.levels[level].shape
        y, x = tile_y * tile_h, tile_x * tile_w
        return self.slide.read_region(
            level, y, x, min(tile_h, level_h - y), min(tile_w, level_w - x)
        )


def _cache_tile(tile: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    height, width = (
        min(side, size * -(-SMALLEST_TILE // size)) for size, side in zip(tile, shape, strict=True)
    )
    return max(1, height), max(1, width)


def _paste(out: Rgb, tile: Rgb, top: int, left: int) -> None:
    y0, x0 = max(0, top), max(0, left)
    y1 = min(len(out), top + tile.shape[0])
    x1 = min(out.shape[1], left + tile.shape[1])
    if y0 < y1 and x0 < x1:
        out[y0:y1, x0:x1] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
