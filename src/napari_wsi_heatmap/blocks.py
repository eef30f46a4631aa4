"""How a lattice of windows is cut: into regions that are read at once, and blocks of regions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid

    Block = tuple[slice, slice]

REGION_SIDE = 2048
"""px: side of a region. Larger ones save little, smaller ones decode border tiles more often."""
REGION_BYTES = 48 << 20
BLOCK_SIDE = 8192
"""px: within it a cache of decoded tiles is enough to decode each tile once."""


def region_side(tile: tuple[int, int], nbytes: int) -> int:
    """Pixels along a region, in which its tiles are decoded once: two of them at least.

    Fewer where (side, side, 3) uint8 would be more than `nbytes`.
    """
    return max(1, min(max(REGION_SIDE, 2 * max(tile)), math.isqrt(nbytes // 3)))


def region_cells(
    grid: WindowGrid,
    most: int | None,
    side: int = REGION_SIDE,
    tile: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """Number of windows down and across a region of about `side` px, `most` in all.

    Where that is possible regions begin where tiles do: then fewer tiles belong to several.
    """
    down, across = (
        max(1, (side - k) // s + 1)
        for k, s in zip(grid.spec.footprint, grid.spec.stride, strict=True)
    )
    if most is not None and down * across > most:
        down = min(down, max(1, math.isqrt(most)))
        across = min(across, max(1, most // down))
    down, across = (
        _aligned(cells, s, t)
        for cells, s, t in zip((down, across), grid.spec.stride, tile, strict=True)
    )
    return down, across


def _aligned(cells: int, stride: int, tile: int) -> int:
    """The largest number from half of `cells` on that is a whole number of tiles, or `cells`."""
    step = tile // math.gcd(stride, tile)
    aligned = cells // step * step
    return aligned if 2 * aligned > cells else cells


def block_cells(grid: WindowGrid, cells: tuple[int, int], axis: int) -> int:
    """Number of windows along a block: a whole number of regions of so many `cells`."""
    cell = cells[axis]
    return cell * max(1, BLOCK_SIDE // (cell * grid.spec.stride[axis]))


def windows_within(grid: WindowGrid, sides: tuple[tuple[float, float], ...]) -> Block:
    """Windows whose centre lies between [low, high) of each axis, level-0 pixels."""
    rows, cols = (
        window_range(span, *side) for span, side in zip(grid.spans_level0, sides, strict=True)
    )
    return rows, cols


def window_range(span: NDArray[np.float64], low: float, high: float) -> slice:
    """Windows whose centre lies in [low, high); the nearest one if there is none."""
    centres = span.mean(1)
    first, last = np.searchsorted(centres, [low, high])
    first = min(int(first), len(centres) - 1)
    return slice(first, max(int(last), first + 1))
