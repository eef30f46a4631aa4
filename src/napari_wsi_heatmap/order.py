"""Which windows next: where somebody looks, a sparse pass over everything, then blocks.

An order hands out `Region`s: boxes that are read once and hold one or many windows. Neighbouring
regions share tiles of the file, so work moves in blocks of about 8192 px; within a block regions
come in raster order. Every pending window is handed out exactly once, whatever the order.

What somebody draws comes before all that, and then what is looked at, when it is no more than a
block; the pass at hand goes on afterwards.

Threads may take regions and move the viewport at the same time.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.blocks import BLOCK_SIDE as BLOCK_SIDE
from napari_wsi_heatmap.blocks import (
    REGION_BYTES,
    block_cells,
    region_cells,
    region_side,
    windows_within,
)
from napari_wsi_heatmap.drawn import DrawnRegion
from napari_wsi_heatmap.sparse import nested_steps, one_of_each_square, sparse_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import TypeIs

    from napari_wsi_heatmap.blocks import Block
    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.grid import WindowGrid

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]
    Box = tuple[float, float, float, float]
    Polygon = NDArray[np.float64]

ORDERS = ("viewport", "raster")


SMALL, SMALL_ONES = 32, 2
"""Windows of a small region, and how many of them a run begins with."""


@dataclass(frozen=True)
class Region:
    """One read: a box of a level, and the windows that lie in it."""

    index: Index
    """(n,) flat indices of windows."""
    box: tuple[int, int, int, int]
    """(y, x, height, width), pixels of the level read."""


def region_of(index: Index, windows: WindowGrid | WindowList) -> Region:
    """Smallest box around some windows."""
    origins = windows.origins(index)
    top, left = origins.min(0)
    bottom, right = origins.max(0) + windows.spec.footprint
    return Region(index, (int(top), int(left), int(bottom - top), int(right - left)))


class GridOrder:
    """Hands out the pending windows of a grid.

    Parameters
    ----------
    grid : WindowGrid
    pending : (Y, X) bool
        Windows to compute; copied.
    tile : (int, int)
        (height, width) of a decoded tile, pixels of the level read.
    order : {"viewport", "raster"}
    viewport : (y0, x0, y1, x1), optional
        What somebody looks at, level-0 pixels; the middle of the slide to begin with.
    sparse : bool
        Whether a sparse pass comes first (``order="viewport"`` only).
    most : int, optional
        Windows in a region at most: what is read is computed before what is looked at next.
    region_bytes : int, optional
        Pixels of a region at most; one window may be more.
    computed : (Y, X) bool, optional
        Windows of an earlier session: the sparse pass leaves out their surroundings.
    costs : callable, optional
        Asked when the sparse pass is over: seconds of the model for a window, seconds of reading
        for a tile. Further passes follow where they cost next to nothing, see `nested_steps`.
    """

    def __init__(
        self,
        grid: WindowGrid,
        pending: Mask,
        tile: tuple[int, int] = (256, 256),
        order: str = "raster",
        viewport: Box | None = None,
        *,
        sparse: bool = True,
        most: int | None = None,
        region_bytes: int = REGION_BYTES,
        computed: Mask | None = None,
        costs: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self.grid = grid
        self._pending = pending.copy()
        self._planned = pending.copy() if computed is None else pending | computed
        self._costs = costs
        self._lock, self._small = threading.Lock(), SMALL_ONES
        self._viewport = viewport
        self._cells = region_cells(grid, most, region_side(tile, region_bytes), tile)
        self._drawn: Iterator[Region] = iter(())
        self._looked_at: Iterator[Region] = iter(())
        self._current: Iterator[Region] = iter(())
        self._passes = self._raster() if order == "raster" else self._by_viewport(tile, sparse)
        if order == "viewport" and viewport is not None:
            self._looked_at = self._viewport_regions()

    def take(self) -> Region | None:
        """Next region, or None when every pending window was handed out."""
        with self._lock:
            while True:
                for regions in (self._drawn, self._looked_at, self._current):
                    if (region := self._take_from(regions)) is not None:
                        return region
                following = next(self._passes, None)
                if following is None:
                    return None
                self._current = following

    def look_at(self, place: Box | Sequence[Polygon]) -> None:
        """Put first what somebody looks at, or has drawn; then the pass at hand goes on.

        Parameters
        ----------
        place : (y0, x0, y1, x1) or sequence of (N, 2) polygons
            Level-0 pixels. A box is what is on view; it takes the place of the one before, and
            one larger than a block only decides which block is next. Polygons are a region that
            was drawn: it comes first, however large, and is not forgotten when the view moves.
        """
        with self._lock:
            if _is_box(place):
                self._viewport = place
                self._looked_at = self._viewport_regions()
            else:
                drawn = DrawnRegion(self.grid, place, self._cells)
                self._drawn = itertools.chain(self._drawn_regions(drawn), self._drawn)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.take, None)

    def _take_from(self, regions: Iterator[Region]) -> Region | None:
        for region in regions:
            # A window may have been handed out since this pass was laid out.
            left = region.index[self._pending.ravel()[region.index]]
            if len(left):
                self._pending.ravel()[left] = False
                return region if len(left) == len(region.index) else region_of(left, self.grid)
        return None

    def _raster(self) -> Iterator[Iterator[Region]]:
        """Block by block: of a whole row of regions too many tiles would have to be kept."""
        sides = [block_cells(self.grid, self._cells, axis) for axis in (0, 1)]
        for i in range(0, self.grid.shape[0], sides[0]):
            for j in range(0, self.grid.shape[1], sides[1]):
                yield self._regions(np.s_[i : i + sides[0]], np.s_[j : j + sides[1]])

    def _by_viewport(self, tile: tuple[int, int], sparse: bool) -> Iterator[Iterator[Region]]:
        if sparse:
            step = sparse_step(self.grid, self._planned, tile)
            yield self._sparse_pass(tile, step)
            for finer in self._finer_steps(tile, step):
                yield self._sparse_pass(tile, finer)
        while (block := self._nearest_block()) is not None:
            yield self._regions(*block)

    def _finer_steps(self, tile: tuple[int, int], step: int) -> tuple[int, ...]:
        if self._costs is None:
            return ()
        return nested_steps(self.grid, self._pending, tile, step, *self._costs())

    def _sparse_pass(self, tile: tuple[int, int], step: int) -> Iterator[Region]:
        """One window of each square that has none yet; those that are looked at first."""
        known = self._planned & ~self._pending
        left = one_of_each_square(self.grid, self._pending, tile, step, known)
        while len(left):
            sorted_for, left = self._viewport, self._seen_first(left)
            while len(left) and self._viewport == sorted_for:
                yield region_of(left[:1], self.grid)
                left = left[1:]

    def _seen_first(self, index: Index) -> Index:
        rows, cols = np.divmod(index, self.grid.shape[1])
        unseen = ~(self._seen(0)[rows] & self._seen(1)[cols])
        return index[np.argsort(unseen, kind="stable")]

    def _regions(
        self, rows: slice, cols: slice, drawn: DrawnRegion | None = None
    ) -> Iterator[Region]:
        """Regions of the pending windows of a part of the lattice, in raster order."""
        i0, i1, _ = rows.indices(self.grid.shape[0])
        j0, j1, _ = cols.indices(self.grid.shape[1])
        for i in range(i0, i1, self._cells[0]):
            for j in range(j0, j1, self._cells[1]):
                box = np.s_[i : min(i1, i + self._cells[0]), j : min(j1, j + self._cells[1])]
                part = self._pending[box]
                if drawn is not None:
                    part = part & drawn.holds(box)
                down, across = np.nonzero(part)
                if len(down):
                    yield from self._in_parts((down + i) * self.grid.shape[1] + across + j)

    def _in_parts(self, index: Index) -> Iterator[Region]:
        """The first regions of a run are small: nobody waits long for the first windows."""
        while self._small and len(index) > SMALL:
            self._small -= 1
            yield region_of(index[:SMALL], self.grid)
            index = index[SMALL:]
        yield region_of(index, self.grid)

    def _drawn_regions(self, drawn: DrawnRegion) -> Iterator[Region]:
        """Regions of what was drawn, block by block, always the one nearest to the viewport."""
        left = list(drawn.blocks)
        while left:
            nearest = min(left, key=self._how_far)
            left.remove(nearest)
            yield from self._regions(*nearest, drawn)

    def _how_far(self, block: Block) -> float:
        """Squared distance of a block's middle from that of the viewport."""
        return sum(
            float(self._distance(axis, np.array([part.start]), part.stop - part.start)[0]) ** 2
            for axis, part in enumerate(block)
        )

    def _seen(self, axis: int) -> Mask:
        """Which rows (Y,) or columns (X,) of windows have their centre in the viewport."""
        low, high = self._viewport_sides()[axis]
        centres = self.grid.spans_level0[axis].mean(1)
        return (centres >= low) & (centres < high)

    def _viewport_regions(self) -> Iterator[Region]:
        """Regions of what is looked at; none if that is more than a block.

        Of a whole slide a rough map says more than its middle in full.
        """
        sides = self._viewport_sides()
        down = self.grid.spec.downsample
        if any(high - low > BLOCK_SIDE * d for (low, high), d in zip(sides, down, strict=True)):
            return iter(())
        return self._regions(*windows_within(self.grid, sides))

    def _viewport_sides(self) -> tuple[tuple[float, float], tuple[float, float]]:
        if self._viewport is None:
            height, width = (span[-1, 1] for span in self.grid.spans_level0)
            return (height / 2, height / 2), (width / 2, width / 2)
        y0, x0, y1, x1 = self._viewport
        return (y0, y1), (x0, x1)

    def _nearest_block(self) -> tuple[slice, slice] | None:
        """The block with pending windows whose middle is nearest to what somebody looks at."""
        sides = [block_cells(self.grid, self._cells, axis) for axis in (0, 1)]
        starts = [np.arange(0, n, side) for n, side in zip(self.grid.shape, sides, strict=True)]
        open_ = np.logical_or.reduceat(
            np.logical_or.reduceat(self._pending, starts[0], 0), starts[1], 1
        )
        if not open_.any():
            return None
        distance = [
            self._distance(axis, start, side)
            for axis, (start, side) in enumerate(zip(starts, sides, strict=True))
        ]
        total = np.where(open_, distance[0][:, None] ** 2 + distance[1][None, :] ** 2, np.inf)
        i, j = np.unravel_index(np.argmin(total), total.shape)
        y, x = int(starts[0][i]), int(starts[1][j])
        return slice(y, y + sides[0]), slice(x, x + sides[1])

    def _distance(self, axis: int, starts: Index, side: int) -> NDArray[np.float64]:
        span = self.grid.spans_level0[axis]
        ends = np.minimum(starts + side, len(span)) - 1
        middle = (span[starts, 0] + span[ends, 1]) / 2
        low, high = self._viewport_sides()[axis]
        return middle - (low + high) / 2


def _is_box(place: Box | Sequence[Polygon]) -> TypeIs[Box]:
    return len(place) == 4 and all(np.ndim(side) == 0 for side in place)
