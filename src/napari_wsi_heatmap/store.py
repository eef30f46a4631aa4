"""Where a map lives while it grows: an OME-Zarr 0.5 group that survives a crash.

::

    OUT.zarr/
      zarr.json      OME multiscales: scale and translation in µm, centre of a pixel convention
      0, 1, …        (C, My, Mx) float32, NaN where nothing was computed; coarser levels when done
      state          (Y, X) uint8, see `napari_wsi_heatmap.states`
      features       (Y, X, D) float32, only if the model gives features; NaN as in the map
      run.json       plan, settings, slide, model, counts, status
      .lock          held by the one process that writes

Features and values are written before the states that call them done, whole chunks at a time,
each chunk by an atomic rename; so at any instant what `state` calls done is there. This file
knows the layout and nothing of threads; `napari_wsi_heatmap.writer` decides when to write.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from napari_wsi_heatmap.errors import StoreError, StoreExistsError
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.held import HeldFolder
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
from napari_wsi_heatmap.savedarray import THE_HEATMAP, SavedArray
from napari_wsi_heatmap.states import FAILED, PENDING, state_of
from napari_wsi_heatmap.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_wsi_heatmap.features import FeatureBlock, UnsavedFeatures
    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Box, States, Values

    Shape = tuple[int, int, int]

STATE_CHUNK = 256
COARSEST = 2048
"""Cells: maps with longer sides get coarser levels."""
CODEC = ZstdCodec(level=0, checksum=True)
"""Without the checksum a flipped bit would be read as a value."""


class HeatmapStore:
    """An output folder, opened for reading, or by `create` / `lock` for writing.

    Attributes
    ----------
    timings : Timings
        Told of what is written: seconds, and bytes before they are compressed.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        self._lock: HeldFolder | None = None
        self._arrays: dict[str, Any] = {}
        self.timings = Timings()

    @classmethod
    def create(
        cls,
        path: Path,
        frame: MapFrame,
        state: States,
        chunk: int,
        record: dict[str, Any],
        features: UnsavedFeatures | None = None,
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
            lock = HeldFolder(path)
            try:
                if is_store(path):
                    raise StoreExistsError(
                        "another run has begun this output", path, "start again to continue it"
                    )
                sweep(path)
                store = cls(path, zarr.open_group(store=str(path), mode="a", zarr_format=3))
                store._begin(frame, state, chunk, record, features)
            except BaseException:
                lock.release()
                raise
        store._lock = lock
        return store

    def _begin(
        self,
        frame: MapFrame,
        state: States,
        chunk: int,
        record: dict[str, Any],
        features: UnsavedFeatures | None,
    ) -> None:
        self._add_level("0", frame.shape, chunk)
        if features is not None:
            chunks = features.chunk, features.chunk, features.shape[2]
            self._add("features", features.shape, chunks, ("y", "x", "feature"))
        self._group.create_array(
            "state",
            shape=state.shape,
            chunks=(STATE_CHUNK, STATE_CHUNK),
            dtype="uint8",
            fill_value=0,
            compressors=CODEC,
            dimension_names=("y", "x"),
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
        self._lock = self._lock or HeldFolder(self.path)
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

    @property
    def features(self) -> SavedArray | None:
        """(Y, X, D) float32; None if the model gave none."""
        with reading(self.path, THE_HEATMAP):
            given = "features" in self._group
        return SavedArray(self._array("features"), self.path) if given else None

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

    def refuse_misfit(self, frame: MapFrame, features: int | None) -> None:
        """Raise StoreError if the arrays are not those of a frame, or of D features a window."""
        recorded: dict[str, tuple[int, ...]] = {"0": frame.shape, "state": frame.grid.shape}
        if features is not None:
            recorded["features"] = (*frame.grid.shape, features)
        shapes = [self._array(name).shape for name in recorded]
        if shapes != list(recorded.values()):
            raise StoreError(
                f"the arrays {' and '.join(map(str, shapes))} are not those of the record",
                self.path,
                "begin a new output",
            )

    def _states(self) -> SavedArray:
        return SavedArray(self._array("state"), self.path)

    def _array(self, name: str) -> Any:
        if name not in self._arrays:  # looked for once: a drive that is gone later is no damage
            with reading(self.path, THE_HEATMAP):
                array = self._group[name]
                if not isinstance(array, zarr.Array):
                    raise StoreError(f"{name!r} is no array", self.path, "begin a new output")
            self._arrays[name] = array
        return self._arrays[name]

    def refuse_gone(self) -> None:
        """Raise StoreFullError if the folder that is ours to write is not there any more."""
        if self._lock is not None:
            self._lock.refuse_gone()

    @contextmanager
    def _writing(self, nbytes: int) -> Iterator[None]:
        with writing(self.path), self.timings.spent("writing", nbytes):
            self.refuse_gone()
            yield

    def write_values(self, box: Box, values: Values) -> None:
        """Write whole chunks (C, h, w)."""
        with self._writing(values.nbytes):
            self._array("0")[:, *box] = values

    def write_features(self, block: FeatureBlock) -> None:
        """Write a whole chunk; what of it is not new stays as it is."""
        with self._writing(block.vectors.nbytes):
            saved = SavedArray(self._array("features"), self.path)
            self._array("features")[block.box] = block.over(saved)

    def write_state(self, box: Box, state: States) -> None:
        """Write whole chunks (h, w)."""
        with self._writing(state.nbytes):
            self._array("state")[box] = state

    def read_record(self) -> dict[str, Any]:
        """Read the record of the run."""
        return read_record(self.path)

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record as a whole."""
        with self._writing(0):
            write_record(self.path, record)
        if self._lock is not None:
            self._lock.note(record)

    def finish(self, frame: MapFrame, name: str) -> None:
        """Add coarser levels, each the mean of 2 x 2 cells that have a value."""
        names, source = ["0"], self._array("0")
        with writing(self.path):
            self.refuse_gone()
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
            half = halve(block)
            with self.timings.spent("writing", half.nbytes):
                coarse[:, *box] = half
        return coarse

    def _add_level(self, name: str, shape: Shape, chunk: int) -> Any:
        return self._add(name, shape, (1, chunk, chunk), ("c", "y", "x"))

    def _add(self, name: str, shape: Shape, chunks: Shape, axes: tuple[str, str, str]) -> Any:
        return self._group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            fill_value=np.nan,
            compressors=CODEC,
            dimension_names=axes,
        )
