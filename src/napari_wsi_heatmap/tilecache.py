"""Decoded tiles, kept while there is room: one bounded cache under viewer and runs.

Neighbouring regions, and successive views, share tiles of the file. Reading through this cache
decodes each of them once as long as they stay within reach.

Memory bound
------------
`TileCache.max_bytes`, plus one tile per thread that decodes at the moment. A single tile larger
than the bound is handed out and not kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_wsi_heatmap.slides.base import Rgb

Key = tuple[int, int, int, int]


class TileCache:
    """Least recently used tiles of any number of slides, at most `max_bytes` of them."""

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.misses = 0
        self._tiles: OrderedDict[Key, Rgb] = OrderedDict()
        self._lock = threading.Lock()
        self._claimed: dict[Key, threading.Event] = {}

    def get(self, key: Key) -> Rgb | None:
        """Return the tile and mark it as used, or None."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is None:
                self.misses += 1
            else:
                self._tiles.move_to_end(key)
            return tile

    def get_or_decode(self, key: Key, decode: Callable[[], Rgb], *, spare: bool = False) -> Rgb:
        """Return the tile; of threads that miss it at the same time one decodes it.

        The others wait for it. If it fails, each tries for itself: the reason is each one's own.
        """
        while True:
            mine, others = self.claim([key])
            if mine:
                break
            others[0][1].wait()
            if (tile := self.peek(key)) is not None:
                return tile
        try:
            tile = self.get(key)
            if tile is None:
                tile = decode()
                self.put(key, tile, spare=spare)
            return tile
        finally:
            self.release([key])

    def claim(self, keys: Iterable[Key]) -> tuple[list[Key], list[tuple[Key, threading.Event]]]:
        """Divide tiles into those that the caller is to decode, and those that others do.

        Returns
        -------
        mine : list of Key
            To be released, also after an error.
        others : list of (Key, threading.Event)
            With what is set when that tile was released.
        """
        mine, others = [], []
        with self._lock:
            for key in keys:
                busy = self._claimed.get(key)
                if busy is None:
                    self._claimed[key] = threading.Event()
                    mine.append(key)
                else:
                    others.append((key, busy))
        return mine, others

    def release(self, keys: Iterable[Key]) -> None:
        """Let others take from the cache, or decode, what the caller had claimed."""
        with self._lock:
            for key in keys:
                self._claimed.pop(key).set()

    def peek(self, key: Key) -> Rgb | None:
        """Return the tile like `get`, but count no miss: who peeks decodes nothing."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def note_misses(self, number: int) -> None:
        """Count tiles that were decoded without being asked for here."""
        with self._lock:
            self.misses += number

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
