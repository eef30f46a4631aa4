"""The map of a dense model: many cells a window, overlaps averaged, the same bits in any order.

A sum of floats depends on its order, and adding a window and marking it done are two writes.
So the values of a window are kept until every window that touches a chunk is there; then the
chunk is summed in grid order and written once. What is shown before that is a preview: the
latest window wins.

Memory bound: the map, and the outputs of windows whose chunks are not complete. Work moves in
blocks, so these are the windows of about one block and its seams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from napari_wsi_heatmap.growing import DENSE_CHUNK, GrowingMap, Snapshot, boxes_of, chunk_box
from napari_wsi_heatmap.states import DONE, PENDING, STATE_BITS, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Chunk, Index, States, Values


@final
class DenseMap(GrowingMap):
    """A map with h x w cells a window, the mean where windows overlap.

    A window's state is saved as done only when every chunk that it touches is complete.
    """

    chunk = DENSE_CHUNK

    def __init__(self, frame: MapFrame, state: States) -> None:
        super().__init__(frame, state)
        self._kept: dict[int, Values] = {}
        self._waiting: dict[Chunk, int] = {}
        self._open_chunks: dict[int, int] = {}
        self._begin(self._pending_chunks())

    def restore(self, values: Any, state: States) -> int:
        """Take over saved chunks; windows that touch an unfinished chunk are computed again."""
        lost = super().restore(values, state)
        unfinished = self._pending_chunks()
        done = np.flatnonzero(state_of(self.state) == DONE).tolist()
        again = [i for i in done if not unfinished.isdisjoint(self._chunks(i))]
        self.state.ravel()[again] &= ~np.uint8(STATE_BITS)
        self._begin(unfinished)
        return lost

    def _pending_chunks(self) -> set[Chunk]:
        return {c for i in np.flatnonzero(self.pending).tolist() for c in self._chunks(i)}

    def _begin(self, unfinished: set[Chunk]) -> None:
        """Count, for each chunk to be written, the windows that it waits for."""
        self._kept.clear()
        self._settled = ~self.pending
        waiting = dict.fromkeys(unfinished, 0)
        self._open_chunks = {}
        for i in np.flatnonzero(self.pending).tolist():
            chunks = [chunk for chunk in self._chunks(i) if chunk in waiting]
            self._open_chunks[i] = len(chunks)
            for chunk in chunks:
                waiting[chunk] += 1
        self._waiting = waiting

    def add(self, index: Index, values: Values, state: States) -> None:
        """Keep the outputs (n, C, h, w) of windows; blend each chunk that is complete now."""
        for i, patch, new in zip(index.tolist(), values, state, strict=True):
            if state_of(new) == DONE:
                self._kept[i] = patch.copy()
                self._preview(i, patch)
            self.state.ravel()[i] = new
            self._arrived(i)
        self.version += 1

    def _preview(self, i: int, patch: Values) -> None:
        rows, cols = self.frame.box(i)
        for chunk in self._chunks(i):
            box = chunk_box(chunk, self.chunk, self.values.shape[1:])
            y, x = _overlap(rows, box[0]), _overlap(cols, box[1])
            if chunk in self._waiting:
                self.values[:, y, x] = patch[:, _shift(y, rows), _shift(x, cols)]

    def _arrived(self, i: int) -> None:
        for chunk in self._chunks(i):
            if chunk not in self._waiting:
                continue
            self._waiting[chunk] -= 1
            if self._waiting[chunk] == 0:
                del self._waiting[chunk]
                self._blend(chunk)

    def _blend(self, chunk: Chunk) -> None:
        """Mean of all windows over a chunk, summed in grid order."""
        box = chunk_box(chunk, self.chunk, self.values.shape[1:])
        size = tuple(side.stop - side.start for side in box)
        total = np.zeros((self.frame.channels, *size), np.float32)
        weight = np.zeros(size, np.float32)
        touching = self._windows(chunk).tolist()
        with np.errstate(invalid="ignore", over="ignore"):  # a model may return what is not finite
            for i in touching:
                if (patch := self._kept.get(i)) is None:
                    continue
                rows, cols = self.frame.box(i)
                y, x = _overlap(rows, box[0]), _overlap(cols, box[1])
                at = _shift(y, box[0]), _shift(x, box[1])
                total[:, *at] += patch[:, _shift(y, rows), _shift(x, cols)]
                weight[at] += 1
            self.values[:, *box] = np.where(weight > 0, total / weight, np.nan)
        self._touch([chunk])
        self._release(touching)

    def _release(self, windows: list[int]) -> None:
        """Forget outputs that no chunk needs any more; their windows are settled."""
        for i in windows:
            if i not in self._open_chunks:
                continue
            self._open_chunks[i] -= 1
            if self._open_chunks[i] == 0:
                del self._open_chunks[i]
                self._kept.pop(i, None)
                self._settled.ravel()[i] = True

    @property
    def saved_state(self) -> States:
        """States, with windows of incomplete chunks shown as pending."""
        unsettled = ~self._settled
        states = self.state.copy()
        states[unsettled] &= ~np.uint8(STATE_BITS)
        states[unsettled] |= np.uint8(PENDING)
        return states

    def snapshot(self) -> Snapshot:
        """Take complete chunks and the states of settled windows."""
        states = self.saved_state
        chunks = self._take_dirty()
        if not chunks:
            return Snapshot([], [], [])
        boxes = [chunk_box(chunk, self.chunk, self.values.shape[1:]) for chunk in chunks]
        return Snapshot(chunks, boxes, [(b, states[b]) for b in boxes_of(states.shape, 256)])

    def _chunks(self, i: int) -> Iterator[Chunk]:
        rows, cols = self.frame.box(i)
        for y in range(rows.start // self.chunk, (rows.stop - 1) // self.chunk + 1):
            for x in range(cols.start // self.chunk, (cols.stop - 1) // self.chunk + 1):
                yield y, x

    def _windows(self, chunk: Chunk) -> Index:
        """Flat indices of the windows that touch a chunk, in grid order."""
        down, across = (
            np.flatnonzero((o < (c + 1) * self.chunk) & (o + n > c * self.chunk))
            for o, n, c in zip(self.frame.offsets, self.frame.patch_cells, chunk, strict=True)
        )
        return (down[:, None] * self.state.shape[1] + across).ravel()


def new_map(frame: MapFrame, state: States) -> GrowingMap:
    """Make the buffer that a frame needs."""
    return DenseMap(frame, state) if frame.dense else GrowingMap(frame, state)


def _overlap(a: slice, b: slice) -> slice:
    return slice(max(a.start, b.start), min(a.stop, b.stop))


def _shift(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
