"""An OME-Zarr 0.4 copy, for readers that do not know 0.5 (Zarr 3) yet.

A group of Zarr 2: the map as multiscales, float32, NaN where nothing was computed, placed as in
the store (centres of cells, in µm). States and features are not in it. Attribute
``napari-wsi-heatmap`` says what it was made from.

Memory bound: the map, its quarter, and both compressed: zarr writes by several threads, which go
on for a while when one of them finds the disk full, so they write to memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.ome import halve, multiscale

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

KEY = "napari-wsi-heatmap"
VERSION = "0.4"
CHUNK = 256
SMALLEST = 2048
"""Cells along a side above which there is a coarser level."""


def write(heatmap: Heatmap, path: Path, *, slide: Slide | None = None) -> None:
    """Write the group.

    Parameters
    ----------
    heatmap : Heatmap
    path : Path
        An empty folder.
    slide : Slide, optional
        Not needed.
    """
    import zarr

    chunks: dict[str, Any] = {}
    group = zarr.open_group(store=zarr.storage.MemoryStore(chunks), mode="a", zarr_format=2)
    values, levels = heatmap.values, ["0"]
    _add(group, levels[0], values)
    while max(values.shape[1:]) > SMALLEST:
        values = halve(values)
        levels.append(str(len(levels)))
        _add(group, levels[-1], values)
    described = multiscale(heatmap.frame, levels, heatmap.run["model"]["name"])
    group.attrs.update({"multiscales": [{"version": VERSION, **described}], KEY: _about(heatmap)})
    for key, data in chunks.items():
        file = path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.to_bytes())


def _add(group: Any, name: str, values: Any) -> None:
    group.create_array(
        name,
        data=values,
        chunks=(1, CHUNK, CHUNK),
        fill_value=np.nan,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _about(heatmap: Heatmap) -> dict[str, Any]:
    return {
        "version": __version__,
        "names": list(heatmap.names),
        "slide": heatmap.run["slide"]["name"],
        "plan_sha256": heatmap.run.get("plan_sha256"),
    }
