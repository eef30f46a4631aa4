"""A run's output folder: whose it is, its record, and writing that fails in one line."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import StoreError, StoreExistsError, StoreFullError
from napari_wsi_heatmap.lock import NAME as LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD = "run.json"
FORMAT = "napari-wsi-heatmap"
FORMAT_VERSION = 1


def refuse_foreign(path: Path) -> None:
    """Refuse a path that holds something that is not an output of ours, or is no folder."""
    if is_store(path) or not path.exists():
        return
    if not path.is_dir():
        raise StoreExistsError("there is a file", path, "choose another output")
    if any(entry.name != LOCK for entry in path.iterdir()) and not _begun(path):
        raise StoreExistsError(
            "the folder holds something else", path, "choose a new or empty output folder"
        )


def _begun(path: Path) -> bool:
    """Whether a killed run has left an output without a record: nothing in it counts yet."""
    ours = {"zarr.json", "0", "state", LOCK}
    return (path / LOCK).is_file() and all(
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


def sweep_unrecorded(path: Path) -> None:
    """Remove the arrays of a run that was killed before its record was written."""
    if not (path / RECORD).exists() and _begun(path):
        for name in ("0", "state"):
            shutil.rmtree(path / name, ignore_errors=True)
        (path / "zarr.json").unlink(missing_ok=True)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replace the record as a whole: the old or the new one is there, never half of one."""
    temporary = path / f".{RECORD}.{os.getpid()}"
    with writing(path):
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path / RECORD)


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
