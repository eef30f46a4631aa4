"""HDF5 as CLAM and TRIDENT have it: where the windows lie, their scores, their features.

::

    coords             (N, 2) int64, top-left (x, y), level-0 pixels, with the attributes of both
    attention_scores   (N, 1) float32, one output as it is
    values             (N, C) float32, all outputs; attributes names, activation
    features           (N, D) float32, if the model gave any

`patch_size` and `patch_level` say how large a window is in pixels of the level read (CLAM),
`patch_size_level0` how large at level 0 (TRIDENT); magnifications are 10 µm per pixel over the
slide's. Positions between pixels are rounded. Windows that are not done are left out; values
that are not finite stay what they are.

Memory bound: the map, and the features of 16 rows of windows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.exports.h5file import new_h5
from napari_wsi_heatmap.exports.windows import (
    done_windows,
    feature_bands,
    level_shape,
    square_side,
)
from napari_wsi_heatmap.overlay import channel_index

if TYPE_CHECKING:
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

MAGNIFICATION = 10.0
"""µm per pixel times magnification, as scanners count it."""


def write(
    heatmap: Heatmap, path: Path, *, slide: Slide | None = None, channel: int | str = 0
) -> None:
    """Write the datasets.

    Parameters
    ----------
    heatmap : Heatmap
        Of a dense map a window's value is the mean of its cells.
    path : Path
    slide : Slide, optional
        Not needed.
    channel : int or str
        Output that becomes ``attention_scores``.

    Raises
    ------
    ExportError
        If windows are not square, or there is no such output.
    """
    chosen, side = channel_index(heatmap, channel), square_side(heatmap, path, "h5")
    windows = done_windows(heatmap)
    with new_h5(path) as file:
        coords = file.create_dataset("coords", data=windows.whole_xy)
        coords.attrs.update(_attributes(heatmap, side))
        file.create_dataset("attention_scores", data=windows.values[:, [chosen]])
        values = file.create_dataset("values", data=windows.values)
        values.attrs["names"] = list(heatmap.names)
        values.attrs["activation"] = heatmap.run["model"]["activation"] or "None"
        if heatmap.features is not None:
            write_features(file, "features", heatmap, len(windows), np.float32)


def write_features(file: Any, name: str, heatmap: Heatmap, windows: int, dtype: Any) -> None:
    """Write a dataset (N, D) of the features of the windows that are done, part by part."""
    features = file.create_dataset(name, (windows, heatmap.features.shape[-1]), dtype)
    begin = 0
    for band in feature_bands(heatmap):
        features[begin : begin + len(band)] = band.astype(dtype)
        begin += len(band)


def _attributes(heatmap: Heatmap, side: int) -> dict[str, Any]:
    spec, shape = heatmap.grid.spec, heatmap.run["slide"]["shape"]
    level_dim = level_shape(heatmap)[::-1]
    return {
        "patch_size": side,
        "patch_level": spec.level,
        "downsample": spec.downsample[::-1],
        "level_dim": level_dim,
        "downsampled_level_dim": level_dim,
        "name": Path(heatmap.run["slide"]["name"]).stem,
        "patch_size_level0": round(heatmap.window_size[0]),
        "overlap": max(0, side - spec.stride[0]),
        "level0_width": shape[1],
        "level0_height": shape[0],
        **_magnifications(heatmap),
    }


def _magnifications(heatmap: Heatmap) -> dict[str, int | float]:
    spec = heatmap.grid.spec
    if spec.mpp is None:
        return {}
    level0 = round(MAGNIFICATION / spec.mpp[1])
    return {"level0_magnification": level0, "target_magnification": level0 / spec.downsample[1]}
