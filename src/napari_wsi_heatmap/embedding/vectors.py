"""Feature vectors of windows, read block by block: what every analysis goes over.

Memory bound: `BLOCK_BYTES` and its copies, or one chunk of the store where that is more.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.features import CHUNK
from napari_wsi_heatmap.growing import SCRATCH_BYTES, scratch_values
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

    Index = NDArray[np.int64]
    Window = int | tuple[int, int]

BLOCK_BYTES = 1 << 24
"""Of vectors that are read at once, as float32; what computes with them makes float64 copies."""


class Block(NamedTuple):
    """Vectors of some windows."""

    windows: Index
    """(n,) flat indices."""
    vectors: NDArray[Any]
    """(n, D), all finite."""


class Gathered(NamedTuple):
    """Vectors of all windows that have one."""

    windows: Index
    """(n,) flat indices, in the order of `matrix`."""
    matrix: NDArray[np.float32]
    """(n, D); a scratch file if they are many."""

    def blocks(self) -> Iterator[Block]:
        """The same, block by block."""
        step = max(1, BLOCK_BYTES // (4 * self.matrix.shape[1]))
        for i in range(0, len(self.windows), step):
            yield Block(self.windows[i : i + step], self.matrix[i : i + step])


class Vectors:
    """Vectors of the windows that are done and have a finite one.

    Parameters
    ----------
    features : array-like (Y, X, D) or (N, D)
        Read where it is indexed.
    done : (Y, X) or (N,) bool
        Windows that count.
    where : object, optional
        Whose they are, for errors.

    Attributes
    ----------
    shape : tuple of int
        (Y, X) of a grid, (N,) of a list.
    dim : int
        D, features a window.
    """

    def __init__(self, features: Any, done: NDArray[np.bool_], where: object = None) -> None:
        if features.ndim != done.ndim + 1 or features.shape[:-1] != done.shape:
            raise FeatureError(
                f"features {features.shape} of windows {done.shape}", where, "give (N, D)"
            )
        self._features, self._done, self.where = features, done, where
        self.shape: tuple[int, ...] = done.shape
        self.dim: int = features.shape[-1]

    @classmethod
    def of(cls, source: Heatmap | Vectors | NDArray[Any]) -> Vectors:
        """Vectors of a heatmap, or of the rows of an array (N, D).

        Raises
        ------
        FeatureError
            If there are none.
        """
        if isinstance(source, Vectors):
            return source
        if isinstance(source, np.ndarray):
            return cls(source, np.ones(source.shape[:-1], bool))
        features = source.features
        if features is None:
            raise FeatureError(
                "there are no features", source.path, "run a model that gives some, as encoders do"
            )
        return cls(features, state_of(np.array(source.state)) == DONE, source.path)

    @property
    def size(self) -> int:
        """Number of windows, with or without a vector."""
        return self._done.size

    @property
    def most(self) -> int:
        """Number of windows that are done: no more than these have a vector."""
        return int(np.count_nonzero(self._done))

    def blocks(self) -> Iterator[Block]:
        """All vectors, always in the same order; no block is empty."""
        for box in self._boxes():
            done = self._done[box]
            if done.any() and len((block := self._block(box, done)).windows):
                yield block

    def _block(self, box: tuple[slice, ...], done: NDArray[np.bool_]) -> Block:
        vectors = np.asarray(self._features[box])[done]
        places = (i + side.start for i, side in zip(np.nonzero(done), box, strict=True))
        index = np.ravel_multi_index(tuple(places), self.shape)
        finite = np.isfinite(vectors).all(1)
        return Block(index[finite], vectors[finite]) if not finite.all() else Block(index, vectors)

    def _boxes(self) -> Iterator[tuple[slice, ...]]:
        """Whole chunks side by side, as many as `BLOCK_BYTES` hold."""
        side = (getattr(self._features, "chunks", None) or (CHUNK,))[0]
        deep = side if len(self.shape) == 2 else 1
        wide = max(1, BLOCK_BYTES // (4 * self.dim * deep * side)) * side
        steps = (side, wide)[-len(self.shape) :]
        axes = (
            [slice(i, min(i + step, n)) for i in range(0, n, step)]
            for n, step in zip(self.shape, steps, strict=True)
        )
        yield from itertools.product(*axes)

    def one(self, window: Window) -> NDArray[Any]:
        """(D,) of a window, by its flat index or (row, column).

        Raises
        ------
        FeatureError
            If it has none.
        """
        at = np.unravel_index(self.flat(window), self.shape)
        vector = np.asarray(self._features[tuple(int(i) for i in at)])
        if not self._done[at] or not np.isfinite(vector).all():
            raise FeatureError(
                "the window has no features", f"window {window}", "choose one that is done"
            )
        return vector

    def flat(self, window: Window) -> int:
        """Flat index of a window that is given by it, or by (row, column)."""
        return flat_index(window, self.shape, self.where)

    def gathered(self, changed: Callable[[Block], Block] = lambda block: block) -> Gathered:
        """All vectors in one array.

        Memory bound: the array, float32; above 1 GB it lies in a scratch file that the operating
        system pages.

        Parameters
        ----------
        changed : callable
            Makes of a block what is kept; it may leave windows out.

        Raises
        ------
        FeatureError
            If nothing is kept.
        StoreFullError
            If there is no room for the scratch file.
        """
        matrix = _room((self.most, self.dim))
        index, n = np.empty(self.most, np.int64), 0
        for block in map(changed, self.blocks()):
            end = n + len(block.windows)
            index[n:end], matrix[n:end] = block
            n = end
        self.refuse_fewer(n, 1)
        return Gathered(index[:n], matrix[:n])

    def refuse_fewer(self, found: int, needed: int) -> None:
        """Raise FeatureError if fewer windows have a vector than something needs."""
        if found < needed:
            raise FeatureError(
                f"{found} windows have features, {needed} are needed",
                self.where,
                "resume the run, or wait for it",
            )

    def spread(self, index: Index, values: NDArray[Any], fill: Any = np.nan) -> NDArray[Any]:
        """Put values (n, …) of windows (n,) where they belong: (Y, X, …) or (N, …)."""
        result = np.full((self.size, *values.shape[1:]), fill, values.dtype)
        result[index] = values
        return result.reshape(*self.shape, *values.shape[1:])


def flat_index(window: Window, shape: tuple[int, ...], where: object = None) -> int:
    """Flat index of a window of a grid (Y, X) or list (N,).

    Parameters
    ----------
    window : int or (row, column)
        Flat indices may count from the end.

    Raises
    ------
    FeatureError
        If there is no such window.
    """
    try:
        if np.ndim(window):
            return int(np.ravel_multi_index(tuple(window), shape))  # type: ignore[arg-type]
        return range(math.prod(shape))[window]  # type: ignore[index]
    except (ValueError, IndexError, TypeError) as error:
        there = " x ".join(map(str, shape))
        raise FeatureError(f"no window {window!r}", where, f"there are {there}") from error


def _room(shape: tuple[int, int]) -> NDArray[np.float32]:
    if 4 * shape[0] * shape[1] <= SCRATCH_BYTES:
        return np.empty(shape, np.float32)
    return scratch_values(shape, "a copy of the features")
