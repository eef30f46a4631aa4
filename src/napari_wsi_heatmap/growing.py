"""The map while it grows: one buffer that the live layer shows and the writer saves.

One thread adds; a writer thread takes snapshots; a GUI thread looks. A window's values are in
place before its state says so, and a snapshot copies states before values, so whatever a saved
state calls done has its values saved as well.

Memory bound: the map itself, float32. Above `SCRATCH_BYTES` it lies in a scratch file that the
operating system pages.
"""

from __future__ import annotations

import math
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.states import PENDING, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]
    States = NDArray[np.uint8]
    Box = tuple[slice, slice]
    Chunk = tuple[int, int]

SCRATCH_BYTES = 1 << 30
CHUNK = 256
"""Cells along a chunk of a map with one cell a window: 446 x 446 windows are four chunks."""
DENSE_CHUNK = 1024


@dataclass(frozen=True)
class Snapshot:
    """What a writer saves: values of these boxes first, then these copies of the states."""

    chunks: list[Chunk]
    boxes: list[Box]
    states: list[tuple[Box, States]]


class GrowingMap:
    """A map with one cell a window.

    Attributes
    ----------
    values : (C, My, Mx) float32
        NaN where nothing is computed.
    state : (Y, X) uint8
    version : int
        Grows with every change; a viewer compares it to know whether to draw.
    """

    chunk = CHUNK

    def __init__(self, frame: MapFrame, state: States) -> None:
        self.frame = frame
        self.state = state.copy()
        self.values = empty_values(frame.shape)
        self.version = 0
        self._dirty: set[Chunk] = set()
        self._lock = threading.Lock()

    def restore(self, values: Any, state: States) -> None:
        """Take over what an earlier run has saved.

        Parameters
        ----------
        values : array-like (C, My, Mx)
        state : (Y, X) uint8
        """
        for box in boxes_of(self.values.shape[1:], self.chunk):
            self.values[:, *box] = values[:, *box]
        self.state[:] = state
        self.version += 1

    @property
    def pending(self) -> NDArray[np.bool_]:
        """(Y, X): windows still to compute."""
        return state_of(self.state) == PENDING

    @property
    def saved_state(self) -> States:
        """(Y, X): states as they are, or will be, in the store."""
        return self.state.copy()

    def add(self, index: Index, values: Values, state: States) -> None:
        """Put the values (n, C) of windows in place, then their states (n,)."""
        rows, cols = np.divmod(index, self.state.shape[1])
        self.values[:, rows, cols] = values.T
        self.state[rows, cols] = state
        self._touch(zip((rows // self.chunk).tolist(), (cols // self.chunk).tolist(), strict=True))

    def _touch(self, chunks: Iterable[Chunk]) -> None:
        with self._lock:
            self._dirty.update(chunks)
        self.version += 1

    def snapshot(self) -> Snapshot:
        """Take what changed since the last snapshot; states are copied now, values later."""
        chunks = self._take_dirty()
        boxes = [chunk_box(chunk, self.chunk, self.values.shape[1:]) for chunk in chunks]
        return Snapshot(chunks, boxes, [(box, self.state[box].copy()) for box in boxes])

    def _take_dirty(self) -> list[Chunk]:
        with self._lock:
            chunks, self._dirty = sorted(self._dirty), set()
        return chunks

    def give_back(self, snapshot: Snapshot) -> None:
        """Mark as changed again what a writer could not save."""
        with self._lock:
            self._dirty.update(snapshot.chunks)


def empty_values(shape: tuple[int, ...]) -> Values:
    """NaN in memory, or in a scratch file that vanishes with the process if it is large."""
    nbytes = 4 * math.prod(shape)
    if nbytes <= SCRATCH_BYTES:
        return np.full(shape, np.nan, np.float32)
    scratch = tempfile.TemporaryFile(prefix="wsi-heatmap-")  # noqa: SIM115 - lives with the map
    values: Values = np.memmap(scratch, np.float32, "w+", shape=shape)
    values.fill(np.nan)
    return values


def chunk_box(chunk: Chunk, side: int, shape: tuple[int, ...]) -> Box:
    """Slices of a chunk, cut off at the border of an array (My, Mx)."""
    (i, j), (height, width) = chunk, shape
    return (
        slice(i * side, min(height, (i + 1) * side)),
        slice(j * side, min(width, (j + 1) * side)),
    )


def boxes_of(shape: tuple[int, ...], side: int) -> Iterator[Box]:
    """All chunks of an array (My, Mx) as slices."""
    for i in range(-(-shape[0] // side)):
        for j in range(-(-shape[1] // side)):
            yield chunk_box((i, j), side, shape)
