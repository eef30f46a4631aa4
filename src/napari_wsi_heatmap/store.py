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

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.ome import describe, halve
from napari_wsi_heatmap.runfolder import (
    RECORD,
    read_record,
    refuse_foreign,
    sweep_unrecorded,
    write_record,
    writing,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Box, States, Values

STATE_CHUNK = 256
COARSEST = 2048
"""Cells: maps with longer sides get coarser levels."""


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
            If the path holds anything.
        StoreFullError
            If it cannot be written.
        """
        refuse_foreign(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = StoreLock(path)
            try:
                sweep_unrecorded(path)
                return cls._begin(path, frame, state, chunk, record, lock)
            except BaseException:
                lock.release()
                raise

    @classmethod
    def _begin(
        cls,
        path: Path,
        frame: MapFrame,
        state: States,
        chunk: int,
        record: dict[str, Any],
        lock: StoreLock,
    ) -> HeatmapStore:
        group = zarr.open_group(store=str(path), mode="a", zarr_format=3)
        store = cls(path, group)
        store._lock = lock
        store._add_level("0", frame.shape, chunk)
        group.create_array(
            "state",
            shape=state.shape,
            chunks=(STATE_CHUNK, STATE_CHUNK),
            dtype="uint8",
            fill_value=0,
        )[:] = state
        describe(group, frame, ["0"], record["model"]["name"])
        # Last: a folder without a record is not yet an output and is begun anew.
        store.write_record(record)
        return store

    @classmethod
    def open(cls, path: Path) -> HeatmapStore:
        """Open an output for reading.

        Raises
        ------
        StoreError
            If the path holds no output of ours.
        """
        if not (path / RECORD).is_file():
            raise StoreError(f"no heatmap ({RECORD} is missing)", path, "check the path")
        try:
            group = zarr.open_group(store=str(path), mode="r+")
            store = cls(path, group)
            store._array("0")
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"the heatmap cannot be opened: {error}", path) from error
        return store

    def lock(self) -> None:
        """Become the one writer; sweep what a killed one has left half written."""
        self._lock = self._lock or StoreLock(self.path)
        for orphan in self.path.rglob("*.partial"):
            orphan.unlink(missing_ok=True)

    def release(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def values(self) -> Any:
        """(C, My, Mx) float32 zarr array."""
        return self._array("0")

    @property
    def state(self) -> States:
        """(Y, X) uint8, read now."""
        return np.asarray(self._array("state")[:])

    def _array(self, name: str) -> Any:
        return self._group[name]

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
            coarse[:, *box] = halve(fine[:, *twice])
        return coarse

    def _add_level(self, name: str, shape: tuple[int, int, int], chunk: int) -> Any:
        return self._group.create_array(
            name,
            shape=shape,
            chunks=(1, chunk, chunk),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("c", "y", "x"),
        )
