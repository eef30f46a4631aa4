"""A table: WSInfer's csv, our own, or any with x and y; also as Parquet.

Columns ``minx, miny, width, height`` (or ``x, y``) are level-0 pixels; every other column of
numbers is an output, except ``latent_0``, ``latent_1``, ….
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.imports.listed import Listed, plain_names, side_of_lattice

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.slides.base import Slide

PLACES = (("minx", "miny"), ("x", "y"))
SIZES = ("width", "height")
LATENT = re.compile(r"latent_\d+")
KEY = b"napari-wsi-heatmap"


def read(path: Path, slide: Slide, window: int | None) -> Listed:
    """Read the rows."""
    table, about = _parquet(path) if path.suffix.lower() == ".parquet" else (_csv(path), {})
    x, y = _place(list(table), path)
    corners = table[[y, x]].to_numpy(np.float64)
    columns = [name for name in table.select_dtypes("number") if name not in (x, y, *SIZES)]
    outputs = [name for name in columns if not LATENT.fullmatch(name)]
    if not outputs:
        raise StoreError("it has no column of values", path, "check what wrote it")
    names, activation = plain_names(outputs)
    size, notices = _size(table, about, corners, path, window)
    values = table[outputs].to_numpy(np.float32)
    activation = about.get("activation", activation)
    return Listed(corners, size, values, names, activation=activation, notices=notices)


def _csv(path: Path) -> Any:
    import pandas as pd

    # To the last bit of a double or the one before: float32 come back as they were.
    return pd.read_csv(path)


def _parquet(path: Path) -> tuple[Any, dict[str, Any]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    about = (table.schema.metadata or {}).get(KEY, b"{}")
    return table.to_pandas(), json.loads(about)


def _place(columns: list[str], path: Path) -> tuple[str, str]:
    for x, y in PLACES:
        if x in columns and y in columns:
            return x, y
    raise StoreError(
        f"its columns do not say where windows lie: {', '.join(map(str, columns[:8]))}",
        path,
        "it needs minx, miny, width, height or x, y (level-0 pixels)",
    )


def _size(
    table: Any, about: dict[str, Any], corners: Any, path: Path, window: int | None
) -> tuple[tuple[float, float], tuple[str, ...]]:
    if window is not None:
        return (window, window), ()
    if all(name in table for name in SIZES):
        return (_one(table["height"], path), _one(table["width"], path)), ()
    if "window_level0" in about:
        height, width = about["window_level0"]
        return (height, width), ()
    side, notice = side_of_lattice(corners, path)
    return (side, side), (notice,)


def _one(sides: Any, path: Path) -> float:
    """Read the side that all windows have."""
    if len(sides) and sides.max() - sides.min() > 1:
        raise StoreError(
            f"windows are {sides.min():g} to {sides.max():g} px wide or high",
            path,
            "a map needs windows of one size",
        )
    return float(sides.median()) if len(sides) else 1.0
