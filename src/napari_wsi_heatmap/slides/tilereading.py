"""A box of a level, put together from its tiles."""

from __future__ import annotations

import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.slides.tilecodecs import TileError
from napari_wsi_heatmap.slides.tilework import share_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from napari_wsi_heatmap.slides.base import Mask, Rgb
    from napari_wsi_heatmap.slides.rawfile import RawFile
    from napari_wsi_heatmap.slides.tifflayout import Place, TiledLevel
    from napari_wsi_heatmap.tilecache import TileCache

    Tile = tuple[int, int]
    Run = tuple[int, int, int]
    Box = tuple[int, int, int, int]

RUN = 4
"""Tiles of a row that one thread takes at once: their bytes mostly lie together in the file."""
_MOST_EXPANDED = 4
"""No codec makes a tile this many times larger than its pixels; a damaged table does."""
_GAP = 16 << 10
"""Bytes between tiles that are rather read along than skipped."""
_HEADER = 8
"""Bytes of a TIFF's own header, where no tile can lie."""


_of_thread = threading.local()


class TileReading:
    """One box that is being read.

    Parameters
    ----------
    tiled : TiledLevel
    index : int
        Of the level.
    box : (int, int, int, int)
        (y, x, height, width) inside the level.
    cache : TileCache
        For tiles that other boxes will need, too.
    rgb : (height, width, 3) uint8, optional
        Where to put the pixels.

    Attributes
    ----------
    rgb : (height, width, 3) uint8
        The pixels; undefined where a tile is missing.
    """

    def __init__(
        self, tiled: TiledLevel, index: int, box: Box, cache: TileCache, rgb: Rgb | None = None
    ) -> None:
        self.tiled, self.index, self.box = tiled, index, box
        self.rgb: Rgb = np.empty((*box[2:], 3), np.uint8) if rgb is None else rgb
        self._missing: list[tuple[int, int]] = []
        self._cache = cache if self._shares_tiles(cache) else None

    def read(self, lend: Callable[[], AbstractContextManager[RawFile]]) -> None:
        """Fill `rgb`, by this thread and idle ones.

        Parameters
        ----------
        lend : callable
            Lends the file, if there is anything to be read from it.

        Raises
        ------
        TileError
            If a tile does not decode; says which.
        SlideReadError
            If its bytes cannot be read.
        """
        wanted = [tile for tile in self._tiles() if not self._place_kept(*tile)]
        if not wanted:
            return
        with lend() as raw:
            if self._cache is None:
                self._read_tiles(raw, wanted)
            else:
                self._read_shared(raw, wanted, self._cache)
            raw.refuse_changed()

    def _read_shared(self, raw: RawFile, wanted: list[Tile], cache: TileCache) -> None:
        """Read tiles that no other thread reads just now; then take what others have read."""
        mine, others = cache.claim((0, self.index, *tile) for tile in wanted)
        try:
            self._read_tiles(raw, [(row, column) for _, _, row, column in mine])
        finally:
            cache.release(mine)
        for (_, _, row, column), ready in others:
            ready.wait()
            if not self._place_kept(row, column):  # they failed, or it was pushed out again
                self._read_tiles(raw, [(row, column)])

    def _read_tiles(self, raw: RawFile, wanted: list[Tile]) -> None:
        share_out(list(_runs(wanted)), partial(self._read_run, raw), len(wanted))

    def _tiles(self) -> Iterator[Tile]:
        rows, columns = range(*self._span(0)), range(*self._span(1))
        return itertools.product(rows, columns)

    def scanned(self) -> Mask | None:
        """Where the file holds pixels; None if it does throughout the box."""
        if not self._missing:
            return None
        mask = np.ones(self.box[2:], bool)
        for row, column in self._missing:
            mask[self._place(row, column)[:2]] = False
        return mask

    def _span(self, axis: int) -> tuple[int, int]:
        size, start = self.tiled.coding.tile[axis], self.box[axis]
        return start // size, -(-(start + self.box[axis + 2]) // size)

    def _shares_tiles(self, cache: TileCache) -> bool:
        """Whether another box may need these tiles: not if this one cuts none of them.

        Who reads whole tiles keeps them himself. And a large box would push out the rest.
        """
        y, x, height, width = self.box
        (tile_h, tile_w), (level_h, level_w) = self.tiled.coding.tile, self.tiled.shape
        whole = (
            y % tile_h == 0
            and x % tile_w == 0
            and ((y + height) % tile_h == 0 or y + height == level_h)
            and ((x + width) % tile_w == 0 or x + width == level_w)
        )
        return not whole and self.rgb.nbytes * 4 <= cache.max_bytes

    def _read_run(self, raw: RawFile, run: Run) -> None:
        row, start, stop = run
        wanted = []
        for column, places in enumerate(self.tiled.places(raw, row, start, stop), start):
            if any(length == 0 for _, length in places):
                self._missing.append((row, column))
            else:
                wanted.append((column, places))
        self._refuse_wrong_places(raw, row, wanted)
        for (column, _), parts in zip(wanted, _bytes(raw, wanted), strict=True):
            self._put(row, column, self._decode(row, column, parts))

    def _place_kept(self, row: int, column: int) -> bool:
        pixels = None if self._cache is None else self._cache.get((0, self.index, row, column))
        if pixels is not None:
            self._paste(row, column, pixels)
        return pixels is not None

    def _put(self, row: int, column: int, pixels: Rgb) -> None:
        if self._cache is not None:
            self._cache.put((0, self.index, row, column), pixels)
        self._paste(row, column, pixels)

    def _paste(self, row: int, column: int, pixels: Rgb) -> None:
        rows, columns, tile_rows, tile_columns = self._place(row, column)
        self.rgb[rows, columns] = pixels[tile_rows, tile_columns]

    def _place(self, row: int, column: int) -> tuple[slice, slice, slice, slice]:
        """Rows and columns of the box that a tile fills, and which of its own those are."""
        (tile_h, tile_w), (y, x, height, width) = self.tiled.coding.tile, self.box
        top, left = row * tile_h - y, column * tile_w - x
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(height, top + tile_h), min(width, left + tile_w)
        return (
            slice(y0, y1),
            slice(x0, x1),
            slice(y0 - top, y1 - top),
            slice(x0 - left, x1 - left),
        )

    def _decode(self, row: int, column: int, parts: list[bytes]) -> Rgb:
        try:
            planes = [self.tiled.decode(part, self._scratch()) for part in parts]
        except TileError as error:
            raise self._damaged(row, column, error) from error
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _damaged(self, row: int, column: int, what: object) -> TileError:
        y, x = row * self.tiled.coding.tile[0], column * self.tiled.coding.tile[1]
        return TileError(f"the tile at y {y}, x {x} is damaged: {what}")

    def _scratch(self) -> Rgb | None:
        """Room for a tile that is pasted and not kept; the same for all of a thread."""
        if self._cache is not None or self.tiled.planes > 1:
            return None
        shape = self.tiled.coding.shape
        tile = getattr(_of_thread, "tile", None)
        if tile is None or tile.shape != shape:
            _of_thread.tile = tile = np.empty(shape, np.uint8)
        return tile

    def _refuse_wrong_places(
        self, raw: RawFile, row: int, wanted: list[tuple[int, tuple[Place, ...]]]
    ) -> None:
        """Refuse what a damaged table claims, before anything is allocated by it."""
        most = _MOST_EXPANDED * int(np.prod(self.tiled.coding.shape)) + (1 << 16)
        for column, places in wanted:
            for offset, length in places:
                if length > most:
                    raise self._damaged(row, column, f"it claims {length} bytes")
                if not _HEADER <= offset <= raw.size - length:
                    raise self._damaged(row, column, f"its bytes lie at {offset}, not in the file")


def _runs(tiles: list[Tile]) -> Iterator[Run]:
    """Join tiles that lie beside each other, at most `RUN`; they come row by row."""
    start = 0
    for at in range(1, len(tiles) + 1):
        row, column = tiles[start]
        if at == len(tiles) or at - start == RUN or tiles[at] != (row, column + at - start):
            yield row, column, column + at - start
            start = at


def _bytes(raw: RawFile, wanted: list[tuple[int, tuple[Place, ...]]]) -> Iterator[list[bytes]]:
    """Yield the bytes of each tile, one for each plane; at one go where they lie together."""
    chunks = iter(_read_together(raw, [place for _, places in wanted for place in places]))
    for _, places in wanted:
        yield [next(chunks) for _ in places]


def _read_together(raw: RawFile, places: list[Place]) -> Iterator[bytes]:
    if len(places) > 1:
        start = min(offset for offset, _ in places)
        stop = max(offset + length for offset, length in places)
        if stop - start <= sum(length for _, length in places) + _GAP:
            together = raw.read(start, stop - start)
            for offset, length in places:
                yield together[offset - start : offset - start + length]
            return
    for offset, length in places:
        yield raw.read(offset, length)
