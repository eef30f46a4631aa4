"""Windows at coordinates that somebody gives, on no lattice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.sides import FARTHEST

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_wsi_heatmap.grid import WindowSpec


@dataclass(frozen=True)
class WindowList:
    """Windows that are read alike, each where it was asked for."""

    spec: WindowSpec
    corners: NDArray[np.int64]
    """(N, 2) top-left (y, x), pixels of the level read."""

    @property
    def overlap(self) -> int:
        """Pixels of the level that windows may share along an axis."""
        return max(self.spec.footprint)

    @property
    def size(self) -> int:
        """Number of windows."""
        return len(self.corners)

    def origins(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Top-left corners (N, 2) of windows, pixels of the level read."""
        return self.corners[index]

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Top-left corners (N, 2) of windows, level-0 pixels."""
        return self.origins(index) * np.asarray(self.spec.downsample)


def list_windows(spec: WindowSpec, coords: ArrayLike) -> WindowList:
    """Put windows at level-0 positions onto the level read.

    Parameters
    ----------
    coords : (N, 2) array
        Top-left (y, x), level-0 pixels; rounded to whole pixels of the level.

    Raises
    ------
    GridError
        If they are no such numbers.
    """
    try:
        coords = np.asarray(coords)
    except ValueError as error:
        raise GridError("coordinates of unequal length", do="give (N, 2) numbers (y, x)") from error
    if coords.ndim != 2 or coords.shape[1] != 2 or not np.issubdtype(coords.dtype, np.number):
        raise GridError(
            f"coordinates are {coords.dtype} {coords.shape}", do="give (N, 2) numbers (y, x)"
        )
    if not (np.abs(coords) < FARTHEST).all():  # nor is NaN
        raise GridError("some coordinates are on no slide", do="give level-0 pixels (y, x)")
    return WindowList(spec, np.rint(coords / np.asarray(spec.downsample)).astype(np.int64))
