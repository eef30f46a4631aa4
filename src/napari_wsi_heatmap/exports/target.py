"""Where an export goes: written beside its name, and given it when it is whole."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ExportError, HeatmapError, StoreFullError
from napari_wsi_heatmap.runfolder import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOKED_AT = 1 << 16
"""Bytes at either end of a file in which a sign is looked for."""
ATTRIBUTES = ".zattrs"
"""Of a folder: where a sign is looked for."""


@contextmanager
def written_at_once(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary file of the same folder that becomes `path` if all goes well.

    Parameters
    ----------
    path : Path
    folder : bool
        Yield a folder instead; if there is one at `path`, it is moved aside, then removed.

    Raises
    ------
    ExportError
        If `path` is a folder or a link, or has no folder to lie in.
    StoreFullError
        If it cannot be written.
    """
    check_target(path, folder=folder)
    part = None
    try:
        part = _beside(path, folder=folder)
        yield part
        _publish(part, path)
    except ExportError as error:
        if error.where != part:
            raise
        raise ExportError(error.what, path, error.do) from error  # nobody knows of the part
    except HeatmapError:
        raise
    except OSError as error:
        raise StoreFullError(
            f"cannot write: {error.strerror or error}", path, "make room or give access"
        ) from error
    finally:
        if part is not None:
            _remove(part)


def _beside(path: Path, *, folder: bool) -> Path:
    names = ".part", f".{path.name[:80]}.", path.parent
    if folder:
        return Path(tempfile.mkdtemp(*names))
    handle, name = tempfile.mkstemp(*names)
    os.close(handle)
    return Path(name)


def _publish(part: Path, path: Path) -> None:
    """Give what is whole its name, and the rights that anything new gets."""
    for file in [part] if part.is_file() else filter(Path.is_file, part.rglob("*")):
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
    mask = os.umask(0)
    os.umask(mask)
    part.chmod((0o777 if part.is_dir() else 0o666) & ~mask)
    if part.is_dir() and path.exists():
        _swap(part, path)
    else:
        os.replace(part, path)


def _swap(part: Path, path: Path) -> None:
    """Put a folder where another one is; no folder can be replaced in one step."""
    old = part.with_name(f"{part.name}.old")
    os.rename(path, old)
    try:
        os.rename(part, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def check_target(path: Path, *, folder: bool = False) -> None:
    """Refuse a path that nothing may be written to.

    Raises
    ------
    ExportError
        If it is a link, a folder where a file is to be (or the other way round), or in no folder.
    """
    if path.is_symlink():
        raise ExportError("there is a link", path, "give the file that it leads to")
    if path.is_dir() and not folder:
        raise ExportError("there is a folder", path, "give the name of a file")
    if path.exists() and folder and not path.is_dir():
        raise ExportError("there is a file", path, "give the name of a folder")
    if not path.parent.is_dir():
        raise ExportError("no such folder", path.parent, "make it first, or choose another")


def refuse_foreign(path: Path, sign: bytes) -> None:
    """Refuse a path where there is something that no export of ours wrote.

    Parameters
    ----------
    path : Path
    sign : bytes
        Regular expression of what an export has near its beginning or end.

    Raises
    ------
    ExportError
        If there is something without it; StoreFullError if nobody may look.
    """
    try:
        ours = not path.exists() or _shows(path, sign)
    except OSError as error:
        raise StoreFullError(
            f"cannot be read: {error.strerror or error}", path, "choose another name"
        ) from error
    if not ours:
        raise ExportError(
            "there is something that is no such export of ours",
            path,
            "choose another name, or remove it first",
        )


def _shows(path: Path, sign: bytes) -> bool:
    if path.is_dir():
        about = path / ATTRIBUTES
        empty = not any(path.iterdir())
        return empty or (not (path / RECORD).exists() and about.is_file() and _shows(about, sign))
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(LOOKED_AT)
        file.seek(max(0, path.stat().st_size - LOOKED_AT))
        ends = head, file.read()
    return not head or any(re.search(sign, end) for end in ends)
