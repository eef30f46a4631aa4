"""Which squares of a dense map wait for which windows: counts, so that neither is searched for.

A square is complete when every window over it has arrived; a window is free when every square
below it is complete.

Memory bound: two bytes a window, four a square; for a moment, while counting begins, 16 a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Chunk, Index

    Mask = NDArray[np.bool_]
    Counts = NDArray[np.int32]
    Ranges = tuple[Index, Index]
    """First and one behind the last, for each row or column."""


class Waiting:
    """Squares of a map, and the windows of a grid that lie over them.

    Parameters
    ----------
    frame : MapFrame
    side : int
        Cells along a square.

    Attributes
    ----------
    left : (Sy, Sx) int32
        Windows that a square still waits for; 0 for one that is complete, or not wanted.
    """

    def __init__(self, frame: MapFrame, side: int) -> None:
        self._across = frame.grid.shape[1]
        axes = list(zip(frame.offsets, frame.patch_cells, frame.shape[1:], strict=True))
        self._squares = [_squares(offsets, n, side) for offsets, n, _ in axes]
        self._windows = [_windows(offsets, n, side, cells) for offsets, n, cells in axes]
        self.left: Counts = np.zeros([len(first) for first, _ in self._windows], np.int32)
        self._open: NDArray[np.uint16] = np.zeros(frame.grid.size, np.uint16)

    def begin(self, pending: Mask, wanted: Mask) -> None:
        """Count anew: windows (Y, X) that will arrive, squares (Sy, Sx) that wait for them."""
        self.left = np.where(wanted, _sums(pending, self._windows), 0)
        open_ = _sums(self.left > 0, self._squares).astype(np.uint16)
        self._open = np.where(pending, open_, 0).ravel()  # whatever the layout in memory

    def below(self, windows: Mask) -> Mask:
        """Squares (Sy, Sx) that any of these windows (Y, X) lies over."""
        return _sums(windows, self._windows) > 0

    def above(self, squares: Mask) -> Mask:
        """Windows (Y, X) that lie over any of these squares (Sy, Sx)."""
        return _sums(squares, self._squares) > 0

    def of(self, i: int) -> Iterator[Chunk]:
        """Squares below a window (flat index) that still wait."""
        for y, x in self._all_of(i):
            if self.left[y, x]:
                yield y, x

    def _all_of(self, i: int) -> Iterator[Chunk]:
        (top, bottom), (first, last) = self._squares
        row, col = divmod(i, self._across)
        for y in range(int(top[row]), int(bottom[row])):
            for x in range(int(first[col]), int(last[col])):
                yield y, x

    def arrive(self, i: int) -> list[Chunk]:
        """Take note of a window; return the squares that are complete now."""
        complete = []
        for square in self.of(i):
            self.left[square] -= 1
            if not self.left[square]:
                complete.append(square)
        return complete

    def free(self, square: Chunk) -> Index:
        """Note that a complete square is done with; return windows that no other waits for."""
        over = self.over(square)
        waiting = over[self._open[over] > 0]
        self._open[waiting] -= 1
        return waiting[self._open[waiting] == 0]

    def over(self, square: Chunk) -> Index:
        """Flat indices of the windows over a square, in grid order."""
        rows, cols = (
            np.arange(first[k], last[k])
            for (first, last), k in zip(self._windows, square, strict=True)
        )
        return (rows[:, None] * self._across + cols).ravel()


def _squares(offsets: Index, n: int, side: int) -> Ranges:
    """Squares below each row (or column) of windows."""
    return offsets // side, (offsets + n - 1) // side + 1


def _windows(offsets: Index, n: int, side: int, cells: int) -> Ranges:
    """Rows (or columns) of windows over each square: neighbours, since offsets never fall."""
    starts = np.arange(0, cells, side)
    return (
        np.searchsorted(offsets + n, starts, "right"),
        np.searchsorted(offsets, starts + side, "left"),
    )


def _sums(marks: Mask, ranges: list[Ranges]) -> Counts:
    """Count marks (A, B) in each box, given as ranges of rows (M,) and columns (N,): (M, N)."""
    sums = np.zeros((marks.shape[0] + 1, marks.shape[1] + 1), np.int32)
    np.cumsum(marks, 0, np.int32, out=sums[1:, 1:])
    np.cumsum(sums, 1, np.int32, out=sums)
    (top, bottom), (first, last) = ranges
    bands = sums[bottom]
    bands -= sums[top]
    counts: Counts = bands[:, last]
    counts -= bands[:, first]
    return counts
