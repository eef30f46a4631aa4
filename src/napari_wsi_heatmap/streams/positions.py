"""Where random windows may begin: drawn region by region, each place equally likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid

    Index = NDArray[np.int64]


class Positions:
    """All top-left corners of windows inside a level whose centre lies in a wanted cell.

    Cells are those of a lattice of windows that touch each other. A region is a square of some
    cells; regions are drawn by how many places they hold, so that a place is as likely as any
    other, whatever region it is in.

    Parameters
    ----------
    grid : WindowGrid
        Its stride is its window.
    wanted : (Y, X) bool
        Cells in which centres may lie.
    side : int
        Pixels along a region, about; one cell at least.

    Notes
    -----
    A window that is larger than the level begins at its border, and is filled up.
    """

    def __init__(self, grid: WindowGrid, wanted: NDArray[np.bool_], side: int) -> None:
        sides = zip(grid.level_shape, grid.spec.footprint, grid.shape, strict=True)
        (self._rows, down), (self._cols, across) = (_places(*axis) for axis in sides)
        self._counts = wanted * down[:, None] * across[None, :]  # places in each cell
        self._ends = (self._rows + down, self._cols + across)
        self._cells = [max(1, side // kernel) for kernel in grid.spec.footprint]
        starts = [np.arange(0, n, c) for n, c in zip(grid.shape, self._cells, strict=True)]
        sums = np.add.reduceat(np.add.reduceat(self._counts, starts[0], 0), starts[1], 1)
        self._across = len(starts[1])
        self._sums = np.cumsum(sums.ravel())

    def __len__(self) -> int:
        return int(self._sums[-1])

    def draw(self, n: int, rng: np.random.Generator) -> Index:
        """Draw a region, and `n` places in it.

        Returns
        -------
        (n, 2) int64
            (y, x), pixels of the level; some may be equal.
        """
        region = int(np.searchsorted(self._sums, rng.integers(len(self)), side="right"))
        i, j = (
            at * cells for at, cells in zip(divmod(region, self._across), self._cells, strict=True)
        )
        part = self._counts[i : i + self._cells[0], j : j + self._cells[1]]
        sums = np.cumsum(part.ravel())
        cells = np.searchsorted(sums, rng.integers(sums[-1], size=n), side="right")
        rows, cols = np.divmod(cells, part.shape[1])
        y = rng.integers(self._rows[i + rows], self._ends[0][i + rows])
        x = rng.integers(self._cols[j + cols], self._ends[1][j + cols])
        return np.stack([y, x], axis=-1)


def _places(side: int, kernel: int, cells: int) -> tuple[Index, Index]:
    """First place of each cell of an axis, and how many there are.

    A window that begins at p has its centre in cell (2p + kernel) // (2 kernel).
    """
    last = max(0, side - kernel)
    at = np.arange(cells + 1, dtype=np.int64)
    borders = np.clip(-(-(2 * kernel * at - kernel) // 2), 0, last + 1)
    return borders[:-1], np.diff(borders)
