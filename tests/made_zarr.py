"""OME-Zarr folders that tests make, written by zarr itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_KINDS = {"c": "channel", "t": "time"}


def axes_of(names: str, unit: str | None = "micrometer") -> list[dict[str, str]]:
    """Metadata of axes by their letters."""
    axes = [{"name": name, "type": _KINDS.get(name, "space")} for name in names]
    for axis in axes:
        if axis["type"] == "space" and unit is not None:
            axis["unit"] = unit
    return axes


def scales_of(
    names: str, levels: list[NDArray[np.uint8]], mpp: float | None
) -> list[dict[str, Any]]:
    """Metadata of the datasets 0, 1, …"""
    datasets = []
    for index, level in enumerate(levels):
        ratio = dict(zip("yx", np.divide(levels[0].shape[:2], level.shape[:2]), strict=True))
        scale = [
            float(ratio.get(name, 1.0)) * ((mpp or 1) if name in "yx" else 1) for name in names
        ]
        steps = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(index), "coordinateTransformations": steps})
    return datasets


def write_array(
    group: zarr.Group, path: str, pixels: NDArray[np.uint8], names: str, **options: Any
) -> None:
    """Write (H, W, 3) pixels as an array with axes of these names; others have length 1."""
    array = pixels.transpose(["yxc".index(name) for name in names if name in "yxc"])
    for axis, name in enumerate(names):
        if name not in "yxc":
            array = np.expand_dims(array, axis)
    if group.metadata.zarr_format == 3:
        options["dimension_names"] = list(names)
    group.create_array(path, shape=array.shape, dtype=array.dtype, **options)[:] = array


def write_ome_zarr(
    path: Path,
    levels: list[NDArray[np.uint8]],
    *,
    version: str = "0.5",
    names: str = "cyx",
    mpp: float | None = 0.25,
    unit: str | None = "micrometer",
    chunks: tuple[int, ...] = (3, 64, 64),
    more: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write an image; `more` goes into its OME metadata, `options` to zarr's `create_array`."""
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    for index, level in enumerate(levels):
        write_array(group, str(index), level, names, chunks=chunks, **options)
    scales = {"axes": axes_of(names, unit), "datasets": scales_of(names, levels, mpp)}
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [scales], **(more or {})}
    else:
        group.attrs.update({"multiscales": [{"version": version, **scales}], **(more or {})})
    return path


def edit_json(path: Path, change: Any) -> None:
    """Apply ``change(content)`` to a JSON file; what it returns, if anything, replaces it."""
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


def edit_ome(path: Path, change: Any) -> None:
    """Change the OME metadata of a 0.5 image."""
    edit_json(path / "zarr.json", lambda content: change(content["attributes"]["ome"]))
