"""Fat: cells that the solvents emptied, between thin walls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.cells import Cells, Spots
from napari_wsi_heatmap.sample.noise import Field, smoothstep
from napari_wsi_heatmap.sample.stamping import divided

if TYPE_CHECKING:
    from napari_wsi_heatmap.sample.area import Area
    from napari_wsi_heatmap.sample.layout import Layout

FAT_SPACING = 132.0  # px, the width of a fat cell
_REACH = int(FAT_SPACING * 1.1)  # px from a fat cell's centre to its wall, at most
_MARGIN = 32  # px; how far walls are bent and smoothed from, at most


def place_fat(rng: np.random.Generator, layout: Layout) -> Cells:
    """Return the centres of fat cells (amount < 0) and of what lies between the lobules."""
    spots = Spots.scattered(rng, layout.frame, FAT_SPACING, 0.24)
    return Cells.of(spots.y, spots.x, 0, 0, np.where(layout.fatty[spots.at] > 0, -1, 1))


def paint_fat(area: Area, h: Field, e: Field) -> None:
    """Clear out fat cells and paint their walls over the amounts `h` and `e`."""
    wide = area.grown(_MARGIN)
    cells = area.scene.fat.near(*wide.box, reach=_REACH)
    if not (cells.amount < 0).any():
        return
    depth, fat = _fat_cells(wide, cells)
    e += smoothstep(8, 4, depth) * fat * (0.20 - e)
    empty = smoothstep(1.4, 3.2, depth) * fat
    h *= 1 - empty
    e *= 1 - empty


def _fat_cells(wide: Area, cells: Cells) -> tuple[Field, Field]:
    """Return the distance (roughly, px) to the nearest wall, and 1 where fat cells are."""
    from scipy.ndimage import gaussian_filter

    gap, kind = divided(wide.shape, cells, _REACH)
    # Smoothed, the distance has no sharp corners; cut off, it is smoothed near walls only.
    rounded = gaussian_filter(np.minimum(gap, 24), 3.0, truncate=3.0) - np.float32(3.4)
    depth, fat = _swayed(wide, [rounded, (kind < 0).astype(np.float32)])
    return depth, smoothstep(0.3, 0.7, fat)


def _swayed(wide: Area, planes: list[Field]) -> list[Field]:
    """Return planes of the wide area without its margin, bent so that no wall is straight."""
    from scipy.ndimage import map_coordinates

    y, x, height, width = wide.grown(-_MARGIN).box
    coarse = wide.scene.textures.coarse
    rows = np.arange(height, dtype=np.float32)[:, None] + _MARGIN
    columns = np.arange(width, dtype=np.float32) + _MARGIN
    at = [
        rows + 5 * coarse.at(y, x, height, width),
        columns + 5 * coarse.at(y + 500, x + 500, height, width),
    ]
    return [map_coordinates(plane, at, order=1, mode="nearest") for plane in planes]
