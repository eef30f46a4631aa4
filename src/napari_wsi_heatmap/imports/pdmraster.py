"""PyDmed's raster of a csv, with its faults: for who needs the array that PyDmed makes.

The array is compacted (rows and columns of cells that nothing was written to are not in it), a
cell that is missing is 0, windows at the borders are floored onto the cells, and the last row of
the file wins. For a map at its true place: ``open_heatmap(file, slide=...)``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.imports.pdmcsv import read_rows
from napari_wsi_heatmap.runfolder import reading

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_wsi_heatmap.imports.pdmcsv import Row

    Place = Callable[..., tuple[Any, Any, Any]]


def pdmcsv_to_array(
    path: str | os.PathLike[str], place: Place | None = None, scale: float = 1.0
) -> NDArray[np.float64]:
    """Make the array that PyDmed's ``pdmcsvtoarray`` makes.

    Parameters
    ----------
    path : path-like
        A line that is cut off at its end is left out, and logged.
    place : callable, optional
        As PyDmed's ``func_WSIxyWHval_to_rasterpoints``: called with ``x, y, W, H, level,
        kernel_size, downsample, c, h, w, values`` of each row, it gives x and y of cells and their
        values (each C numbers). Default: cell = floor(j + x · h / kernel_size), for y likewise.
    scale : float
        Above 1: each channel is interpolated with cubic splines to round(Y · scale) by
        round(X · scale) cells, the first and the last at the borders. PyDmed means to do so; its
        own code for it does not run.

    Returns
    -------
    (Y, X, C) float64

    Raises
    ------
    StoreError
        If it is no such file, or a window's values are not square.
    """
    path = Path(path)
    with reading(path, "the file", "check what wrote it"):
        rows, notices = read_rows(path)
        for notice in notices:
            logging.getLogger(__name__).warning("%s: %s", path, notice)
        return _raster(*_cells(rows, place or place_as_pydmed, path), scale)


def place_as_pydmed(*row: Any) -> tuple[Any, Any, Any]:
    """PyDmed's default: windows floored onto cells of kernel_size / h pixels."""
    x, y, _, _, _, kernel, _, channels, cells, _, values = row
    side = kernel / cells
    down, across = np.mgrid[:cells, :cells].reshape(2, -1)
    return across + x / side, down + y / side, np.reshape(values, (channels, -1)).T


def _cells(rows: list[Row], place: Place, path: Path) -> tuple[Any, Any, Any]:
    """Columns, rows and values of all cells, in the file's order."""
    channels, (height, width) = rows[0].shape[0], rows[0].level_shape
    found = []
    for number, row in enumerate(rows, 1):
        _refuse(row, channels, number, path)
        y, x = row.corner
        found.append(place(x, y, width, height, *row.head[4:], *row.shape, row.values))
    parts = [[np.asarray(part, float) for part in column] for column in zip(*found, strict=True)]
    xs, ys, values = map(np.concatenate, parts)
    return np.floor(xs), np.floor(ys), values


def _refuse(row: Row, channels: int, number: int, path: Path) -> None:
    if row.shape[0] != channels or row.shape[1] != row.shape[2]:
        raise StoreError(
            f"row {number} has values of shape {row.shape}",
            path,
            f"PyDmed places {channels} channels of square maps here",
        )


def _raster(xs: Any, ys: Any, values: Any, scale: float) -> NDArray[np.float64]:
    (columns, x), (lines, y) = (np.unique(side, return_inverse=True) for side in (xs, ys))
    raster = np.zeros((len(lines), len(columns), values.shape[1]))
    # NumPy does not promise which of several values at one place it keeps.
    flat = (y * len(columns) + x)[::-1]
    cells, last = np.unique(flat, return_index=True)
    raster.reshape(-1, values.shape[1])[cells] = values[::-1][last]
    return _enlarged(raster, scale) if scale > 1 else raster


def _enlarged(raster: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Interpolate (Y, X, C) to (round(Y · scale), round(X · scale), C), channel by channel.

    What lies nearest to a cell without a number has none either; elsewhere such cells count as
    their nearest neighbours.
    """
    from scipy.ndimage import zoom

    planes = np.moveaxis(raster, 2, 0)
    return np.stack(
        [
            np.where(
                zoom(np.isfinite(plane).astype(np.uint8), scale, order=0) > 0,
                zoom(_filled(plane), scale, order=3),
                zoom(plane, scale, order=0),
            )
            for plane in planes
        ],
        axis=2,
    )


def _filled(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Y, X), each cell that is not finite as its nearest one that is."""
    from scipy.ndimage import distance_transform_edt

    lost = ~np.isfinite(plane)
    if lost.all() or not lost.any():
        return np.where(lost, 0, plane)
    nearest = distance_transform_edt(lost, return_distances=False, return_indices=True)
    return plane[tuple(nearest)]
