"""Nearest neighbours of all windows as a table of edges, for graph programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_wsi_heatmap.embedding.neighbours import Neighbours, nearest_of_all
from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.embedding.vectors import Index
    from napari_wsi_heatmap.heatmap import Heatmap

Where = Literal["features", "slide"]


def neighbour_edges(heatmap: Heatmap, k: int = 5, where: Where = "features") -> Any:
    """Edges from every window to its k nearest, without itself.

    Parameters
    ----------
    heatmap : Heatmap
    k : int
    where : {"features", "slide"}
        Nearest by the Euclidean distance of their features, or of their centres (level-0 pixels).

    Returns
    -------
    pandas.DataFrame
        Columns source, target (flat indices of windows), distance, and weight, which is
        1 / distance, so that near is strong; of windows that are at one place, the largest weight
        of the others.

    Raises
    ------
    FeatureError
        If there are not more windows than k, or no features.

    Notes
    -----
    Memory bound: as for `nearest_of_all`; on the slide, 100 bytes a window; and the table.
    """
    import pandas as pd

    refuse_where(where)
    index, near = nearest_of_all(heatmap, k) if where == "features" else on_slide(heatmap, k)
    distance = near.distance.ravel()
    columns = {
        "source": np.repeat(index, k),
        "target": near.windows.ravel(),
        "distance": distance,
        "weight": weights(distance),
    }
    return pd.DataFrame(columns)


def refuse_where(where: str) -> None:
    """Raise FeatureError if windows cannot be near there."""
    if where not in ("features", "slide"):
        raise FeatureError(f"where={where!r}", do="it must be features or slide")


def on_slide(heatmap: Heatmap, k: int) -> tuple[Index, Neighbours]:
    """Nearest windows on the slide of every window that is done; see `nearest_of_all`."""
    from scipy.spatial import KDTree

    index = np.flatnonzero(state_of(np.array(heatmap.state)) == DONE)
    if len(index) <= k:
        raise FeatureError(
            f"{len(index)} windows are done, {k + 1} are needed", heatmap.path, "ask for fewer"
        )
    places = heatmap.grid.positions(index)
    away, near = KDTree(places).query(places, k + 1)
    return index, _without_self(index, near, away, k)


def _without_self(index: Index, near: Index, away: NDArray[Any], k: int) -> Neighbours:
    """Drop each window from its own neighbours; of windows at one place it need not be first."""
    other = near != np.arange(len(near))[:, None]
    other[other.all(1), -1] = False
    return Neighbours(index[near[other].reshape(-1, k)], away[other].reshape(-1, k))


def weights(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / distance; where it is 0 the largest of the others, or 1 if there are none."""
    apart = distance > 0
    weight = np.divide(1.0, distance, out=np.zeros_like(distance), where=apart)
    return np.where(apart, weight, weight.max() if apart.any() else 1.0)
