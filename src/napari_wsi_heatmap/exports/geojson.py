"""Tiles for QuPath, as WSInfer writes them too: one polygon a window, measurements per output.

Coordinates are level-0 pixels, x before y. ``objectType`` is ``tile``: without it QuPath would
make slow annotations. Values that are not numbers are the strings "NaN", "Infinity" and
"-Infinity", which QuPath reads as such. Windows that are not done are left out.

Memory bound: the map, and the text of `PART` windows.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.exports.windows import done_windows, measurement_names, number_texts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.exports.windows import DoneWindows
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

PART = 8192
"""Windows that are turned into text at once."""
NOT_FINITE = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}


def write(heatmap: Heatmap, path: Path, *, slide: Slide | None = None) -> None:
    """Write a FeatureCollection.

    Parameters
    ----------
    heatmap : Heatmap
        Of a dense map a window's value is the mean of its cells.
    path : Path
    slide : Slide, optional
        Not needed.
    """
    windows, names = done_windows(heatmap), measurement_names(heatmap)
    keys = [json.dumps(name) for name in names]
    seed = _seed(heatmap)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        made_by = json.dumps(f"napari-wsi-heatmap {__version__}")
        file.write(f'{{"type": "FeatureCollection", "generator": {made_by}, "features": [')
        for begin in range(0, len(windows), PART):
            file.write(",\n" if begin else "\n")
            file.write(",\n".join(_features(windows, slice(begin, begin + PART), keys, seed)))
        file.write("\n]}\n")


def _seed(heatmap: Heatmap) -> bytes:
    """What tells the tiles of this heatmap from those of others."""
    run = heatmap.run
    told = run["slide"], run["model"]["name"], run.get("plan_sha256"), heatmap.names
    return hashlib.sha256(json.dumps(told, default=str).encode()).digest()


def _features(windows: DoneWindows, part: slice, keys: list[str], seed: bytes) -> list[str]:
    near = windows.corners[part]
    borders = number_texts(np.concatenate([near, near + windows.size], axis=1)).tolist()
    values, index = _values(windows.values[part]), windows.index[part].tolist()
    rows = zip(borders, values, index, strict=True)
    return [_feature(border, row, keys, _identity(seed, i)) for border, row, i in rows]


def _identity(seed: bytes, index: int) -> uuid.UUID:
    """The same for the same window whenever it is exported."""
    return uuid.UUID(bytes=hashlib.md5(seed + index.to_bytes(8), usedforsecurity=False).digest())


def _values(values: NDArray[np.float32]) -> list[list[str]]:
    texts: list[list[str]] = values.astype(str).tolist()
    if not np.isfinite(values).all():
        texts = [[NOT_FINITE.get(text, text) for text in row] for row in texts]
    return texts


def _feature(border: list[str], values: list[str], keys: list[str], identity: Any) -> str:
    top, left, bottom, right = border
    ring = (
        f"[[{right}, {top}], [{right}, {bottom}], [{left}, {bottom}], "
        f"[{left}, {top}], [{right}, {top}]]"
    )
    measured = ", ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
    return (
        f'{{"type": "Feature", "id": "{identity}", '
        f'"geometry": {{"type": "Polygon", "coordinates": [{ring}]}}, '
        f'"properties": {{"objectType": "tile", "isLocked": true, '
        f'"measurements": {{{measured}}}}}}}'
    )
