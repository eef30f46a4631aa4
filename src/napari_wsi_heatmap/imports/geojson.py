"""GeoJSON of WSInfer, QuPath or ours: a rectangle a window, its measurements are the values.

What has no measurements is left out. Measurements may be an object or, as before QuPath 0.4, a
list of names and values.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.imports.listed import Listed, plain_names

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.slides.base import Slide


def read(path: Path, slide: Slide, window: int | None) -> Listed:
    """Read the features."""
    with path.open(encoding="utf-8") as file:
        parsed = json.load(file)
    features = parsed.get("features", []) if isinstance(parsed, dict) else parsed
    boxes, measured = [], []
    for feature in features:
        found = _measurements(feature.get("properties") or {})
        if found and (feature.get("geometry") or {}).get("type") == "Polygon":
            boxes.append(_box(feature["geometry"]["coordinates"][0]))
            measured.append(found)
    if not boxes:
        raise StoreError("it has no polygons with measurements", path, "check what wrote it")
    columns = list(dict.fromkeys(name for found in measured for name in found))
    values = [[float(found.get(name, "nan")) for name in columns] for found in measured]
    names, activation = plain_names(columns)
    corners, size = _windows(np.array(boxes), path)
    return Listed(corners, size, np.array(values, np.float32), names, activation=activation)


def _measurements(properties: dict[str, Any]) -> dict[str, Any]:
    found = properties.get("measurements") or {}
    if isinstance(found, list):
        found = {entry["name"]: entry["value"] for entry in found}
    return found if isinstance(found, dict) else {}


def _box(ring: list[list[float]]) -> tuple[float, float, float, float]:
    """(top, left, bottom, right) of a ring of (x, y)."""
    xs, ys = [point[0] for point in ring], [point[1] for point in ring]
    return min(ys), min(xs), max(ys), max(xs)


def _windows(boxes: Any, path: Path) -> tuple[Any, tuple[float, float]]:
    sides = boxes[:, 2:] - boxes[:, :2]
    if np.ptp(sides, axis=0).max() > 1:
        low, high = sides.min(), sides.max()
        raise StoreError(
            f"its polygons are {low:g} to {high:g} px wide or high",
            path,
            "a map needs windows of one size",
        )
    height, width = np.median(sides, axis=0).tolist()
    return boxes[:, :2], (height, width)
