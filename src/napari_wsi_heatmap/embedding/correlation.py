"""Which features follow the place on the slide: a check for artefacts.

Tissue rarely changes in one direction across a whole slide; scanning, stitching, staining and
cutting do. A latent variable that correlates with x or y is worth a look before it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap.embedding.moments import Moments
from napari_wsi_heatmap.embedding.vectors import Vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

    Floats = NDArray[np.float64]


class Follows(NamedTuple):
    """A feature, and how it follows an axis of the slide."""

    latent: int
    axis: str
    """"x" or "y"."""
    r: float


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of the features, x and y with each other."""

    matrix: Floats
    """(D + 2, D + 2); the last two are x and y. NaN of what is the same everywhere."""
    windows: int
    """Number of windows with features."""

    @property
    def names(self) -> tuple[str, ...]:
        """latent_0, latent_1, …, x, y: of the rows and columns, as in the table of the map."""
        return (*(f"latent_{d}" for d in range(len(self.matrix) - 2)), "x", "y")

    @property
    def with_x(self) -> Floats:
        """(D,) of each feature with x."""
        return self.matrix[:-2, -2]

    @property
    def with_y(self) -> Floats:
        """(D,) of each feature with y."""
        return self.matrix[:-2, -1]

    def strongest(self, n: int = 5) -> list[Follows]:
        """The `n` features that follow x or y most, either way."""
        both = np.nan_to_num(np.abs(self.matrix[:-2, -2:])).ravel()
        first = np.argsort(-both, kind="stable")[:n]
        places = (divmod(int(i), 2) for i in first)
        return [Follows(d, "xy"[axis], float(self.matrix[d, axis - 2])) for d, axis in places]


def correlation(heatmap: Heatmap) -> Correlation:
    """Correlate features with each other and with the place of their windows.

    Parameters
    ----------
    heatmap : Heatmap

    Raises
    ------
    FeatureError
        If there are no features, or of fewer than two windows.

    Notes
    -----
    Memory bound: 40 · (D + 2)² bytes, and four blocks of 16 MB as float64.
    """
    vectors = Vectors.of(heatmap)
    moments = Moments(vectors.dim + 2)
    for index, block in vectors.blocks():
        moments.add(np.hstack([block, heatmap.grid.positions(index)[:, ::-1]]))
    vectors.refuse_fewer(moments.count, 2)
    return Correlation(correlated(moments), moments.count)


def correlated(moments: Moments) -> Floats:
    """Pearson's r of every two variables (D, D); NaN of one that is the same everywhere."""
    spread = np.sqrt(moments.scatter.diagonal())
    # What is left of a constant by rounding is no spread.
    spread[spread <= 1e-12 * np.sqrt(moments.count) * np.abs(moments.mean)] = np.nan
    spread[spread == 0] = np.nan
    r: NDArray[Any] = moments.scatter / spread / spread[:, None]
    return np.clip(r, -1, 1)
