"""Which files make up a slide, and a digest that tells one content from another.

The digest is made of content alone (sizes, headers, sampled bytes), so a copied slide keeps
it. Modification time and inode change with every copy; they only tell that a file which is in
use was replaced.
"""

from __future__ import annotations

import hashlib
import os

Identity = tuple[int, int, int]
"""(size, mtime_ns, inode)."""

EDGE = 64 << 10
"""Bytes hashed at the start and at the end of a file."""
WHOLE = 8 << 20
"""Bytes up to which a slide is hashed whole, which takes about 10 ms."""
_SAMPLES, _SAMPLE = 64, 4 << 10
_SERIES_UID = b"\x20\x00\x0e\x00UI"
"""DICOM's (0020,000E) SeriesInstanceUID, explicit little endian as all slides are stored."""


def fingerprint(path: str) -> str:
    """Digest the content of a slide.

    Parameters
    ----------
    path : str
        The file that is opened; files that belong to it are found beside it.

    Returns
    -------
    str
        64 hex digits: sha256 of all bytes up to 8 MiB; of a larger file, its size, first and
        last 64 KiB and 64 samples of 4 KiB; where several files make up a larger slide, of the
        size and three samples of each.
    """
    files = slide_files(path)
    samples, edge = _sampling(files)
    # Sorted and without names: copies are renamed, and any file of a DICOM series opens the slide.
    digests = sorted(_digest(name, samples, edge) for name in files)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def slide_files(path: str) -> tuple[str, ...]:
    """List the files that a slide consists of: `path`, and its parts for some formats."""
    path = os.path.abspath(path)
    name = path.lower()
    if name.endswith(".mrxs"):
        return (path, *_in_folder(os.path.splitext(path)[0]))
    if name.endswith((".vms", ".vmu")):
        return (path, *_named_in(path))
    if name.endswith(".dcm"):
        return _same_series(path)
    return (path,)


def identity(path: str) -> Identity:
    """State what changes when a file is replaced or written to: (size, mtime_ns, inode)."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def identities(path: str) -> dict[str, Identity]:
    """Take the identity of every file of a slide."""
    return {name: identity(name) for name in slide_files(path)}


def difference(before: dict[str, Identity]) -> str | None:
    """Say which file is gone or no longer the one it was, or None."""
    for name, was in before.items():
        try:
            now = identity(name)
        except OSError:
            return f"{os.path.basename(name)} is gone"
        if now != was:
            return f"{os.path.basename(name)} was changed or replaced"
    return None


def _digest(path: str, samples: int, edge: int) -> bytes:
    size = os.path.getsize(path)
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with open(path, "rb") as file:
        digest.update(file.read(edge))
        for i in range(1, samples + 1):
            file.seek(i * size // (samples + 1))
            digest.update(file.read(_SAMPLE))
        file.seek(max(file.tell(), size - edge))
        digest.update(file.read(edge))
    return digest.digest()


def _sampling(files: tuple[str, ...]) -> tuple[int, int]:
    """(samples, bytes at each end) to read of each file."""
    total = sum(os.path.getsize(name) for name in files)
    if total <= WHOLE:
        return 0, total
    # Fewer of each where there are many, for slow network folders.
    return (_SAMPLES, EDGE) if len(files) == 1 else (1, _SAMPLE)


def _in_folder(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return sorted(entry.path for entry in os.scandir(folder) if entry.is_file())


def _named_in(path: str) -> list[str]:
    """Files beside an INI-like index whose names stand there as values."""
    folder = os.path.dirname(path)
    lines = _head(path).decode("utf-8", "replace").splitlines()
    values = {line.partition("=")[2].strip() for line in lines}
    names = (os.path.join(folder, value) for value in values if value == os.path.basename(value))
    return sorted(name for name in names if os.path.isfile(name))


def _same_series(path: str) -> tuple[str, ...]:
    """All instances beside `path` of its DICOM series, the same list for each of them."""
    uid = _series(path)
    if not uid:
        return (path,)
    beside = _in_folder(os.path.dirname(path))
    instances = [name for name in beside if name.lower().endswith(".dcm")]
    return tuple(sorted({path, *(name for name in instances if _series(name) == uid)}))


def _series(path: str) -> bytes:
    head = _head(path)
    at = head.find(_SERIES_UID)
    if at < 0:
        return b""
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length]


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(EDGE)
    except OSError:
        return b""
