"""PyDmed's csv: one row a window, its place at the level read, its values.

Row: ``y, x, H, W, level, kernel_size, downsample, C, h, w,`` and C · h · w values, the channel
slowest; all positions in pixels of the level. Float32 values stand there as the exact double, so
that they are read back to the bit. There is no header line. Windows that are not done are left
out; the cells of a window without a value are ``nan``.

Of a dense map a window has the cells of the map under it: where windows overlap these are
blended, and no longer what the model gave that one window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.exports.pdmcsvwriter import average_downsample, head_of, row_of
from napari_wsi_heatmap.exports.windows import level_shape, square_side
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide


def write(heatmap: Heatmap, path: Path, *, slide: Slide | None = None) -> None:
    """Write the rows.

    Parameters
    ----------
    heatmap : Heatmap
    path : Path
    slide : Slide, optional
        Not needed.

    Raises
    ------
    ExportError
        If windows are not square: the format has one number for a window's size.
    """
    head = _head(heatmap, path)
    index = np.flatnonzero(state_of(heatmap.state) == DONE)
    corners = heatmap.grid.origins(index).tolist()
    with path.open("w", encoding="ascii", newline="\n") as file:
        for (y, x), values in zip(corners, _values(heatmap), strict=True):
            file.write(row_of(y, x, head, values))


def _head(heatmap: Heatmap, path: Path) -> str:
    """What all rows have between their place and their values."""
    spec, shape = heatmap.grid.spec, level_shape(heatmap)
    side = square_side(heatmap, path, "pdmcsv")
    height, width = heatmap.run["slide"]["shape"]
    downsample = average_downsample((height, width), shape)
    return head_of(shape, spec.level, side, downsample, (len(heatmap.names), *_cells(heatmap)))


def _cells(heatmap: Heatmap) -> tuple[int, int]:
    height, width = heatmap.frame.patch_cells if heatmap.frame.dense else (1, 1)
    return height, width


def _values(heatmap: Heatmap) -> Iterator[list[float]]:
    """Values of each window that is done."""
    if not heatmap.frame.dense:
        yield from heatmap.window_values()[1].tolist()
        return
    for i in np.flatnonzero(state_of(heatmap.state) == DONE).tolist():
        yield heatmap.values[:, *heatmap.frame.box(i)].ravel().tolist()
