"""Boxes of a slide, read through a cache of its decoded tiles."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Mask, Rgb, Slide
    from napari_wsi_heatmap.tilecache import TileCache

# Tiles are told apart by a number per slide: an id() would be given again after a slide is gone.
_tokens: WeakKeyDictionary[Slide, int] = WeakKeyDictionary()
_next_token = itertools.count()
_token_lock = threading.Lock()

FEW = 4
"""Tiles that are not worth a read of their own."""

SMALLEST_TILE = 256
"""px: smaller tiles of a file are grouped, since each tile kept costs a look-up and a copy."""


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
        wanted: Mask | None = None,
        inner: int | None = None,
    ) -> Rgb:
        """Read a box like `Slide.read_region`, decoding only tiles that are not kept.

        Parameters
        ----------
        level, y, x, height, width
            As for `Slide.read_region`.
        spare : bool
            Keep tiles that are decoded only while there is room.
        out : (height, width, 3) uint8, optional
            Where to put the box.
        wanted : (n, m) bool, optional
            Which of the tiles under the box to read, the first at its top left; see `tiles_under`.
            Pixels of others may be anything.
        inner : int, optional
            Boxes beside this one overlap it by so many pixels: tiles that lie farther within it
            are nobody else's, and are not kept.

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
        first = self.tiles_under(level, y, x, height, width)[0]
        done = self._read_inner(level, (y, x), out, wanted, inner)
        for tile_y, tile_x in self._touched(level, y, x, height, width):
            if wanted is not None and not wanted[tile_y - first[0], tile_x - first[1]]:
                continue
            if (tile_y, tile_x) in done:
                continue
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
        (top, left), (bottom, right) = self.tiles_under(level, y, x, height, width)
        for tile_y in range(top, bottom):
            for tile_x in range(left, right):
                yield tile_y, tile_x

    def tiles_under(
        self, level: int, y: int, x: int, height: int, width: int
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last + 1 (row, column) of the tiles under a box."""
        (tile_h, tile_w), (level_h, level_w) = self._tiles[level], self.slide.levels[level].shape
        return (max(0, y) // tile_h, max(0, x) // tile_w), (
            -(-min(y + height, level_h) // tile_h),
            -(-min(x + width, level_w) // tile_w),
        )

    def tiles_touched(
        self,
        level: int,
        box: tuple[int, int, int, int],
        origins: NDArray[np.int64],
        footprint: tuple[int, int],
    ) -> Mask:
        """Which tiles under a box (y, x, height, width) windows touch; for `read_region`.

        Parameters
        ----------
        origins : (n, 2) int64
            Top-left corners of windows that lie in the box, pixels of `level`.
        footprint : (int, int)
            (height, width) of the windows.
        """
        first, last = self.tiles_under(level, *box)
        steps = np.zeros(np.maximum(np.subtract(last, first), 0) + 1, np.int32)
        tile, end = np.asarray(self._tiles[level]), np.asarray(steps.shape) - 1
        top, left = ((origins // tile - first).clip(0, end)).T
        bottom, right = (((origins + footprint - 1) // tile + 1 - first).clip(0, end)).T
        # Each window adds one to the tiles that it touches, by its four corners.
        for rows, cols, sign in (
            (top, left, 1),
            (top, right, -1),
            (bottom, left, -1),
            (bottom, right, 1),
        ):
            np.add.at(steps, (rows, cols), sign)
        return steps.cumsum(0).cumsum(1)[:-1, :-1] > 0

    def _read_inner(
        self, level: int, at: tuple[int, int], out: Rgb, wanted: Mask | None, margin: int | None
    ) -> set[tuple[int, int]]:
        """Read at one go the tiles that no other box needs; return (row, column) of those.

        None are if some of them are kept already, or need not be read.
        """
        if margin is None:
            return set()
        shape = self.slide.levels[level].shape
        rows, cols = (
            _tiles_within(start, side, margin, tile, whole)
            for start, side, tile, whole in zip(
                at, out.shape, self._tiles[level], shape, strict=False
            )
        )
        inner = {(row, col) for row in rows for col in cols}
        if len(inner) < FEW or not self._all_to_read(level, inner, at, wanted):
            return set()
        (tile_h, tile_w), (y, x) = self._tiles[level], (rows[0], cols[0])
        top, left = y * tile_h - at[0], x * tile_w - at[1]
        bottom = min(shape[0], tile_h * rows.stop) - at[0]
        right = min(shape[1], tile_w * cols.stop) - at[1]
        self.slide.read_into(level, y * tile_h, x * tile_w, out[top:bottom, left:right])
        self.cache.note_misses(len(inner))
        return inner

    def _all_to_read(
        self, level: int, tiles: set[tuple[int, int]], at: tuple[int, int], wanted: Mask | None
    ) -> bool:
        first = [max(0, start) // tile for start, tile in zip(at, self._tiles[level], strict=True)]
        return all(
            (self._token, level, row, col) not in self.cache
            and (wanted is None or wanted[row - first[0], col - first[1]])
            for row, col in tiles
        )

    def _tile(self, level: int, tile_y: int, tile_x: int, *, spare: bool) -> Rgb:
        return self.cache.get_or_decode(
            (self._token, level, tile_y, tile_x),
            lambda: self._decode(level, tile_y, tile_x),
            spare=spare,
        )

    def _decode(self, level: int, tile_y: int, tile_x: int) -> Rgb:
        (tile_h, tile_w), (level_h, level_w) = self._tiles[level], self.slide.levels[level].shape
        y, x = tile_y * tile_h, tile_x * tile_w
        return self.slide.read_region(
            level, y, x, min(tile_h, level_h - y), min(tile_w, level_w - x)
        )


def _tiles_within(start: int, side: int, margin: int, tile: int, whole: int) -> range:
    """Tiles of an axis that lie in a box, and not in the margin that it shares with others.

    At the border of the level there are no others.
    """
    first = 0 if start <= 0 else -(-(start + margin) // tile)
    end = start + side
    return range(first, -(-whole // tile) if end >= whole else (end - margin) // tile)


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
