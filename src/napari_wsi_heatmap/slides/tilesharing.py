"""Decoded tiles that several boxes of one slide share, each decoded by one thread at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from napari_wsi_heatmap.tilecache import TileCache

if TYPE_CHECKING:
    from collections.abc import Iterable

    Tile = tuple[int, int]
    Key = tuple[int, int, int]


class SharedTiles(TileCache):
    """A cache that knows which tiles are being decoded.

    Windows that lie side by side are mostly read at the same time, and cut the same tiles.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._claimed: dict[Key, threading.Event] = {}
        self._claiming = threading.Lock()

    def claim(
        self, level: int, tiles: Iterable[Tile]
    ) -> tuple[list[Tile], list[tuple[Tile, threading.Event]]]:
        """Divide tiles into those that the caller is to decode, and those that others do.

        Returns
        -------
        mine : list of (int, int)
            To be released, also after an error.
        others : list of ((int, int), threading.Event)
            With what is set when that tile was released.
        """
        mine: list[Tile] = []
        others = []
        with self._claiming:
            for tile in tiles:
                busy = self._claimed.get((level, *tile))
                if busy is None:
                    self._claimed[level, *tile] = threading.Event()
                    mine.append(tile)
                else:
                    others.append((tile, busy))
        return mine, others

    def release(self, level: int, tiles: Iterable[Tile]) -> None:
        """Let others take from the cache, or decode, what the caller had claimed."""
        with self._claiming:
            for tile in tiles:
                self._claimed.pop((level, *tile)).set()
