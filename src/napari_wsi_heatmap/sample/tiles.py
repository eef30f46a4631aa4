"""From painted blocks to compressed tiles and coarser levels, several threads at once."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.sample.paint import paint
from napari_wsi_heatmap.sample.scene import BLOCK, Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

TILE = 256  # px
QUALITY = 87  # of the JPEG tiles
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Painted:
    """One block: its tiles of the two finest levels, compressed, and the third level's pixels."""

    full: list[list[bytes]]  # rows of tiles
    half: bytes  # one tile
    quarter: Pixels


class Coarse:
    """What is kept of the blocks for the coarser levels, once they are painted.

    Memory bound: the second level compressed, the third as pixels: 4 bytes a 16th of the slide.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._half: dict[tuple[int, int], bytes] = {}
        self._quarter = np.empty((*(-(-n // BLOCK) * BLOCK // 4 for n in size), 3), np.uint8)

    def keep(self, block: Painted, row: int, column: int) -> None:
        """Keep what the coarser levels need of a block."""
        self._half[row, column] = block.half
        height, width, _ = block.quarter.shape
        y, x = row * height, column * width
        self._quarter[y : y + height, x : x + width] = block.quarter

    def second(self) -> Iterator[bytes]:
        """Return the tiles of the second level, row by row: a block is one of its tiles."""
        rows, columns = (-(-n // BLOCK) for n in self._size)
        return (self._half[row, column] for row in range(rows) for column in range(columns))

    def from_third(self, count: int) -> list[Pixels]:
        """Return the third level and those after it, `count` in all but at least one."""
        levels = [self._quarter[: self._size[0] // 4, : self._size[1] // 4]]
        while len(levels) < count:
            levels.append(halved(levels[-1]))
        return levels


def finest_tiles(
    scene: Scene, size: tuple[int, int], coarse: Coarse, told: Callable[[float], None]
) -> Iterator[bytes]:
    """Yield the finest level's tiles row by row; `told` hears what fraction of them is made."""
    rows, columns = (-(-n // BLOCK) for n in size)
    with ThreadPoolExecutor(THREADS) as pool:
        blocks = _ahead(pool, scene, rows * columns, columns)
        try:
            for row in range(rows):
                band = []
                for column in range(columns):
                    band.append(next(blocks))
                    coarse.keep(band[-1], row, column)
                    told((row * columns + column + 1) / (rows * columns))
                yield from _lines(band, size, row)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _lines(band: list[Painted], size: tuple[int, int], row: int) -> Iterator[bytes]:
    """Yield the tiles of a row of blocks, those that touch the slide."""
    below, across = -(-size[0] // TILE) - row * (BLOCK // TILE), -(-size[1] // TILE)
    for inner in range(min(BLOCK // TILE, below)):
        yield from [tile for block in band for tile in block.full[inner]][:across]


def _ahead(pool: ThreadPoolExecutor, scene: Scene, count: int, columns: int) -> Iterator[Painted]:
    """Yield the blocks in order while a few more than there are threads are in the making."""
    waiting: deque[Any] = deque()
    for number in range(count):
        waiting.append(pool.submit(painted, scene, *divmod(number, columns)))
        if len(waiting) > THREADS + 2:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def painted(scene: Scene, row: int, column: int) -> Painted:
    """Return a block, painted and compressed."""
    pixels = paint(scene, row * BLOCK, column * BLOCK, BLOCK, BLOCK)
    half = halved(pixels)
    starts = range(0, BLOCK, TILE)
    full = [[_compressed(pixels[y : y + TILE, x : x + TILE]) for x in starts] for y in starts]
    return Painted(full, _compressed(half), halved(half))


def halved(pixels: Pixels) -> Pixels:
    """Return the means of 2 x 2 px, rounded."""
    total = pixels[0::2].astype(np.uint16) + pixels[1::2]
    total = total[:, 0::2] + total[:, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)


def tiles_of(pixels: Pixels) -> Iterator[bytes]:
    """Yield the tiles of a level row by row."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % TILE), (0, -width % TILE), (0, 0)), mode="edge")
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            yield _compressed(padded[y : y + TILE, x : x + TILE])


def _compressed(tile: Pixels) -> bytes:
    from imagecodecs import jpeg_encode

    pixels = np.ascontiguousarray(tile)
    encoded = jpeg_encode(
        pixels, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
    )
    return bytes(encoded)
