"""Feature vectors of windows while a run goes on: whole in memory, or on their way to a store.

Memory bound: without a store the whole array (Y, X, D) float32, above `SCRATCH_BYTES` in a scratch
file. With one, the vectors that are not saved yet, 256 MB of them in memory and the others in
scratch files (see `kept`), and while saving one chunk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.growing import boxes_of, chunk_box, empty_values
from napari_wsi_heatmap.kept import KeptOutputs
from napari_wsi_heatmap.states import DONE, NOT_FINITE, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    from napari_wsi_heatmap.growing import Box, Chunk, GrowingMap, Index, States, Values

CHUNK = 16
"""Windows along a chunk: with 1024 features it holds a megabyte."""


@dataclass(frozen=True)
class FeatureBlock:
    """What is new in one chunk of a store."""

    box: Box
    """Its windows, as slices of the grid (Y, X)."""
    inside: tuple[Index, Index]
    """(row, column) within the box of each window that is new."""
    vectors: Values
    """(n, D) of these windows."""
    anew: bool
    """Whether the chunk is not to be read before: nothing in the store is worth keeping."""

    def over(self, saved: Any) -> Values:
        """The whole chunk (h, w, D): what is new over what is saved, array-like (Y, X, D)."""
        if self.anew:
            sides = (side.stop - side.start for side in self.box)
            chunk = np.full((*sides, self.vectors.shape[1]), np.nan, np.float32)
        else:
            chunk = np.array(saved[self.box])
        chunk[self.inside] = self.vectors
        return chunk


class UnsavedFeatures:
    """Vectors that are not in the store yet.

    One thread adds; the writer's thread takes, and drops what it has saved.

    Parameters
    ----------
    shape : (Y, X, D)
    """

    chunk = CHUNK

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._kept = KeptOutputs(shape[2:], "features")
        self._new: list[Index] = []
        self._worth_keeping: set[Chunk] = set()  # in the store
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of vectors that wait."""
        return len(self._kept)

    def reserve(self, windows: int) -> None:
        """Make room for so many more; raises StoreFullError if there is none."""
        with self._lock:
            self._kept.reserve(windows)

    def add(self, index: Index, vectors: Values) -> None:
        """Copy the vectors (n, D) of windows, given by their flat indices."""
        with self._lock:
            for i, vector in zip(index.tolist(), vectors, strict=True):
                self._kept.keep(i, vector)
            self._new.append(index)

    def take(self) -> Index:
        """Flat indices of what came since it was last asked, in grid order."""
        with self._lock:
            new, self._new = self._new, []
        return np.unique(np.concatenate(new)) if new else np.zeros(0, np.int64)

    def give_back(self, index: Index) -> None:
        """Take back what could not be saved."""
        with self._lock:
            self._new.append(index)

    def drop(self, index: Index) -> None:
        """Forget what is saved."""
        with self._lock:
            for i in index.tolist():
                self._kept.drop(i)
        chunks = np.stack(np.divmod(index, self.shape[1]), 1) // self.chunk
        self._worth_keeping.update(map(tuple, chunks.tolist()))

    def blocks(self, index: Index) -> Iterator[FeatureBlock]:
        """What is to be saved of these windows, chunk by chunk."""
        rows, cols = np.divmod(index, self.shape[1])
        across = -(-self.shape[1] // self.chunk)
        number = rows // self.chunk * across + cols // self.chunk
        for n in np.unique(number).tolist():
            yield self._block(divmod(n, across), index[number == n])

    def _block(self, chunk: Chunk, index: Index) -> FeatureBlock:
        box = chunk_box(chunk, self.chunk, self.shape[:2])
        rows, cols = np.divmod(index, self.shape[1])
        inside = rows - box[0].start, cols - box[1].start
        windows = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
        anew = chunk not in self._worth_keeping or len(index) == windows
        return FeatureBlock(box, inside, self._vectors(index), anew)

    def _vectors(self, index: Index) -> Values:
        vectors = np.empty((len(index), self.shape[2]), np.float32)
        with self._lock:
            for row, i in enumerate(index.tolist()):
                vectors[row] = self._kept.get(i)
        return vectors

    def find_lost(self, saved: Any, states: States) -> Index:
        """Flat indices of windows called done whose vectors an earlier run's store lacks.

        Where no window is done, or all is damaged, nothing is kept.

        Parameters
        ----------
        saved : array-like (Y, X, D)
            May raise StoreError where a chunk is damaged.
        states : (Y, X) uint8
        """
        lost = np.zeros(states.shape, bool)
        for box in boxes_of(states.shape, self.chunk):
            done = state_of(states[box]) == DONE
            if done.any():
                lost[box] = done & self._missing(saved, states, box)
        return np.flatnonzero(lost)

    def _missing(self, saved: Any, states: States, box: Box) -> NDArray[np.bool_]:
        """Windows of a chunk (h, w) that have no vector, though the model gave one."""
        try:
            absent: NDArray[np.bool_] = np.isnan(saved[box]).all(2)
        except StoreError:
            return np.ones_like(states[box], bool)
        self._worth_keeping.add((box[0].start // self.chunk, box[1].start // self.chunk))
        return absent & (states[box] & NOT_FINITE == 0)


def keep_features(growing: GrowingMap, length: int | None, *, stored: bool) -> None:
    """Let a map take feature vectors of a length D, if the model gives any.

    Parameters
    ----------
    stored : bool
        Whether there is a store that they go to; else they stay in memory.
    """
    if length is None:
        return
    shape = (*growing.state.shape, length)
    if stored:
        growing.unsaved = UnsavedFeatures(shape)
    else:
        growing.features = empty_values(shape, "features")
