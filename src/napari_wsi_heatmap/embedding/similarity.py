"""How much all windows look like one of them: the cosine of the angle between their features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.embedding.vectors import Block, Gathered, Vectors
from napari_wsi_heatmap.errors import FeatureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.embedding.vectors import Index, Window
    from napari_wsi_heatmap.heatmap import Heatmap


def similarity(source: Heatmap | Vectors | NDArray[Any], window: Window) -> NDArray[np.float32]:
    """Cosine similarity of all windows to one; to ask for many, make a `Similarity`.

    Parameters
    ----------
    source : Heatmap, Vectors or (N, D) array
    window : int or (row, column)

    Returns
    -------
    (Y, X) or (N,) float32
        -1…1; NaN where there are no features, or all are 0.

    Raises
    ------
    FeatureError
        If there are no features, or the window has none.

    Notes
    -----
    Memory bound: what it returns, and three blocks of 16 MB as float64.
    """
    vectors = Vectors.of(source)
    unit = _unit_of(vectors, window).astype(np.float64)
    found = np.full(vectors.size, np.nan, np.float32)
    for block in vectors.blocks():
        index, units = normalised(block)
        found[index] = np.clip(units @ unit, -1, 1)
    return found.reshape(vectors.shape)


class Similarity:
    """Cosine similarity of all windows to any one, as often as asked: a product a time.

    Parameters
    ----------
    source : Heatmap, Vectors or (N, D) array
        Read once. Of a run that goes on windows that come later have no part.

    Attributes
    ----------
    windows : int
        Number of those with features that are not all 0.

    Raises
    ------
    FeatureError
        If there are no features.

    Notes
    -----
    Memory bound: 4 · D bytes a window (400 MB for 100,000 windows of 1,024 features); above 1 GB
    in a scratch file that the operating system pages.
    """

    def __init__(self, source: Heatmap | Vectors | NDArray[Any]) -> None:
        self._vectors = Vectors.of(source)
        index, self._units = gathered_units(self._vectors)
        self._index, self.windows = index, len(index)
        self._row = np.full(self._vectors.size, -1, np.int64)
        self._row[index] = np.arange(len(index))

    def to(self, window: Window) -> NDArray[np.float32]:
        """Compare all windows with one, by its flat index or (row, column).

        Returns
        -------
        (Y, X) or (N,) float32
            -1…1; NaN where there are no features, or all are 0.

        Raises
        ------
        FeatureError
            If the window has none.
        """
        return self._vectors.spread(self._index, self._cosines(window))

    def most(self, window: Window, k: int = 10) -> tuple[Index, NDArray[np.float32]]:
        """Flat indices (k,) of the windows most like one, without itself, and their cosines."""
        return self._first(window, self._cosines(window), k)

    def both(
        self, window: Window, k: int = 10
    ) -> tuple[NDArray[np.float32], Index, NDArray[np.float32]]:
        """What `to` and `most` give, at the cost of one."""
        cosines = self._cosines(window)
        return self._vectors.spread(self._index, cosines), *self._first(window, cosines, k)

    def has(self, window: Window) -> bool:
        """Whether a window can be compared with."""
        return bool(self._row[self._vectors.flat(window)] >= 0)

    def _cosines(self, window: Window) -> NDArray[np.float32]:
        row = self._row[self._vectors.flat(window)]
        if row < 0:
            raise _nothing(window)
        cosines = self._units @ self._units[row]
        np.clip(cosines, -1, 1, out=cosines)
        cosines[row] = 1.0
        return cosines

    def _first(
        self, window: Window, cosines: NDArray[np.float32], k: int
    ) -> tuple[Index, NDArray[np.float32]]:
        others = cosines.copy()
        others[self._row[self._vectors.flat(window)]] = -np.inf
        k = max(0, min(k, len(others) - 1))
        near = np.argpartition(-others, k)[:k]
        near = near[np.lexsort((self._index[near], -others[near]))]
        return self._index[near], cosines[near]


def normalised(block: Block) -> Block:
    """The same windows with unit vectors in float64; without those whose features are all 0."""
    vectors = block.vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    there = lengths > 0
    if not there.all():
        return Block(block.windows[there], vectors[there] / lengths[there, None])
    vectors /= lengths[:, None]
    return Block(block.windows, vectors)


def gathered_units(vectors: Vectors) -> Gathered:
    """All unit vectors in one array; see `Vectors.gathered`."""
    return vectors.gathered(normalised)


def _unit_of(vectors: Vectors, window: Window) -> NDArray[np.float64]:
    one = normalised(Block(np.zeros(1, np.int64), vectors.one(window)[None]))
    if not len(one.windows):
        raise _nothing(window)
    return one.vectors[0]


def _nothing(window: Window) -> FeatureError:
    return FeatureError(
        "the window has no features, or all are 0", f"window {window}", "choose another one"
    )
