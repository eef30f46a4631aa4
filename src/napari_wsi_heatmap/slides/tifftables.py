"""Tables of tiles of a TIFF: where each lies and how many bytes it has, looked at in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.slides.tiffheader import (
    STRIP_COUNTS,
    TILE_COUNTS,
    TILE_OFFSETS,
    Directory,
    Walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 1 << 16
"""Values of a table that are in memory at once."""


def tiles_beyond_end(path: str, directory: Directory) -> tuple[int, int]:
    """Count the tiles of a directory whose bytes are not all in the file.

    Returns
    -------
    (int, int)
        How many lie beyond the end, and how many the directory lists.
    """
    beyond = listed = 0
    with open(path, "rb") as file:
        walk = Walk(file)
        tables = (_blocks(walk, directory, tag) for tag in (TILE_OFFSETS, TILE_COUNTS))
        for at, counts in zip(*tables, strict=False):
            both = min(len(at), len(counts))
            ends = at[:both] + counts[:both]
            beyond += int(np.count_nonzero((counts[:both] > 0) & (ends > walk.size)))
            listed += len(at)
    return beyond, listed


def largest_tile(path: str, directory: Directory) -> int:
    """Return the most bytes that a directory states for one of its tiles; 0 for none."""
    with open(path, "rb") as file:
        walk = Walk(file)
        blocks = (b for tag in (TILE_COUNTS, STRIP_COUNTS) for b in _blocks(walk, directory, tag))
        return max((int(block.max()) for block in blocks), default=0)


def _blocks(walk: Walk, directory: Directory, tag: int) -> Iterator[NDArray[np.int64]]:
    first = 0
    while len(block := walk.block(directory, tag, first, BLOCK)):
        yield block
        first += BLOCK
