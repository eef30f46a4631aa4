"""What the headers of a TIFF say, read by hand and believed in nothing.

A few kilobytes of header decide whether a C library allocates 64 GiB or divides by zero, and
whether a file was cut off. So the directories are walked here, in Python, without decoding
anything: classic TIFF, BigTIFF, and NDPI (classic with 64-bit offsets).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAX_DIRECTORIES = 4096
"""A chain longer than this is a loop in disguise; a z-stack of a slide has some hundreds."""
MAX_SUB_DIRECTORIES = 256
"""Of one directory: the coarser levels of a pyramid, of which halving makes twenty at most."""
MAX_ENTRIES = 1 << 17
"""Of all directories of a walk, 40 MB as Python keeps them; a slide has some hundreds."""
MAX_TEXT = 16 << 20
"""Bytes of text that a walk keeps; of each, the first 64 KiB."""
MAX_TABLE = 1 << 24
"""Values of a table (of tiles) that are looked at."""

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 256, 257, 258, 259, 262, 270
SAMPLES, PLANAR, SOFTWARE, TILE_WIDTH, TILE_LENGTH = 277, 284, 305, 322, 323
TILE_OFFSETS, TILE_COUNTS, SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT = 324, 325, 330, 338, 339
STRIP_OFFSETS, STRIP_COUNTS = 273, 279
NDPI_FORMAT = 65420

_NUMBERS = frozenset(
    {WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, TILE_WIDTH, TILE_LENGTH}
    | {EXTRA_SAMPLES, SAMPLE_FORMAT}
)
_TEXTS = frozenset({DESCRIPTION, SOFTWARE})
_MOST_TEXT = 1 << 16
_MOST_NUMBERS = 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}


class BadTiff(ValueError):
    """The headers cannot be followed; the message says why in words for the user."""

    def __init__(self, reason: str, *, cut_off: bool = False) -> None:
        super().__init__(reason)
        self.cut_off = cut_off


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF, as its header describes it."""

    numbers: dict[int, tuple[int, ...]]
    """Unsigned values of the tags that matter, by tag; empty where the type is no such number."""
    texts: dict[int, str]
    entries: dict[int, tuple[int, int, int]] = field(repr=False)
    """(type, count, position of the values in the file) of every tag."""
    repeated: frozenset[int] = frozenset()
    """Tags that stand there more than once."""

    def number(self, tag: int, default: int = 0) -> int:
        """First value of `tag`, or `default` where there is none."""
        values = self.numbers.get(tag, ())
        return values[0] if values else default

    @property
    def tiled(self) -> bool:
        """True if it is stored in tiles (its own tags say so, whatever a reader derives)."""
        return TILE_WIDTH in self.entries or TILE_LENGTH in self.entries

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.number(LENGTH), self.number(WIDTH)

    @property
    def tile(self) -> tuple[int, int]:
        """(height, width) of a tile in pixels; zeros where there are none."""
        return self.number(TILE_LENGTH), self.number(TILE_WIDTH)

    @cached_property
    def samples(self) -> int:
        """Samples per pixel."""
        return self.number(SAMPLES, 1)

    @property
    def claimed(self) -> int:
        """Bytes that the values of all its tags would take."""
        return sum(_SIZES.get(kind, 1) * count for kind, count, _ in self.entries.values())

    @property
    def description(self) -> str:
        """The first 64 KiB of ImageDescription."""
        return self.texts.get(DESCRIPTION, "")


