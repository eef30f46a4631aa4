"""HDF5 of CLAM, TRIDENT or ours: ``coords`` (x, y) at level 0, and what was computed there.

Values are dataset ``values``, else ``attention_scores``. How large a window is, is looked for in
this order: `window`, attribute ``patch_size_level0``, ``patch_size`` · ``downsample`` ·
``custom_downsample``, else the smallest step of the coordinates, which is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.imports.listed import Listed, side_of_lattice

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Slide

VALUES = ("values", "attention_scores")


def read(path: Path, slide: Slide, window: int | None) -> Listed:
    """Read coordinates and values."""
    import h5py

    with h5py.File(path, "r") as file:
        if "coords" not in file:
            raise StoreError("it has no coords", path, "they say where the windows lie")
        corners, attributes = file["coords"][:][:, ::-1], dict(file["coords"].attrs)
        values, names, activation = _values(file, path)
    if len(values) != len(corners):
        raise StoreError(
            f"{len(values)} values for {len(corners)} coordinates", path, "check what wrote it"
        )
    side, notices = _side(attributes, corners, path, window)
    return Listed(corners, (side, side), values, names, activation=activation, notices=notices)


def _values(file: Any, path: Path) -> tuple[NDArray[np.float32], tuple[str, ...], str | None]:
    for name in VALUES:
        if name in file:
            found = file[name]
            values = np.asarray(found[:], np.float32)
            values = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values[:, None]
            known = tuple(map(str, found.attrs.get("names", ())))
            activation = str(found.attrs.get("activation", "None"))
            return values, known or _numbered(name, values.shape[1]), _none(activation)
    raise StoreError(
        f"it has {', '.join(file)}, and no values",
        path,
        f"a map is made of one of {', '.join(VALUES)}",
    )


def _numbered(name: str, channels: int) -> tuple[str, ...]:
    name = name.removesuffix("s").replace("_", " ")
    return (name,) if channels == 1 else tuple(f"{name} {c}" for c in range(channels))


def _none(text: str) -> str | None:
    return None if text == "None" else text


def _side(
    attributes: dict[str, Any], corners: Any, path: Path, window: int | None
) -> tuple[float, tuple[str, ...]]:
    if window is not None:
        return window, ()
    if "patch_size_level0" in attributes:
        return float(attributes["patch_size_level0"]), ()
    if "patch_size" in attributes:
        down = np.mean(attributes.get("downsample", 1.0))
        return float(attributes["patch_size"] * down * attributes.get("custom_downsample", 1)), ()
    side, notice = side_of_lattice(corners, path)
    return side, (notice,)
