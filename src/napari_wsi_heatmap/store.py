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

import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_wsi_heatmap.errors import StoreError, StoreExistsError, StoreFullError
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.lock import StoreLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Box, States, Values

RECORD = "run.json"
FORMAT = "napari-wsi-heatmap"
FORMAT_VERSION = 1
STATE_CHUNK = 256
COARSEST = 2048
"""Cells: maps with longer sides get coarser levels."""
AXES = (
    {"name": "c", "type": "channel"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
)


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
                _sweep_unrecorded(path)
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
        store._describe(frame, ["0"], record["model"]["name"])
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
            store._array("0"), store._array("state")
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
        """Replace the record as a whole: the old or the new one is there, never half of one."""
        temporary = self.path / f".{RECORD}.{os.getpid()}"
        with writing(self.path):
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / RECORD)

    def finish(self, frame: MapFrame, name: str) -> None:
        """Add coarser levels, each the mean of 2 x 2 cells that have a value."""
        names, source = ["0"], self._array("0")
        with writing(self.path):
            while max(source.shape[1:]) > COARSEST:
                names.append(str(len(names)))
                source = self._coarser(source, names[-1])
            self._describe(frame, names, name)

    def _coarser(self, fine: Any, name: str) -> Any:
        channels, height, width = fine.shape
        shape = channels, -(-height // 2), -(-width // 2)
        if name in self._group:
            del self._group[name]
        coarse = self._add_level(name, shape, fine.chunks[1])
        for box in boxes_of(shape[1:], fine.chunks[1]):
            twice = tuple(slice(2 * side.start, 2 * side.stop) for side in box)
            coarse[:, *box] = _halve(fine[:, *twice])
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

    def _describe(self, frame: MapFrame, levels: Sequence[str], name: str) -> None:
        unit, axes = _unit_um(frame), [dict(axis) for axis in AXES]
        if frame.grid.spec.mpp is None:
            for axis in axes[1:]:
                del axis["unit"]
        self._group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [
                {
                    "name": name,
                    "axes": axes,
                    "datasets": [
                        {"path": path, "coordinateTransformations": _placing(frame, unit, level)}
                        for level, path in enumerate(levels)
                    ],
                }
            ],
        }


def _unit_um(frame: MapFrame) -> tuple[float, float]:
    return frame.grid.spec.mpp or (1.0, 1.0)


def _placing(
    frame: MapFrame, unit: tuple[float, float], level: int
) -> list[dict[str, str | list[float]]]:
    """Scale and translation of a level; a coarser one by f begins (f − 1)/2 cells later."""
    factor = 2**level
    scale = [cell * factor * u for cell, u in zip(frame.scale, unit, strict=True)]
    translation = [
        (offset + (factor - 1) / 2 * cell) * u
        for offset, cell, u in zip(frame.offset, frame.scale, unit, strict=True)
    ]
    return [
        {"type": "scale", "scale": [1.0, *scale]},
        {"type": "translation", "translation": [0.0, *translation]},
    ]


def _halve(fine: Values) -> Values:
    """Mean of the cells of each 2 x 2 block that have a value; NaN where none has."""
    _, height, width = fine.shape
    padded = np.pad(
        fine, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=np.nan
    ).reshape(len(fine), -(-height // 2), 2, -(-width // 2), 2)
    there = ~np.isnan(padded)
    total = np.where(there, padded, 0).sum((2, 4))
    count = there.sum((2, 4))
    with np.errstate(invalid="ignore"):
        mean: Values = (total / count).astype(np.float32)
    return mean


def refuse_foreign(path: Path) -> None:
    """Refuse a path that holds something that is not an output of ours, or is no folder."""
    if is_store(path) or not path.exists():
        return
    if not path.is_dir():
        raise StoreExistsError("there is a file", path, "choose another output")
    if any(entry.name != ".lock" for entry in path.iterdir()) and not _begun(path):
        raise StoreExistsError(
            "the folder holds something else", path, "choose a new or empty output folder"
        )


def _begun(path: Path) -> bool:
    """Whether a killed run has left an output without a record: nothing in it counts yet."""
    ours = {"zarr.json", "0", "state", ".lock"}
    return (path / ".lock").is_file() and all(
        entry.name in ours or entry.name.startswith(f".{RECORD}.") for entry in path.iterdir()
    )


def is_store(path: Path) -> bool:
    """Whether an output of ours is there."""
    return (path / RECORD).is_file() and read_record(path).get("format") == FORMAT


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises
    ------
    StoreError
        If it is no JSON.
    """
    try:
        record: dict[str, Any] = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{RECORD} cannot be read: {error}", path) from error
    return record if isinstance(record, dict) else {}


def _sweep_unrecorded(path: Path) -> None:
    """Remove the arrays of a run that was killed before its record was written."""
    if not (path / RECORD).exists() and _begun(path):
        for name in ("0", "state"):
            shutil.rmtree(path / name, ignore_errors=True)
        (path / "zarr.json").unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        free = _free_mb(path)
        raise StoreFullError(
            f"cannot write: {error.strerror or error}",
            f"{path} ({free} MB free)",
            "make room or give access, then resume",
        ) from error


def _free_mb(path: Path) -> int | str:
    for folder in (path, *path.parents):
        if folder.exists():
            return shutil.disk_usage(folder).free >> 20
    return "?"
