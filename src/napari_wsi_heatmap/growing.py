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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import StoreError, StoreFullError
from napari_wsi_heatmap.states import DONE, HANGS_OVER, NOT_FINITE, PENDING, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.features import FeatureBlock, UnsavedFeatures
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


def no_windows() -> Index:
    """Flat indices of none."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Snapshot:
    """What a writer saves: features, values of these boxes, then these copies of the states."""

    chunks: list[Chunk]
    """Of the map."""
    boxes: list[Box]
    states: list[tuple[Box, States]]
    state_chunks: list[Chunk] = field(default_factory=list)
    """Of the states, where they are not those of the map."""
    features: Index = field(default_factory=no_windows)
    """Windows whose features are to be saved."""


class GrowingMap:
    """A map with one cell a window.

    Attributes
    ----------
    values : (C, My, Mx) float32
        NaN where nothing is computed.
    state : (Y, X) uint8
    features : (Y, X, D) float32 or None
        In memory, NaN where nothing is computed; None without features, or with a store.
    unsaved : UnsavedFeatures or None
        Features on their way to the store, if there are any.
    version : int
        Grows with every change; a viewer compares it to know whether to draw.
    """

    chunk = CHUNK

    def __init__(self, frame: MapFrame, state: States) -> None:
        self.frame = frame
        self.state = state.copy()
        self.values = empty_values(frame.shape)
        self.features: Values | None = None
        self.unsaved: UnsavedFeatures | None = None
        self.version = 0
        self._dirty: set[Chunk] = set()
        self._lock = threading.Lock()

    def restore(self, values: Any, state: States, features: Any = None) -> int:
        """Take over what an earlier run has saved.

        Parameters
        ----------
        values : array-like (C, My, Mx)
            May raise StoreError where a chunk is damaged.
        state : (Y, X) uint8
        features : array-like (Y, X, D), optional
            As `values`; they are only checked, and stay where they are.

        Returns
        -------
        int
            Number of windows that were called done, and whose values are not there: they are
            pending again.
        """
        self.state[:] = state
        lost = self._forget(self._without_features(features))
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

    def _without_features(self, saved: Any) -> Index:
        """Flat indices of windows that are called done, and whose features are not there."""
        unsaved = self.unsaved
        return no_windows() if unsaved is None else unsaved.find_lost(saved, self.state)

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

    def reserve(self, windows: int) -> None:
        """Make room for what so many windows bring, so that adding them cannot fail.

        Raises
        ------
        StoreFullError
            If there is none; it can be tried again.
        """
        if self.unsaved is not None:
            self.unsaved.reserve(windows)

    def add(
        self, index: Index, values: Values, state: States, features: Values | None = None
    ) -> None:
        """Take what windows brought: features first, then values, then states.

        Parameters
        ----------
        index : (n,) flat indices
        values : (n, C) or (n, C, h, w)
        state : (n,)
        features : (n, D), optional
            None for windows that failed.

        Raises
        ------
        StoreFullError
            If there is no room for them. Then nothing was changed, and it can be tried again.
        """
        self.reserve(len(index))
        if features is not None:
            self._keep(index, features)
        self._place(index, values, state)

    def _keep(self, index: Index, features: Values) -> None:
        if self.features is not None:
            self.features.reshape(-1, features.shape[1])[index] = features
        if self.unsaved is not None:
            self.unsaved.add(index, features)

    def _place(self, index: Index, values: Values, state: States) -> None:
        """Put the values of windows in place, then their states."""
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
        states = [(box, self.state[box].copy()) for box in boxes]
        return Snapshot(chunks, boxes, states, features=self._take_features())

    def _take_dirty(self) -> list[Chunk]:
        with self._lock:
            chunks, self._dirty = sorted(self._dirty), set()
        return chunks

    def _take_features(self) -> Index:
        # After the states were copied: windows that these call done have come with theirs.
        return no_windows() if self.unsaved is None else self.unsaved.take()

    def feature_blocks(self, snapshot: Snapshot) -> Iterator[FeatureBlock]:
        """Features to be saved, chunk by chunk."""
        return iter(()) if self.unsaved is None else self.unsaved.blocks(snapshot.features)

    def let_go(self, snapshot: Snapshot) -> None:
        """Forget what only waited for being saved, and is."""
        if self.unsaved is not None:
            self.unsaved.drop(snapshot.features)

    def give_back(self, snapshot: Snapshot) -> None:
        """Mark as changed again what a writer could not save."""
        with self._lock:
            self._dirty.update(snapshot.chunks)
        if self.unsaved is not None:
            self.unsaved.give_back(snapshot.features)


def empty_values(shape: tuple[int, ...], what: str = "a map") -> Values:
    """NaN in memory, or in a scratch file that vanishes with the process if it is large."""
    nbytes = 4 * math.prod(shape)
    if nbytes <= SCRATCH_BYTES:
        return np.full(shape, np.nan, np.float32)
    values = scratch_values(shape, what)
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
    try:
        with tempfile.TemporaryFile(prefix="wsi-heatmap-") as scratch:  # the array keeps it
            _reserve(scratch.fileno(), nbytes)
            values: Values = np.memmap(scratch, np.float32, "w+", shape=shape)
    except OSError as error:
        raise StoreFullError(
            f"no room for {what} of {nbytes >> 20} MB while it grows: {error.strerror}",
            tempfile.tempdir,
            "make room there, set TMPDIR to another disk, or use a larger stride",
        ) from error
    return values


def _reserve(file: int, nbytes: int) -> None:
    """Take the room of a scratch file now: later, a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, nbytes)
    elif shutil.disk_usage(tempfile.gettempdir()).free < nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