def is_tiff(head: bytes) -> bool:
    """Tell from its first four bytes whether a file calls itself a TIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directories(path: str) -> tuple[Directory, ...]:
    """Read all directories of the main chain.

    Raises
    ------
    BadTiff
        If the chain cannot be followed to its end.
    """
    with open(path, "rb") as file:
        return tuple(Walk(file).run())


def sub_directories(path: str, directory: Directory) -> tuple[Directory, ...]:
    """Read the directories that tag SubIFDs of `directory` lists: coarser levels in OME-TIFF.

    Chains that begin at them are not followed, for nobody writes such.

    Returns
    -------
    tuple of Directory
        In the order listed; empty where the tag is missing.

    Raises
    ------
    BadTiff
        If they are too many, listed twice, or cannot be read.
    """
    if SUB_DIRECTORIES not in directory.entries:
        return ()
    with open(path, "rb") as file:
        return tuple(Walk(file).listed(directory))


def value_bytes(path: str, directory: Directory, tag: int) -> bytes:
    """Return the bytes of a tag as far as they are in the file; none where it is missing."""
    kind, count, place = directory.entries.get(tag, (1, 0, 0))
    with open(path, "rb") as file:
        file.seek(min(place, os.fstat(file.fileno()).st_size))
        return file.read(_SIZES.get(kind, 1) * count)


class Walk:
    """Follows the chain of directories of one open file.

    Memory bound: `MAX_ENTRIES` and `MAX_TEXT`, 100 MB as Python keeps them.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = file.seek(0, os.SEEK_END)
        head = self._bytes(0, 16)
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        self.ndpi = False
        self.entries = self.text = 0
        self.first = self._first(head)

    def _first(self, head: bytes) -> int:
        if self.big:
            return int(self._unpack("Q", head[8:16]))
        narrow, wide = self._unpack("I", head[4:8]), self._unpack("Q", head[4:12])
        for offset in (wide, narrow):
            if self.order == "<" and self._is_ndpi(offset):
                self.ndpi = True
                return int(offset)
        return int(narrow)

    def _is_ndpi(self, offset: int) -> bool:
        if not 8 <= offset <= self.size - 6:
            return False
        raw = self._bytes(offset, 2 + 12 * self._unpack("H", self._bytes(offset, 2)), short=True)
        return any(
            self._unpack("H", raw[at : at + 2]) == NDPI_FORMAT for at in range(2, len(raw) - 11, 12)
        )

    def run(self) -> Iterator[Directory]:
        """Yield directory by directory."""
        seen: set[int] = set()
        offset = self.first
        while offset:
            if offset in seen:
                raise BadTiff("its chain of TIFF directories runs in a circle")
            if len(seen) == MAX_DIRECTORIES:
                raise BadTiff(f"it has more than {MAX_DIRECTORIES} TIFF directories")
            seen.add(offset)
            directory, offset = self._directory(offset)
            yield directory
        if not seen:
            raise BadTiff("it is a TIFF without any image", cut_off=self.size < 64)

    def listed(self, directory: Directory) -> Iterator[Directory]:
        """Yield the directories that lie where SubIFDs says."""
        kind, count, place = directory.entries[SUB_DIRECTORIES]
        if count > MAX_SUB_DIRECTORIES:
            raise BadTiff(f"a TIFF directory lists {count} smaller images")
        offsets = self._values({18: 16}.get(kind, kind), count, place, most=count)
        if len(offsets) != count or len(set(offsets)) < count:
            raise BadTiff("a TIFF directory lists its smaller images wrongly")
        for offset in offsets:
            if offset < 8:
                raise BadTiff("a TIFF directory lists a smaller image inside the file's header")
            yield self._directory(offset)[0]

    def _directory(self, offset: int) -> tuple[Directory, int]:
        head, step = (8, 20) if self.big else (2, 12)
        count = self._unpack("Q" if self.big else "H", self._bytes(offset, head))
        if not 0 < count <= 4096:
            raise BadTiff(f"a TIFF directory claims {count} entries")
        self.entries += count
        if self.entries > MAX_ENTRIES:
            raise BadTiff(f"its TIFF directories have more than {MAX_ENTRIES} entries")
        at = offset + head + step * count
        raw = self._bytes(offset + head, step * count)
        high = self._high_words(at + 8, count) if self.ndpi else (0,) * count
        wide = self.big or self.ndpi
        following = self._unpack("Q" if wide else "I", self._bytes(at, 8 if wide else 4))
        found = [self._entry(raw, i * step, offset + head, high[i]) for i in range(count)]
        return self._describe(found), int(following)

    def _high_words(self, at: int, count: int) -> tuple[int, ...]:
        raw = self._bytes(at, 4 * count, short=True)
        return struct.unpack(f"<{count}I", raw.ljust(4 * count, b"\0"))

    def _entry(self, raw: bytes, at: int, base: int, high: int) -> tuple[int, tuple[int, int, int]]:
        tag, kind = struct.unpack_from(self.order + "HH", raw, at)
        word, room = ("Q", 8) if self.big else ("I", 4)
        count = self._unpack(word, raw[at + 4 : at + 4 + room])
        inline = at + 4 + room
        if _SIZES.get(kind, 1) * count <= room:
            return tag, (kind, count, base + inline)
        place = self._unpack(word, raw[inline : inline + room]) | high << 32
        return tag, (kind, count, int(place))

    def _describe(self, found: list[tuple[int, tuple[int, int, int]]]) -> Directory:
        entries: dict[int, tuple[int, int, int]] = {}
        repeated = set()
        for tag, entry in found:
            if tag in entries:
                repeated.add(tag)
            entries.setdefault(tag, entry)
        numbers = {tag: self._values(*entries[tag]) for tag in _NUMBERS if tag in entries}
        texts = {tag: self._text(*entries[tag]) for tag in _TEXTS if tag in entries}
        return Directory(numbers, texts, entries, frozenset(repeated))

    def _values(
        self, kind: int, count: int, place: int, most: int = _MOST_NUMBERS
    ) -> tuple[int, ...]:
        code, count = _UNSIGNED.get(kind), min(count, most)
        if code is None:
            return ()
        raw = self._bytes(place, _SIZES[kind] * count)
        return struct.unpack(f"{self.order}{count}{code}", raw)

    def _text(self, kind: int, count: int, place: int) -> str:
        if kind not in (1, 2, 7):
            return ""
        raw = self._bytes(place, min(count, _MOST_TEXT), short=True)
        self.text += len(raw)
        if self.text > MAX_TEXT:
            raise BadTiff(f"its TIFF directories hold more than {MAX_TEXT >> 20} MiB of text")
        return raw.split(b"\0")[0].decode("utf-8", "replace")

    def block(self, directory: Directory, tag: int, first: int, most: int) -> NDArray[np.int64]:
        """Return up to `most` values of a long tag from the `first` on, as far as they are there.

        A table may claim more than the file holds, and readers take what they need of it.
        """
        kind, count, place = directory.entries.get(tag, (0, 0, 0))
        if kind not in _UNSIGNED:
            return np.empty(0, np.int64)
        size = _SIZES[kind]
        number = min(most, min(count, MAX_TABLE, max(0, self.size - place) // size) - first)
        if number <= 0:
            return np.empty(0, np.int64)
        raw = self._bytes(place + size * first, size * number)
        values = np.frombuffer(raw, f"{self.order}u{size}").astype(np.uint64)
        # Sums of two must not overflow; no file is that long.
        return np.minimum(values, np.uint64(1 << 61)).astype(np.int64)

    def _unpack(self, code: str, raw: bytes) -> int:
        return int(struct.unpack(self.order + code, raw)[0])

    def _bytes(self, at: int, length: int, *, short: bool = False) -> bytes:
        if at + length > self.size and not short:
            raise BadTiff("a TIFF directory lies beyond the end of the file", cut_off=True)
        self.file.seek(min(at, self.size))
        return self.file.read(length)
