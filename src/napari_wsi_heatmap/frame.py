"""Where the cells of a map lie: one cell a window, or h x w cells a window.

Two frames belong to a heatmap: the grid (Y, X) of windows, and the map (C, My, Mx) of cells. For
outputs (N, C) they coincide. For dense outputs (N, C, h, w) a cell is window/h pixels of the
window unless the model says otherwise; the map of a window is centred in it.

The centre of a pixel has whole coordinates (napari's convention): cell (0, 0) has its centre at
`offset`, cell i at offset + i · scale, both in level-0 pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.grid import WindowGrid, WindowSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE = 1e-6
"""Strides this near to a whole number of cells are whole: sizes come from float calibrations."""


@dataclass(frozen=True)
class MapFrame:
    """The cells of a map over a grid."""

    grid: WindowGrid
    channels: int
    patch_cells: tuple[int, int] = (1, 1)
    """(h, w) cells that the model gives a window; (1, 1) for one value a window."""
    cell: tuple[float, float] = (0.0, 0.0)
    """(y, x) size of a cell in pixels of the level read."""

    @property
    def dense(self) -> bool:
        """Whether a window holds several cells."""
        return self.patch_cells != (1, 1)

    @cached_property
    def offsets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First cell of each row (Y,) and each column (X,) of windows."""
        if not self.dense:
            return np.arange(self.grid.shape[0]), np.arange(self.grid.shape[1])
        down, across = (
            np.rint(start / cell).astype(np.int64)
            for start, cell in zip(self.grid.starts, self.cell, strict=True)
        )
        return down, across

    def box(self, index: int) -> tuple[slice, slice]:
        """Cells of a window (flat index) as slices of the map."""
        row, col = divmod(index, self.grid.shape[1])
        y, x = int(self.offsets[0][row]), int(self.offsets[1][col])
        return slice(y, y + self.patch_cells[0]), slice(x, x + self.patch_cells[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, My, Mx) of the map."""
        my, mx = (int(o[-1]) + n for o, n in zip(self.offsets, self.patch_cells, strict=True))
        return self.channels, my, mx

    @property
    def scale(self) -> tuple[float, float]:
        """(y, x) level-0 pixels from one cell to the next."""
        down = self.grid.spec.downsample
        return self.cell[0] * down[0], self.cell[1] * down[1]

    @property
    def offset(self) -> tuple[float, float]:
        """(y, x) of the centre of cell (0, 0), level-0 pixels."""
        return self._offset(0), self._offset(1)

    def _offset(self, axis: int) -> float:
        spec = self.grid.spec
        window = spec.footprint[axis] * spec.downsample[axis]
        if not self.dense:
            return (window - 1) / 2
        cell = self.scale[axis]
        margin = (window - self.patch_cells[axis] * cell) / 2
        return margin + (cell - 1) / 2


def lay_frame(
    grid: WindowGrid,
    channels: int,
    patch_cells: tuple[int, int] | None = None,
    output_stride: float | None = None,
) -> MapFrame:
    """Place the outputs of a model on the grid of its windows.

    Parameters
    ----------
    grid : WindowGrid
    channels : int
    patch_cells : (int, int), optional
        (h, w) of a dense output; None for (N, C).
    output_stride : float, optional
        Pixels of the window (as the model sees it) per cell; default window / h.

    Raises
    ------
    GridError
        If the stride is not a whole number of cells; names the nearest that are.
    """
    spec = grid.spec
    if patch_cells is None or patch_cells == (1, 1):
        return MapFrame(grid, channels, cell=(float(spec.stride[0]), float(spec.stride[1])))
    cell = tuple(
        (output_stride or window / n) * footprint / window
        for window, footprint, n in zip(spec.window, spec.footprint, patch_cells, strict=True)
    )
    for stride, side in zip(spec.stride, cell, strict=True):
        _check_whole(stride, side)
    return MapFrame(grid, channels, patch_cells, (cell[0], cell[1]))


def _check_whole(stride: int, cell: float) -> None:
    cells = stride / cell
    if abs(cells - round(cells)) <= WHOLE and round(cells) >= 1:
        return
    below, above = max(1, int(cells)) * cell, (int(cells) + 1) * cell
    raise GridError(
        f"a stride of {stride} px is {cells:.3g} cells of the model's output",
        f"cells of {cell:g} px",
        f"use a stride of {below:g} or {above:g} px (of the level read)",
    )


def frame_to_json(frame: MapFrame) -> dict[str, Any]:
    """Everything that places the cells, as plain values."""
    return asdict(frame)


def frame_from_json(data: dict[str, Any]) -> MapFrame:
    """Rebuild what `frame_to_json` wrote."""
    grid = tuples(data["grid"])
    spec = WindowSpec(**tuples(grid.pop("spec")))
    return MapFrame(**{**tuples(data), "grid": WindowGrid(spec=spec, **grid)})


def tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Turn the lists of JSON back into tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
