"""Single features as maps, read from where they are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.embedding.vectors import Vectors
from napari_wsi_heatmap.errors import FeatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap


def latents(
    source: Heatmap | Vectors | NDArray[Any], numbers: Sequence[int]
) -> NDArray[np.float32]:
    """Maps of some features.

    Each chunk of a store holds all features of its windows: ask for several at once rather than
    one after the other.

    Parameters
    ----------
    source : Heatmap, Vectors or (N, D) array
    numbers : sequence of int
        Which features, from 0; negative ones count from the end.

    Returns
    -------
    (n, Y, X) or (n, N) float32
        NaN where there are no features.

    Raises
    ------
    FeatureError
        If there are no features, or not these.

    Notes
    -----
    Memory bound: what it returns, and two blocks of 16 MB.
    """
    vectors = Vectors.of(source)
    columns = [_column(number, vectors) for number in numbers]
    maps = np.full((len(columns), vectors.size), np.nan, np.float32)
    for index, block in vectors.blocks():
        maps[:, index] = block[:, columns].T
    return maps.reshape(len(columns), *vectors.shape)


def _column(number: int, vectors: Vectors) -> int:
    if not -vectors.dim <= number < vectors.dim:
        raise FeatureError(
            f"no feature {number}", vectors.where, f"there are 0 to {vectors.dim - 1}"
        )
    return number
