"""OME-Zarr 0.5 metadata of a map: where its cells lie, in µm, for any reader.

The centre of a pixel has whole coordinates, as in napari: scale is the distance of two cells,
translation the place of the centre of cell (0, 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Values
    from napari_wsi_heatmap.listmap import ListFrame

UNIT = "micrometer"


def describe(group: Any, frame: MapFrame | ListFrame, levels: Sequence[str], name: str) -> None:
    """Write the multiscales of a group.

    Parameters
    ----------
    group : zarr.Group
    frame : MapFrame or ListFrame
    levels : sequence of str
        Paths of the arrays, finest first, each half of the one before.
    name : str
        Name of the image.
    """
    described = multiscale(frame, levels, name)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [described]}


def multiscale(frame: MapFrame | ListFrame, levels: Sequence[str], name: str) -> dict[str, Any]:
    """Describe arrays as one image, in the words of OME-Zarr 0.4 and 0.5; see `describe`."""
    unit = frame.grid.spec.mpp
    space = {"type": "space"} if unit is None else {"type": "space", "unit": UNIT}
    return {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}],
        "datasets": [
            {"path": path, "coordinateTransformations": _placing(frame, unit, level)}
            for level, path in enumerate(levels)
        ],
    }


def _placing(
    frame: MapFrame | ListFrame, unit: tuple[float, float] | None, level: int
) -> list[dict[str, str | list[float]]]:
    """Scale and translation of a level; a coarser one by f begins (f − 1)/2 cells later."""
    factor, unit = 2**level, unit or (1.0, 1.0)
    scale = [cell * factor * u for cell, u in zip(frame.scale, unit, strict=True)]
    translation = [
        (offset + (factor - 1) / 2 * cell) * u
        for offset, cell, u in zip(frame.offset, frame.scale, unit, strict=True)
    ]
    return [
        {"type": "scale", "scale": [1.0, *scale]},
        {"type": "translation", "translation": [0.0, *translation]},
    ]


def halve(fine: Values) -> Values:
    """Mean of the cells of each 2 x 2 block that have a value; NaN where none has."""
    _, height, width = fine.shape
    padded = np.pad(
        fine, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=np.nan
    ).reshape(len(fine), -(-height // 2), 2, -(-width // 2), 2)
    there = ~np.isnan(padded)
    with np.errstate(invalid="ignore", over="ignore"):  # a model may return what is not finite
        total = np.where(there, padded, 0).sum((2, 4))
        mean: Values = (total / there.sum((2, 4))).astype(np.float32)
    return mean
