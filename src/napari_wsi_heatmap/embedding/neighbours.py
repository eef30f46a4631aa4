"""Nearest windows: by their features, or on the slide.

Of one window: one look at all vectors. Of all windows: every vector is compared with every other
one, which grows with the square of their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from napari_wsi_heatmap.embedding.similarity import gathered_units, normalised
from napari_wsi_heatmap.embedding.vectors import Block, Vectors, flat_index
from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.embedding.vectors import Index, Window
    from napari_wsi_heatmap.heatmap import Heatmap

    Floats = NDArray[np.float64]

Metric = Literal["euclidean", "cosine"]
METRICS = ("euclidean", "cosine")
ROWS = 256
"""Windows whose neighbours are looked for at once."""
TILE_BYTES = 1 << 24
"""Of the vectors that these are compared with at once, as float64."""
SPARE = 8
"""Candidates beyond those asked for: their order is settled by exact distances."""


class Neighbours(NamedTuple):
    """Windows near one, the nearest first."""

    windows: Index
    """(k,) flat indices, or (n, k) for several windows."""
    distance: Floats
    """(k,) or (n, k)."""


def neighbours(
    source: Heatmap | Vectors | NDArray[Any],
    window: Window,
    k: int = 5,
    metric: Metric = "euclidean",
) -> Neighbours:
    """Windows whose features are nearest to those of one, without itself.

    Parameters
    ----------
    source : Heatmap, Vectors or (N, D) array
    window : int or (row, column)
    k : int
        How many; fewer where there are fewer.
    metric : {"euclidean", "cosine"}
        Distance of features, or 1 less the cosine of their angle.

    Raises
    ------
    FeatureError
        If there are no features, or the window has none.

    Notes
    -----
    Memory bound: a distance a window, and three blocks of 16 MB as float64.
    """
    vectors = Vectors.of(source)
    refuse_metric(metric)
    at = vectors.flat(window)
    seen = _view(metric, Block(np.array([at]), vectors.one(at)[None]))
    if not len(seen.windows):
        raise FeatureError("all features are 0: no angle", f"window {window}", "use euclidean")
    parts = [
        _distances(_view(metric, block), seen.vectors[0], metric) for block in vectors.blocks()
    ]
    index = np.concatenate([part[0] for part in parts])
    distance = np.concatenate([part[1] for part in parts])
    return _nearest(index[index != at], distance[index != at], k)


def neighbours_on_slide(heatmap: Heatmap, window: Window, k: int = 5) -> Neighbours:
    """Windows that are done and whose centres are nearest to that of one; level-0 pixels."""
    at = flat_index(window, heatmap.state.shape, heatmap.path)
    index = np.flatnonzero(state_of(np.array(heatmap.state)) == DONE)
    places = heatmap.grid.positions(index) - heatmap.grid.positions(np.array([at]))
    others = index != at
    return _nearest(index[others], np.hypot(*places[others].T), k)


def refuse_metric(metric: str) -> None:
    """Raise FeatureError if there is no such metric."""
    if metric not in METRICS:
        raise FeatureError(f"metric={metric!r}", do=f"it must be one of {', '.join(METRICS)}")


def _view(metric: str, block: Block) -> Block:
    """What distances are taken of, in float64."""
    if metric == "cosine":
        return normalised(block)
    return Block(block.windows, block.vectors.astype(np.float64))


def _distances(block: Block, one: Floats, metric: str) -> tuple[Index, Floats]:
    away = np.sqrt(np.square(block.vectors - one).sum(1))
    return block.windows, _from_chord(away) if metric == "cosine" else away


def _from_chord(chord: Floats) -> Floats:
    """1 less the cosine of the angle between unit vectors, of their distance: nothing cancels."""
    return np.square(chord) / 2


def _nearest(index: Index, distance: Floats, k: int) -> Neighbours:
    first = np.lexsort((index, distance))[: max(0, k)]
    return Neighbours(index[first], distance[first])


def nearest_of_all(
    source: Heatmap | Vectors | NDArray[Any], k: int = 5, metric: Metric = "euclidean"
) -> tuple[Index, Neighbours]:
    """Nearest windows by features of every window: brute force, exact.

    Parameters
    ----------
    source, metric
        As for `neighbours`.
    k : int
        How many; there must be more windows than these.

    Returns
    -------
    index : (n,) flat indices of the windows that have features
    neighbours : Neighbours
        (n, k).

    Raises
    ------
    FeatureError
        If there are no features, or no more windows with some than k.

    Notes
    -----
    Memory bound: the vectors as float32, above 1 GB in a scratch file; 256 · (k + 8) vectors and
    a tile of 16 MB as float64; the result. Time grows with the square of the windows: 100,000 of
    32 features take one to two minutes on two cores, of 1,024 five to ten.
    """
    vectors = Vectors.of(source)
    refuse_metric(metric)
    index, matrix = gathered_units(vectors) if metric == "cosine" else vectors.gathered()
    vectors.refuse_fewer(len(index), k + 1)
    rows = range(0, len(index), ROWS)
    parts = [_nearest_of(np.arange(i, min(i + ROWS, len(index))), matrix, k) for i in rows]
    near, away = (np.concatenate(part) for part in zip(*parts, strict=True))
    return index, Neighbours(index[near], _from_chord(away) if metric == "cosine" else away)


def _nearest_of(rows: Index, matrix: NDArray[np.float32], k: int) -> tuple[Index, Floats]:
    """Rows (n, k) of the matrix that are nearest to some, without themselves."""
    near = _candidates(rows, matrix, min(k + SPARE, len(matrix) - 1))
    away = np.sqrt(np.square(matrix[near].astype(np.float64) - matrix[rows, None]).sum(2))
    order = np.lexsort((near, away), axis=1)[:, :k]
    return np.take_along_axis(near, order, 1), np.take_along_axis(away, order, 1)


def _candidates(rows: Index, matrix: NDArray[np.float32], k: int) -> Index:
    """The same, by squared distances that are off in their last digits."""
    shift = matrix[rows].mean(0, dtype=np.float64)
    points, tile = matrix[rows] - shift, max(1, TILE_BYTES // (8 * matrix.shape[1]))
    index, away = np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0))
    for start in range(0, len(matrix), tile):
        others = matrix[start : start + tile] - shift
        found = np.square(others).sum(1) - 2 * (points @ others.T)
        own = rows - start
        mine = (own >= 0) & (own < len(others))
        found[np.flatnonzero(mine), own[mine]] = np.inf
        here = np.broadcast_to(np.arange(start, start + len(others)), found.shape)
        index, away = _least(np.hstack([index, here]), np.hstack([away, found]), k)
    return index


def _least(index: Index, away: Floats, k: int) -> tuple[Index, Floats]:
    if away.shape[1] <= k:
        return index, away
    first = np.argpartition(away, k - 1, axis=1)[:, :k]
    return np.take_along_axis(index, first, 1), np.take_along_axis(away, first, 1)
