"""The map of a dense model: many cells a window, overlaps blended, the same bits in any order.

A sum of floats depends on its order, and adding a window and marking it done are two writes.
So the output of a window is kept until all its neighbours are there. The map is blended tile by
tile, each once, when every window over it has arrived, in grid order; a chunk is saved once, when
all its tiles are. What is shown of other tiles is a preview: the latest window wins.

Memory bound
------------
The map (see `growing`) and the outputs of windows that lie over an incomplete tile: those along
the border of what is computed. With windows of n cells, s cells apart, and tiles of t cells these
are f = ⌈(n + t) / s⌉ windows deep. In raster order, on a grid X windows wide with regions of R x R
windows, they are at most f · X + (R + f)² outputs (C, n, n), and (R + f)² more for each region
that readers hand over out of turn. Outputs beyond 256 MB lie in scratch files, so neither they nor
the map bound the size of a slide. Blending takes 16 bytes a cell of a tile, 64 channels at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from napari_wsi_heatmap.blend import blend_parts, blend_weights
from napari_wsi_heatmap.disagreement import spread_parts
from napari_wsi_heatmap.growing import CHUNK, DENSE_CHUNK, GrowingMap, Snapshot, chunk_box
from napari_wsi_heatmap.kept import KeptOutputs
from napari_wsi_heatmap.states import DONE, PENDING, STATE_BITS, state_of
from napari_wsi_heatmap.waiting import Waiting

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from napari_wsi_heatmap.blend import Part
    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Box, Chunk, Index, States, Values

TILE = 128
"""Cells along a tile: smaller ones free outputs sooner, and take more steps a window."""


@final
class DenseMap(GrowingMap):
    """A map with h x w cells a window, blended where windows overlap.

    A window's state is saved as done only when every chunk that it touches is complete.

    Parameters
    ----------
    frame : MapFrame
    state : (Y, X) uint8
    blend : {"mean", "gaussian", "max", "last"}
        See `blend`.
    compared : int
        Of how many channels the last one of the frame says how far windows differ in them, see
        `disagreement`; 0: the model gives all channels.
    """

    chunk = DENSE_CHUNK
    state_chunk = CHUNK
    tile = TILE

    def __init__(
        self, frame: MapFrame, state: States, blend: str = "mean", compared: int = 0
    ) -> None:
        super().__init__(frame, state)
        self._blend, self._compared = blend, compared
        given = frame.channels - bool(compared)
        self._given = self.values[:given]
        self._weights = blend_weights(blend, frame.patch_cells)
        self._side = min(self.tile, self.chunk)
        self._tiles, self._chunks = Waiting(frame, self._side), Waiting(frame, self.chunk)
        self._kept = KeptOutputs((given, *frame.patch_cells))
        self._dirty_states: set[Chunk] = set()
        self._begin(self._chunks.below(self.pending))

    @property
    def kept(self) -> int:
        """Number of windows whose outputs wait for their neighbours."""
        return len(self._kept)

    def restore(self, values: Any, state: States, features: Any = None) -> int:
        """Take over saved chunks; windows that touch an unfinished chunk are computed again."""
        lost = super().restore(values, state, features)
        unfinished = self._chunks.below(self.pending)
        again = (state_of(self.state) == DONE) & self._chunks.above(unfinished)
        self.state[again] &= ~np.uint8(STATE_BITS)
        self._begin(unfinished)
        return lost

    def _begin(self, unfinished: NDArray[np.bool_]) -> None:
        """Count what the chunks to be written, and their tiles, wait for."""
        pending, each = self.pending, self.chunk // self._side
        height, width = self._tiles.left.shape
        self._kept.clear()
        self._settled = ~pending
        self._chunks.begin(pending, unfinished)
        tiles = unfinished.repeat(each, 0).repeat(each, 1)[:height, :width]
        self._tiles.begin(pending, tiles)

    def reserve(self, windows: int) -> None:
        """Make room for the outputs of so many windows, so that adding them cannot fail."""
        super().reserve(windows)
        self._kept.reserve(windows)

    def _place(self, index: Index, values: Values, state: States) -> None:
        """Keep the outputs (n, C, h, w) of windows; blend each tile that is complete now."""
        for i, patch, new in zip(index.tolist(), values, state, strict=True):
            if state_of(new) == DONE:
                self._kept.keep(i, patch)
                self._preview(i, patch)
            self.state.ravel()[i] = new
            self._arrived(i)
        self.version += 1

    def _preview(self, i: int, patch: Values) -> None:
        for tile in self._tiles.of(i):
            box = self._tile_box(tile)
            (y, x), (v, u) = self._common(i, box)
            self._given[:, *box][:, y, x] = patch[:, v, u]

    def _arrived(self, i: int) -> None:
        for tile in self._tiles.arrive(i):
            self._fill(tile)
            for done in self._tiles.free(tile).tolist():
                self._kept.drop(done)
        complete = self._chunks.arrive(i)
        self._touch(complete)  # before its windows are settled: a snapshot takes states first
        for chunk in complete:
            self._settle(self._chunks.free(chunk))

    def _settle(self, windows: Index) -> None:
        """Let the states of windows be saved: every chunk that they touch is complete."""
        self._settled.ravel()[windows] = True
        chunks = np.stack(np.divmod(windows, self.state.shape[1]), 1) // self.state_chunk
        with self._lock:
            self._dirty_states.update(map(tuple, np.unique(chunks, axis=0).tolist()))

    def _fill(self, tile: Chunk) -> None:
        """Blend all windows over a tile, in grid order."""
        box = self._tile_box(tile)
        shape = self._given[:, *box].shape
        parts = [part for i in self._tiles.over(tile).tolist() if (part := self._part(i, box))]
        self._given[:, *box] = blend_parts(self._blend, parts, shape)
        if self._compared:
            some = [(at, values[: self._compared], weights) for at, values, weights in parts]
            self.values[-1, *box] = spread_parts(some, (self._compared, *shape[1:]))

    def _part(self, i: int, box: Box) -> Part | None:
        """What a window gives to a box; None for one that is left out or failed."""
        if (patch := self._kept.get(i)) is None:
            return None
        at, (v, u) = self._common(i, box)
        return at, patch[:, v, u], self._weights[v, u]

    def _common(self, i: int, box: Box) -> tuple[Box, Box]:
        """Cells that lie both in a window and in a box: slices of the box, and of the window."""
        window = self.frame.box(i)
        (y, v), (x, u) = (_common(b, w) for b, w in zip(box, window, strict=True))
        return (y, x), (v, u)

    def _tile_box(self, tile: Chunk) -> Box:
        return chunk_box(tile, self._side, self.values.shape[1:])

    @property
    def saved_state(self) -> States:
        """States, with windows of incomplete chunks shown as pending."""
        return self._saved_within((slice(None), slice(None)))

    def _saved_within(self, box: Box) -> States:
        # Settled first: a window's state is there before it is settled.
        unsettled = ~self._settled[box]
        states = self.state[box].copy()
        states[unsettled] &= ~np.uint8(STATE_BITS)
        states[unsettled] |= np.uint8(PENDING)
        return states

    def snapshot(self) -> Snapshot:
        """Take complete chunks, and the states of windows that settled meanwhile."""
        with self._lock:
            settled, self._dirty_states = sorted(self._dirty_states), set()
        places = [chunk_box(chunk, self.state_chunk, self.state.shape) for chunk in settled]
        states = [(box, self._saved_within(box)) for box in places]
        chunks = self._take_dirty()
        boxes = [chunk_box(chunk, self.chunk, self.values.shape[1:]) for chunk in chunks]
        return Snapshot(chunks, boxes, states, settled, self._take_features())

    def give_back(self, snapshot: Snapshot) -> None:
        """Mark as changed again what a writer could not save."""
        super().give_back(snapshot)
        with self._lock:
            self._dirty_states.update(snapshot.state_chunks)

    def _windows(self, chunk: Chunk) -> Index:
        """Flat indices of the windows that touch a chunk, in grid order."""
        return self._chunks.over(chunk)


def new_map(frame: MapFrame, state: States, blend: str = "mean", compared: int = 0) -> GrowingMap:
    """Make the buffer that a frame needs; the parameters are those of `DenseMap`."""
    return DenseMap(frame, state, blend, compared) if frame.dense else GrowingMap(frame, state)


def _common(a: slice, b: slice) -> tuple[slice, slice]:
    """What two ranges share, as slices of each."""
    first, last = max(a.start, b.start), min(a.stop, b.stop)
    return slice(first - a.start, last - a.start), slice(first - b.start, last - b.start)
