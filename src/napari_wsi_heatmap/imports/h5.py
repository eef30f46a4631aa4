"""HDF5 of CLAM, TRIDENT or ours: ``coords`` (x, y) at level 0, and what was computed there.

Values are dataset ``values``, else ``attention_scores``. How large a window is, is looked for in
this order: `window`, attribute ``patch_size_level0``, ``patch_size`` · ``downsample`` ·
``custom_downsample``, else the smallest step of the coordinates, which is told. Nothing outside of
the file is read, whatever it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import FeatureError, StoreError
from napari_wsi_heatmap.imports.listed import Listed, side_of_lattice
from napari_wsi_heatmap.mil.plainh5 import dataset_of, opened_h5

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Slide

VALUES = ("values", "attention_scores")
MOST = 1 << 28
"""Numbers in a dataset that is read."""


def read(path: Path, slide: Slide, window: int | None) -> Listed:
    """Read coordinates and values."""
    try:
        with opened_h5(path) as file:
            coords, found = _datasets(file, path)
            corners, attributes = coords[:].reshape(-1, 2)[:, ::-1], dict(coords.attrs)
            values, names, activation = _values(found)
    except FeatureError as error:
        raise StoreError(error.what, path, error.do) from error
    side, notices = _side(attributes, corners, path, window)
    return Listed(corners, (side, side), values, names, activation=activation, notices=notices)


def _datasets(file: Any, path: Path) -> tuple[Any, Any]:
    """Coordinates and values, of one length; nothing of them is read yet."""
    coords, found = dataset_of(file, ("coords",), path), dataset_of(file, VALUES, path)
    if coords is None:
        raise StoreError("it has no coords", path, "they say where the windows lie")
    if found is None:
        what = f"it has {', '.join(file)}, and no values"
        raise StoreError(what, path, f"a map is made of one of {', '.join(VALUES)}")
    if coords.shape[-1:] != (2,):
        raise StoreError(f"its coords have shape {coords.shape}", path, "they must be (N, 2)")
    if found.size > MOST or coords.size > MOST:
        raise StoreError("it holds more windows than a slide has", path, "check what wrote it")
    rows = found.size // (max(1, found.shape[-1]) if found.ndim > 1 else 1)
    if 2 * rows != coords.size:
        what = f"{rows} values for {coords.size // 2} coordinates"
        raise StoreError(what, path, "check what wrote it")
    return coords, found


def _values(found: Any) -> tuple[NDArray[np.float32], tuple[str, ...], str | None]:
    values = np.asarray(found[:], np.float32)
    values = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values[:, None]
    known = tuple(map(str, found.attrs.get("names", ())))
    activation = str(found.attrs.get("activation", "None"))
    name = found.name.rpartition("/")[2]
    return values, known or _numbered(name, values.shape[1]), _none(activation)


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
