"""The map while it grows: one buffer that the live layer shows and the writer saves.

One thread adds; a writer thread takes snapshots; a GUI thread looks. A window's values are in
place before its state says so, and a snapshot copies states before values, so whatever a saved
state calls done has its values saved as well.

Memory bound: the map itself, float32. Above `SCRATCH_BYTES` it lies in a scratch file that the
operating system pages.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import StoreError, StoreFullError
from napari_wsi_heatmap.states import DONE, HANGS_OVER, NOT_FINITE, PENDING, state_of

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

    def restore(self, values: Any, state: States) -> int:
        """Take over what an earlier run has saved.

        Parameters
        ----------
        values : array-like (C, My, Mx)
            May raise StoreError where a chunk is damaged.
        state : (Y, X) uint8

        Returns
        -------
        int
            Number of windows that were called done, and whose values are not there: they are
            pending again.
        """
        self.state[:] = state
        lost = 0
        for i, j in np.ndindex(*(-(-side // self.chunk) for side in self.values.shape[1:])):
            chunk = i, j
            box = chunk_box(chunk, self.chunk, self.values.shape[1:])
            try:
                self.values[:, *box] = values[:, *box]
            except StoreError:
                self.values[:, *box] = np.nan
                lost += self._forget(self._done(chunk))
            else:
                if np.isnan(self.values[:, *box]).all((1, 2)).any():  # each channel has a file
                    lost += self._forget_missing(self._done(chunk))
        self.version += 1
        return lost

    def _done(self, chunk: Chunk) -> Index:
        """Flat indices of the windows over a chunk that are called done."""
        windows = self._windows(chunk)
        return windows[state_of(self.state.ravel()[windows]) == DONE]

    def _windows(self, chunk: Chunk) -> Index:
        """Flat indices of the windows over a chunk, in grid order."""
        rows, cols = chunk_box(chunk, self.chunk, self.state.shape)
        index = np.arange(rows.start, rows.stop)[:, None] * self.state.shape[1]
        return (index + np.arange(cols.start, cols.stop)).ravel()

    def _forget_missing(self, done: Index) -> int:
        """Forget the windows of an empty chunk, unless the model itself gave no finite values."""
        said = (self.state.ravel()[done] & NOT_FINITE).all()
        return 0 if said else self._forget(done)

    def _forget(self, windows: Index) -> int:
        self.state.ravel()[windows] &= np.uint8(HANGS_OVER)
        return len(windows)

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
    values = scratch_values(shape, "a map")
    values.fill(np.nan)
    return values


def scratch_values(shape: tuple[int, ...], what: str) -> Values:
    """Float32 in a scratch file that vanishes with the process.

    Raises
    ------
    StoreFullError
        If there is no room for it; names what it was for.
    """
    nbytes = 4 * math.prod(shape)
    with tempfile.TemporaryFile(prefix="wsi-heatmap-") as scratch:  # the array keeps it, nameless
        _reserve(scratch.fileno(), nbytes, what)
        values: Values = np.memmap(scratch, np.float32, "w+", shape=shape)
    return values


def _reserve(file: int, nbytes: int, what: str) -> None:
    """Take the room of a scratch file now: later, a full disk would end the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, nbytes)
        elif shutil.disk_usage(tempfile.gettempdir()).free < nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise StoreFullError(
            f"no room for {what} of {nbytes >> 20} MB while it grows: {error.strerror}",
            tempfile.gettempdir(),
            "make room there, set TMPDIR to another disk, or use a larger stride",
        ) from error


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
