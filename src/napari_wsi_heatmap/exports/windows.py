"""What the formats of windows have in common: the windows that are done, as others place them.

Other tools know a window by the top-left border of its first pixel, in level-0 pixels. Windows
that are pending, background, outside or failed are left out of these formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.features import CHUNK
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap


@dataclass(frozen=True)
class DoneWindows:
    """The windows of a heatmap that are done, in grid order."""

    index: NDArray[np.int64]
    """(n,) flat, into the grid."""
    corners: NDArray[np.float64]
    """(n, 2) top-left (y, x), level-0 pixels."""
    size: tuple[float, float]
    """(height, width), level-0 pixels."""
    values: NDArray[np.float32]
    """(n, C); of a dense map the mean of a window's cells."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def whole_xy(self) -> NDArray[np.int64]:
        """(n, 2) top-left (x, y), rounded to whole level-0 pixels."""
        return np.rint(self.corners[:, ::-1]).astype(np.int64)


def done_windows(heatmap: Heatmap) -> DoneWindows:
    """Windows that are done, and their values."""
    index, values = heatmap.window_values()
    return DoneWindows(index, heatmap.grid.positions(index), heatmap.window_size, values)


def measurement_names(heatmap: Heatmap) -> list[str]:
    """One name per output: ``prob_<name>``, as WSInfer has it, where they are probabilities."""
    none = heatmap.names if heatmap.run["model"]["activation"] is None else heatmap.uncertainty
    return [name if name in none else f"prob_{name}" for name in heatmap.names]


def feature_bands(heatmap: Heatmap) -> Iterator[NDArray[np.float32]]:
    """Features (n, D) of the windows that are done, in grid order, some rows at a time.

    Memory bound: `CHUNK` rows of the grid, or a few thousand windows of a list.
    """
    features, done = heatmap.features, state_of(heatmap.state) == DONE
    step = CHUNK if done.ndim == 2 else CHUNK**3
    for top in range(0, len(done), step):
        rows = done[top : top + step]
        if rows.any():
            across = (slice(0, n) for n in done.shape[1:])
            yield np.asarray(features[slice(top, top + step), *across])[rows]


def square_side(heatmap: Heatmap, path: Path, name: str) -> int:
    """Side of a window, in pixels of the level read.

    Raises
    ------
    ExportError
        If windows are not square: formats of one number a window cannot say so.
    """
    height, width = heatmap.grid.spec.footprint
    if height != width:
        raise ExportError(
            f"{name} knows square windows only, these are {height} x {width} px",
            path,
            "export csv, geojson or parquet",
        )
    return height


def level_shape(heatmap: Heatmap) -> tuple[int, int]:
    """(height, width) of the level that was read; of a list's it is found by its downsample."""
    shape: Any = getattr(heatmap.grid, "level_shape", None)
    if shape is None:
        spec = heatmap.grid.spec
        sides = zip(heatmap.run["slide"]["shape"], spec.downsample, strict=True)
        shape = [round(side / down) for side, down in sides]
    return int(shape[0]), int(shape[1])


def number_texts(values: NDArray[Any]) -> NDArray[Any]:
    """Decimal text of floats: the fewest digits that give back the same; whole pixels plainly."""
    whole = np.rint(values)
    with np.errstate(invalid="ignore"):
        return np.where(values == whole, whole.astype(np.int64).astype(str), values.astype(str))
