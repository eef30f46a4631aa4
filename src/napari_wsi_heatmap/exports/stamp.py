"""HDF5 as STAMP has it: features of tiles, placed in µm.

``feats`` (N, D) float16, ``coords`` (N, 2) float32 top-left (x, y) in µm, and the attributes by
which STAMP knows a file of tiles. It holds no values: STAMP has no place for them. Windows that
are not done are left out.

Memory bound: the features of 16 rows of windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports.h5 import write_features
from napari_wsi_heatmap.exports.h5file import new_h5
from napari_wsi_heatmap.exports.windows import done_windows, square_side

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

STAMP_VERSION = "2.0.0"
"""The first whose files look like this: STAMP refuses files of versions newer than itself."""


def write(heatmap: Heatmap, path: Path, *, slide: Slide | None = None) -> None:
    """Write the file.

    Parameters
    ----------
    heatmap : Heatmap
        With features, of a slide with a calibration.
    path : Path
    slide : Slide, optional
        Not needed.

    Raises
    ------
    ExportError
        If there are no features, no µm per pixel, or windows are not square.
    """
    spec = heatmap.grid.spec
    if heatmap.features is None:
        raise ExportError("there are no features", path, "run a model that gives some")
    if spec.mpp is None:
        raise ExportError("STAMP places tiles in µm", path, "open the slide with mpp=")
    square_side(heatmap, path, "STAMP")
    windows = done_windows(heatmap)
    micrometres = (windows.corners * spec.mpp)[:, ::-1]
    with new_h5(path) as file:
        file.attrs["stamp_version"] = STAMP_VERSION
        file.attrs["extractor"] = heatmap.run["model"]["name"]
        file.attrs["unit"] = "um"
        file.attrs["tile_size_um"] = heatmap.window_size[1] * spec.mpp[1]
        file.attrs["tile_size_px"] = spec.window[1]
        file.attrs["code_hash"] = heatmap.run["model"].get("sha256") or ""
        file.attrs["feat_type"] = "tile"
        file.create_dataset("coords", data=micrometres.astype(np.float32))
        write_features(file, "feats", heatmap, len(windows), np.float16)
