"""Where a map lives while it grows: an OME-Zarr 0.5 group that survives a crash.

::

    OUT.zarr/
      zarr.json      OME multiscales: scale and translation in µm, centre of a pixel convention
      0, 1, …        (C, My, Mx) float32, NaN where nothing was computed; coarser levels when done
      state          (Y, X) uint8, see `napari_wsi_heatmap.states`
      run.json       plan, settings, slide, model, counts, status
      .lock          held by the one process that writes

Values are written before the states that call them done, whole chunks at a time, each chunk by
an atomic rename; so at any instant what `state` calls done is there. This file knows the layout
and nothing of threads; `napari_wsi_heatmap.writer` decides when to write.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from napari_wsi_heatmap.errors import StoreError, StoreExistsError
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.ome import describe, halve
from napari_wsi_heatmap.runfolder import (
    is_store,
    read_record,
    reading,
    refuse_foreign,
    sweep,
    write_record,
    writing,
)
from napari_wsi_heatmap.states import FAILED, PENDING, state_of

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Box, States, Values

STATE_CHUNK = 256
COARSEST = 2048
"""Cells: maps with longer sides get coarser levels."""
CODEC = ZstdCodec(level=0, checksum=True)
"""Without the checksum a flipped bit would be read as a value."""
THE_HEATMAP = "the heatmap"


class SavedArray:
    """An array of an output; a chunk is read when it is indexed, a damaged one is a StoreError."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape: tuple[int, ...] = array.shape

    def __getitem__(self, at: Any) -> Any:
        do = "resume the run: it computes again what is damaged"
        with reading(self._path, THE_HEATMAP, do):
            return np.asarray(self._array[at])


class HeatmapStore:
    """An output folder, opened for reading, or by `create` / `lock` for writing."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        self._lock: StoreLock | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        frame: MapFrame,
        state: States,
        chunk: int,
        record: dict[str, Any],
    ) -> HeatmapStore:
        """Begin an output; its folder must be absent or empty.

        Raises
        ------
        StoreExistsError
            If the path holds anything, be it the output of another run.
        StoreFullError
            If it cannot be written.
        """
        refuse_foreign(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = StoreLock(path)
            try:
                if is_store(path):
                    raise StoreExistsError(
                        "another run has begun this output", path, "start again to continue it"
                    )
                sweep(path)
                store = cls(path, zarr.open_group(store=str(path), mode="a", zarr_format=3))
                store._begin(frame, state, chunk, record)
            except BaseException:
                lock.release()
                raise
        store._lock = lock
        return store

    def _begin(self, frame: MapFrame, state: States, chunk: int, record: dict[str, Any]) -> None:
        self._add_level("0", frame.shape, chunk)
        self._group.create_array(
            "state",
            shape=state.shape,
            chunks=(STATE_CHUNK, STATE_CHUNK),
            dtype="uint8",
            fill_value=0,
            compressors=CODEC,
        )[:] = state
        describe(self._group, frame, ["0"], record["model"]["name"])
        # Last: a folder without a record is not yet an output and is begun anew.
        self.write_record(record)

    @classmethod
    def open(cls, path: Path) -> HeatmapStore:
        """Open an output for reading.

        Raises
        ------
        StoreError
            If the path holds no output of ours.
        """
        read_record(path)
        with reading(path, THE_HEATMAP):
            store = cls(path, zarr.open_group(store=str(path), mode="r+"))
            store._array("0")
        return store

    def lock(self) -> None:
        """Become the one writer; sweep what a killed one has left half written."""
        self._lock = self._lock or StoreLock(self.path)
        try:
            with writing(self.path):
                sweep(self.path)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def values(self) -> SavedArray:
        """(C, My, Mx) float32."""
        return SavedArray(self._array("0"), self.path)

    @property
    def state(self) -> States:
        """(Y, X) uint8, read now."""
        return self._states()[:]

    def state_within(self, planned: States) -> States:
        """States (Y, X), read now, of windows that were planned; as planned where damaged.

        A state that there is not is damage as well.
        """
        states, saved = planned.copy(), self._states()
        for box in boxes_of(states.shape, STATE_CHUNK):
            with suppress(StoreError):
                states[box] = saved[box]
        # A missing chunk reads as pending: what was left out stays so, what hangs over as well.
        counts = (state_of(planned) == PENDING) & (state_of(states) <= FAILED)
        return np.where(counts, states | planned, planned)

    def refuse_misfit(self, frame: MapFrame) -> None:
        """Raise StoreError if the arrays are not those of a frame."""
        shapes = self.values.shape, self._states().shape
        if shapes != (frame.shape, frame.grid.shape):
            raise StoreError(
                f"the arrays {shapes[0]} and {shapes[1]} are not those of the record",
                self.path,
                "begin a new output",
            )

    def _states(self) -> SavedArray:
        return SavedArray(self._array("state"), self.path)

    def _array(self, name: str) -> Any:
        with reading(self.path, THE_HEATMAP):
            array = self._group[name]
            if not isinstance(array, zarr.Array):
                raise StoreError(f"{name!r} is no array", self.path, "begin a new output")
        return array

    def write_values(self, box: Box, values: Values) -> None:
        """Write whole chunks (C, h, w)."""
        with writing(self.path):
            self._array("0")[:, *box] = values

    def write_state(self, box: Box, state: States) -> None:
        """Write whole chunks (h, w)."""
        with writing(self.path):
            self._array("state")[box] = state

    def read_record(self) -> dict[str, Any]:
        """Read the record of the run."""
        return read_record(self.path)

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record as a whole."""
        write_record(self.path, record)

    def finish(self, frame: MapFrame, name: str) -> None:
        """Add coarser levels, each the mean of 2 x 2 cells that have a value."""
        names, source = ["0"], self._array("0")
        with writing(self.path):
            while max(source.shape[1:]) > COARSEST:
                names.append(str(len(names)))
                source = self._coarser(source, names[-1])
            describe(self._group, frame, names, name)

    def _coarser(self, fine: Any, name: str) -> Any:
        channels, height, width = fine.shape
        shape = channels, -(-height // 2), -(-width // 2)
        if name in self._group:
            del self._group[name]
        coarse = self._add_level(name, shape, fine.chunks[1])
        for box in boxes_of(shape[1:], fine.chunks[1]):
            twice = tuple(slice(2 * side.start, 2 * side.stop) for side in box)
            with reading(self.path, THE_HEATMAP):
                block = fine[:, *twice]
            coarse[:, *box] = halve(block)
        return coarse

    def _add_level(self, name: str, shape: tuple[int, int, int], chunk: int) -> Any:
        return self._group.create_array(
            name,
            shape=shape,
            chunks=(1, chunk, chunk),
            dtype="float32",
            fill_value=np.nan,
            compressors=CODEC,
            dimension_names=("c", "y", "x"),
        )
