"""Scores and places of the patches of a slide, as CLAM keeps them: ``{id}_blockmap.h5``.

::

    attention_scores   (N, 1) float32, raw: before softmax, where the model has one
    coords             (N, 2) int32, top-left (x, y), level-0 pixels; attributes patch_size,
                       patch_level, patch_size_level0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports.h5file import new_h5
from napari_wsi_heatmap.exports.target import written_at_once

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.scored import Scored

ROWS = 32
"""Rows of a chunk, as in CLAM's files."""
LIMIT = 2**31


def write_blockmap(path: Path, scored: Scored) -> None:
    """Write scores and coordinates, whole or not at all.

    Raises
    ------
    ExportError
        If a coordinate is no 32-bit number.
    StoreFullError
        If it cannot be written.
    """
    corners = np.rint(scored.coords)
    if np.abs(corners).max() >= LIMIT:
        raise ExportError("a coordinate is far beyond any slide", path, "check the features")
    with written_at_once(path) as part, new_h5(part) as file:
        options = {"chunks": (ROWS, 2), "maxshape": (None, 2)}
        coords = file.create_dataset("coords", data=corners[:, ::-1].astype(np.int32), **options)
        side = round(sum(scored.patch_size) / 2)
        coords.attrs.update({"patch_size": side, "patch_level": 0, "patch_size_level0": side})
        file.create_dataset(
            "attention_scores",
            data=np.asarray(scored.scores, np.float32)[:, None],
            chunks=(ROWS, 1),
            maxshape=(None, 1),
        )


def read_scores(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Read what `write_blockmap` wrote: coordinates (N, 2) (y, x), and scores (N,)."""
    import h5py

    with h5py.File(path, "r") as file:
        coords = file["coords"][:][:, ::-1].astype(np.float64)
        return coords, file["attention_scores"][:, 0]
