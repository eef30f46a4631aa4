"""What a zip archive says it holds, without unpacking any of it."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

MOST_DIRECTORY = 8 << 20
"""Bytes of a zip's directory: models have thousands of members, not hundreds of thousands."""
_END = b"PK\x05\x06"
_END_SIZE = 22
_LONGEST_COMMENT = 65_535
_LOCATOR_SIZE, _END64_SIZE = 20, 56


@dataclass(frozen=True)
class Member:
    """One member of an archive: its name below the archive's own folder, and its sizes."""

    name: str
    full_name: str
    size: int
    stored: bool
    """Whether it is not compressed."""


def members_of(path: Path, file: BinaryIO) -> list[Member]:
    """Read the directory of a zip archive.

    Raises
    ------
    ModelLoadError
        If it has no end, is damaged, or its directory is larger than any model's.

    Notes
    -----
    Memory bound: the directory, at most `MOST_DIRECTORY` in the file.
    """
    if _directory_size(path, file) > MOST_DIRECTORY:
        raise ModelLoadError("the zip archive has more members than any model", path, "refused")
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise damaged(path, str(error)) from None
    return [_member(info) for info in infos if not info.is_dir()]


def read_member(path: Path, file: BinaryIO, name: str, most: int) -> bytes:
    """Read one member by its full name, at most `most` bytes of it."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(name) as member:
            content = member.read(most + 1)
    except (zipfile.BadZipFile, ValueError, KeyError, NotImplementedError, RuntimeError,
            struct.error, EOFError) as error:  # fmt: skip
        raise damaged(path, str(error)) from None
    if len(content) > most:
        raise ModelLoadError(f"{name} in it is larger than in any model", path, "refused")
    return content


def damaged(path: Path, reason: str) -> ModelLoadError:
    """Say that an archive cannot be read."""
    what = f"the zip archive is damaged: {reason}" if reason else "the zip archive is damaged"
    return ModelLoadError(what, path, "copy or download it again")


def _member(info: zipfile.ZipInfo) -> Member:
    name = info.filename.partition("/")[2] or info.filename
    stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    return Member(name, info.filename, info.file_size, stored)


def _directory_size(path: Path, file: BinaryIO) -> int:
    """Bytes of the directory, from the record at the archive's end (APPNOTE.TXT 4.3.14-16)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT - _LOCATOR_SIZE - _END64_SIZE))
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_SIZE:
        raise ModelLoadError(
            "the zip archive has no end: only a part of the file is here", path, "download it again"
        )
    length: int = struct.unpack_from("<L", tail, end + 12)[0]
    return length if length != 0xFFFFFFFF else _directory_size64(path, file, tail[:end])


def _directory_size64(path: Path, file: BinaryIO, before: bytes) -> int:
    locator = before[-_LOCATOR_SIZE:]
    if not locator.startswith(b"PK\x06\x07"):
        raise damaged(path, "its directory has no size")
    file.seek(min(struct.unpack_from("<Q", locator, 8)[0], 1 << 62))
    record = file.read(_END64_SIZE)
    if len(record) < _END64_SIZE or not record.startswith(b"PK\x06\x06"):
        raise damaged(path, "its directory cannot be found")
    length: int = struct.unpack_from("<Q", record, 40)[0]
    return length
