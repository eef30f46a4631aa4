"""A run's output folder: whose it is, its record, and one line for what goes wrong in it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import (
    HeatmapError,
    StoreError,
    StoreExistsError,
    StoreFullError,
    one_line,
)
from napari_wsi_heatmap.lock import NAME as LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = "run.json"
FORMAT = "napari-wsi-heatmap"
FORMAT_VERSION = 1
ENDING = ".zarr"
DIFFERENCE = "difference"
"""Kind of a heatmap that no model computed."""
GONE = (
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
)
"""What the operating system answers where a drive is not there any more, or does not work."""
ARRAYS = ("0", "features", "state")
"""What is made before the record, and does not count without it."""
PARTIAL = (".partial", f".{RECORD}.")
"""In the names of files that a killed process has left half written: zarr's, and records."""


def folder_of(out: str | bytes | os.PathLike[str]) -> Path:
    """Resolve what somebody gave as an output: absolute, with `~` as the home folder.

    Raises
    ------
    StoreError
        If it is no path.
    """
    try:
        name = os.fsdecode(out)
    except TypeError as error:
        raise StoreError(f"{out!r} is no path", do="give a folder, such as heatmap.zarr") from error
    if not name or "\0" in name:
        raise StoreError(f"{name!r} is no path", do="give a folder, such as heatmap.zarr")
    if name.startswith("~") and not os.path.lexists(name):
        name = os.path.expanduser(name)
    return Path(os.path.abspath(name))


def refuse_foreign(path: Path) -> None:
    """Refuse a path that holds something that is not an output of ours, or is no folder.

    Raises
    ------
    StoreExistsError
        Saying what is there.
    StoreError
        If an output of ours is there and its record cannot be read.
    StoreFullError
        If nobody may look there.
    """
    with writing(path):
        if is_store(path):
            return
        if path.is_symlink() and not path.exists():
            raise StoreExistsError("there is a link to nothing", path, "choose another output")
        if path.exists() and not path.is_dir():
            raise StoreExistsError("there is a file", path, "choose another output")
        if path.exists() and not _begun(path) and any(e.name != LOCK for e in path.iterdir()):
            raise StoreExistsError(
                "the folder holds something else", path, "choose a new or empty output folder"
            )


def _begun(path: Path) -> bool:
    """Whether a killed run has left an output without a record: nothing in it counts yet."""
    ours = {"zarr.json", *ARRAYS, LOCK}
    return (path / LOCK).is_file() and all(
        entry.name in ours or _half_written(entry.name) for entry in path.iterdir()
    )


def _half_written(name: str) -> bool:
    return name.endswith(PARTIAL[0]) or name.startswith(PARTIAL[1])


def is_store(path: Path) -> bool:
    """Whether an output of ours is there.

    Raises
    ------
    StoreError
        If there is a record that cannot be read.
    """
    return (path / RECORD).is_file() and _load(path).get("format") == FORMAT


def stores_in(out: Path) -> list[Path]:
    """Outputs of a run of several models, in the models' order; empty if there is none."""
    paths = [path for path in out.glob(f"*{ENDING}") if is_store(path)]
    return sorted(paths, key=lambda path: (read_record(path).get("number", 0), path.name))


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises
    ------
    StoreError
        If there is none, or it is not one that this version understands.
    """
    with reading(path, "the heatmap"):
        if not (path / RECORD).is_file():
            raise StoreError(f"no heatmap ({RECORD} is missing)", path, "check the path")
    record = _load(path)
    if record.get("format") != FORMAT:
        raise StoreError(f"{RECORD} is not that of a heatmap", path, "check the path")
    version = record.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreError(
            f"written by a newer version (format {version!r})", path, "update napari-wsi-heatmap"
        )
    return record


def _load(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"{RECORD} cannot be read: {error}", path, "choose another output"
        ) from error
    return record if isinstance(record, dict) else {}


def sweep(path: Path) -> None:
    """Remove what a killed process has left half written; only who holds the lock may."""
    unrecorded = not (path / RECORD).exists() and _begun(path)
    for file in (*path.rglob(f"*{PARTIAL[0]}"), *path.glob(f"{PARTIAL[1]}*")):
        file.unlink(missing_ok=True)
    if unrecorded:
        for name in ARRAYS:
            shutil.rmtree(path / name, ignore_errors=True)
        (path / "zarr.json").unlink(missing_ok=True)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replace the record as a whole: the old or the new one is there, never half of one."""
    temporary = path / f".{RECORD}.{os.getpid()}"
    with writing(path):
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path / RECORD)
        except Exception:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreFullError(
            f"cannot write: {error.strerror or error}",
            f"{path} ({_free_mb(path)} MB free)",
            "make room or give access, then resume",
        ) from error
    except RuntimeError as error:
        _refuse_at_end(error, path)
        raise


def _refuse_at_end(error: Exception, path: Path) -> None:
    """Say what it means that no thread may be started: zarr reads and writes in threads."""
    if "shutdown" in str(error):
        raise StoreFullError(
            "it cannot be used while Python ends", path, "let the program wait for its runs"
        ) from error


def _free_mb(path: Path) -> int | str:
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free >> 20
        except (OSError, ValueError):
            continue
    return "?"


@contextmanager
def reading(path: Path, what: str, do: str = "begin a new output") -> Iterator[None]:
    """Turn whatever a damaged output raises while it is read into one line."""
    try:
        yield
    except HeatmapError:
        raise
    except PermissionError as error:
        raise StoreError(f"{what} cannot be read: {error.strerror}", path, "get access") from error
    except OSError as error:
        if error.errno in GONE:
            raise StoreFullError(
                f"{what} cannot be read: {error.strerror}",
                path,
                "see that its drive is there, then try again",
            ) from error
        raise _damaged(error, path, what, do) from error
    # zarr and its codecs raise all of these where a chunk or its metadata are not what they were.
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        _refuse_at_end(error, path)
        raise _damaged(error, path, what, do) from error


def _damaged(error: Exception, path: Path, what: str, do: str) -> StoreError:
    return StoreError(f"{what} is damaged: {one_line(repr(error), 120)}", path, do)
