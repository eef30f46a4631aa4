"""The values as a tiled pyramidal OME-TIFF, float32, one plane an output.

A pixel is a cell of the map; NaN where nothing was computed. The size of a pixel stands in the OME
metadata in µm, and so does the place of the map's top-left border on the slide (``PositionX``,
``PositionY``); ``Description`` is JSON with both in level-0 pixels. Coarser levels are means of
2 x 2 cells that have a value.

Memory bound: the map, and its quarter.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.ome import halve

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

KEY = "napari-wsi-heatmap"
TILE = 256
SMALLEST = 512
"""Cells along a side above which there is a coarser level."""
LARGE = 1 << 31
"""Bytes above which the file is a BigTIFF."""
OPTIONS: dict[str, Any] = {
    "tile": (TILE, TILE),
    "photometric": "minisblack",
    "compression": "adobe_deflate",
}


def write(heatmap: Heatmap, path: Path, *, slide: Slide | None = None) -> None:
    """Write the file.

    Parameters
    ----------
    heatmap : Heatmap
    path : Path
    slide : Slide, optional
        Not needed.
    """
    from tifffile import TiffWriter

    values = heatmap.values
    levels = _levels(max(values.shape[1:]))
    options = OPTIONS | {"software": f"{KEY} {__version__}"}
    with TiffWriter(path, bigtiff=values.nbytes > LARGE, ome=True) as file:
        file.write(values, subifds=levels, metadata=_metadata(heatmap), **options)
        for _ in range(levels):
            values = halve(values)
            file.write(values, subfiletype=1, metadata=None, **options)


def _levels(side: int) -> int:
    """Coarser levels for a map of a side."""
    levels = 0
    while side > SMALLEST:
        side, levels = -(-side // 2), levels + 1
    return levels


def _metadata(heatmap: Heatmap) -> dict[str, Any]:
    channels = {"Name": list(heatmap.names)}
    about = json.dumps(_placement(heatmap))
    placed = {
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, about)),  # else one of this machine's
        "Creator": f"{KEY} {__version__}",
        "Name": heatmap.run["model"]["name"],
        "Description": about,
    }
    return {"axes": "CYX", "Channel": channels, **placed, **_micrometres(heatmap)}


def _placement(heatmap: Heatmap) -> dict[str, Any]:
    """Where the map's border lies and how large a cell is, (y, x), level-0 pixels."""
    return {
        "software": f"{KEY} {__version__}",
        "slide": heatmap.run["slide"]["name"],
        "origin_level0": border(heatmap),
        "scale_level0": heatmap.frame.scale,
        "window_level0": heatmap.window_size,
    }


def border(heatmap: Heatmap) -> tuple[float, float]:
    """(y, x) of the top-left border of cell (0, 0), level-0 pixels from the slide's own."""
    frame = heatmap.frame
    y, x = (o - (s - 1) / 2 for o, s in zip(frame.offset, frame.scale, strict=True))
    return y, x


def _micrometres(heatmap: Heatmap) -> dict[str, Any]:
    mpp = heatmap.grid.spec.mpp
    if mpp is None:
        return {}
    scale, corner, n = heatmap.frame.scale, border(heatmap), len(heatmap.names)
    plane = {
        **{f"Position{axis}": [corner[i] * mpp[i]] * n for i, axis in enumerate("YX")},
        **{f"Position{axis}Unit": ["µm"] * n for axis in "YX"},
    }
    sizes = {f"PhysicalSize{axis}": scale[i] * mpp[i] for i, axis in enumerate("YX")}
    return {**sizes, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm", "Plane": plane}
