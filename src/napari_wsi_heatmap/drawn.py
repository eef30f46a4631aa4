"""A region that somebody has drawn while a run goes on: its windows come next."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.blocks import block_cells, windows_within
from napari_wsi_heatmap.selection import add_polygon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.blocks import Block
    from napari_wsi_heatmap.grid import WindowGrid

    Mask = NDArray[np.bool_]
    Polygon = NDArray[np.float64]

FEW = 4
"""Windows around something drawn: up to so many are computed even if it holds no centre."""


class DrawnRegion:
    """Windows whose centre lies in what was drawn.

    Parameters
    ----------
    grid : WindowGrid
    polygons : sequence of (N, 2)
        Level-0 pixels.
    cells : (int, int)
        Windows down and across a region that is read at once.

    Attributes
    ----------
    blocks : list of (slice, slice)
        Parts of the lattice that hold it, each no larger than a block.
    """

    def __init__(
        self, grid: WindowGrid, polygons: Sequence[Polygon], cells: tuple[int, int]
    ) -> None:
        self._grid, self._polygons = grid, polygons
        points = np.concatenate(polygons)
        rows, cols = windows_within(grid, tuple(zip(points.min(0), points.max(0), strict=True)))
        self._all = (rows.stop - rows.start) * (cols.stop - cols.start) <= FEW
        sides = (block_cells(grid, cells, axis) for axis in (0, 1))
        parts = (_cut_up(part, side) for part, side in zip((rows, cols), sides, strict=True))
        self.blocks: list[Block] = list(itertools.product(*parts))  # type: ignore[arg-type]

    def holds(self, box: Block) -> Mask:
        """Whether each window of a box (slices of the lattice) belongs to it."""
        rows, cols = (
            span[part].mean(1) for span, part in zip(self._grid.spans_level0, box, strict=True)
        )
        inside = np.full((len(rows), len(cols)), self._all)
        for polygon in [] if self._all else self._polygons:
            add_polygon(inside, rows, cols, polygon)
        return inside


def _cut_up(part: slice, side: int) -> list[slice]:
    return [slice(i, min(part.stop, i + side)) for i in range(part.start, part.stop, side)]
