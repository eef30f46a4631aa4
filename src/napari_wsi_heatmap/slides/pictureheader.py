"""What the headers of a PNG or JPEG say, believed in nothing, before anyone decodes it.

What would take gigabytes or minutes is refused, and of a PNG every checksum and the number of
its bytes are checked: Pillow shows black where there are too few.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = 100_000_000
"""300 MB as RGB."""
MAX_BYTES = 1 << 30
"""Of the file; 100 Mpx of 16-bit RGBA are 0.8 GB uncompressed."""
MAX_PARTS = 200_000
"""Chunks of a PNG or segments of a JPEG; Pillow takes some µs for each."""
MAX_SCANNED = 5_000_000_000
"""Pixels times scans of a progressive JPEG, which is gone through once for each; usual are 10."""
BLOCK = 1 << 20
"""Bytes that are looked at together."""

PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_NO_FRAME = (0xC4, 0xC8, 0xCC)
_ALONE = (0x01, *range(0xD0, 0xD9))
_COLOURS = {1: "L", 3: "RGB", 4: "CMYK"}
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_SAMPLES = {"L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_ADAM7 = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)
"""(y, x, step down, step across) of the passes of an interlaced PNG."""
_CONVERT = "convert it to a tiled pyramid TIFF (vips tiffsave --tile --pyramid)"
_AGAIN = "download or copy it again"


class BadPicture(ValueError):
    """The file cannot be shown; the message is "cause - what to do"."""


@dataclass(frozen=True)
class Header:
    """What a picture says about itself before anything is decoded."""

    format: str
    """"png" or "jpeg"."""
    shape: tuple[int, int]
    bits: int
    mode: str
    """L, RGB, P, LA, RGBA or CMYK."""


def read_header(file: IO[bytes]) -> Header:
    """Check the headers of a picture.

    Parameters
    ----------
    file : binary file

    Raises
    ------
    BadPicture
        If it is none, or would take too much memory or time.
    """
    size = file.seek(0, 2)
    if size > MAX_BYTES:
        raise BadPicture(f"a picture of {size / 1e9:.1f} GB - {_CONVERT}")
    file.seek(0)
    magic = file.read(8)
    if magic == PNG_MAGIC:
        header = _png_header(file, size)
    elif magic.startswith(JPEG_MAGIC):
        header = _jpeg_header(file)
    else:
        raise BadPicture("neither a PNG nor a JPEG picture - open it with napari itself")
    height, width = header.shape
    if height * width == 0:
        raise damaged(f"its header claims {width} x {height} pixels")
    return header


def _limit(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadPicture(
            f"a picture of {width} x {height} pixels, at most {MAX_PIXELS / 1e6:.0f} million"
            f" are read from a file without tiles - {_CONVERT}"
        )


def damaged(reason: str) -> BadPicture:
    """Make the error of a file that is not as it was written."""
    return BadPicture(f"a damaged picture: {reason} - {_AGAIN}")


def _png_header(file: IO[bytes], size: int) -> Header:
    start = file.read(8 + 13 + 4)
    if len(start) < 25 or start[:8] != b"\0\0\0\x0dIHDR":
        raise damaged("it has no header")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", start[8:21])
    _limit(height, width)
    if colour not in _PNG_MODES:
        raise damaged(f"its header claims colour type {colour}")
    mode = _PNG_MODES[colour]
    needed = sum(_bytes(*box, bits * _SAMPLES[mode]) for box in _passes(height, width, interlaced))
    _check_inflated(_png_data(file, size), needed)
    return Header("png", (height, width), bits, mode)


def _passes(height: int, width: int, interlaced: int) -> Iterator[tuple[int, int]]:
    """(height, width) of the pictures that a PNG stores: one, or Adam7's seven."""
    if not interlaced:
        yield height, width
        return
    for y, x, down, across in _ADAM7:
        yield max(0, -(-(height - y) // down)), max(0, -(-(width - x) // across))


def _bytes(height: int, width: int, bits: int) -> int:
    """Bytes of a picture of so many bits per pixel: each line has one more, for its filter."""
    return height * (1 + -(-width * bits // 8)) if width else 0


def _png_data(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Go through all chunks to the last; yield those of pixels in blocks."""
    at = 8
    for _ in range(MAX_PARTS):
        if at + 12 > size:
            break
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if at + 12 + length > size:
            break
        blocks = _checked(file, length, kind)
        if kind == b"IDAT":
            yield from blocks
        elif sum(map(len, blocks)) == 0 and kind == b"IEND":
            return
        at += 12 + length
    else:
        raise damaged(f"it has more than {MAX_PARTS} chunks")
    raise damaged("it is cut off")


def _checked(file: IO[bytes], length: int, kind: bytes) -> Iterator[bytes]:
    # Pillow leaves out the last checksums once it has all pixels.
    found = zlib.crc32(kind)
    while length and (block := file.read(min(length, BLOCK))):
        found, length = zlib.crc32(block, found), length - len(block)
        yield block
    if length or file.read(4) != found.to_bytes(4, "big"):
        raise damaged(f"a checksum of its chunk {kind!r} does not fit")


def _check_inflated(blocks: Iterator[bytes], needed: int) -> None:
    stream, found = zlib.decompressobj(), 0
    for block in blocks:
        while block and found < needed and not stream.eof:
            try:
                found += len(stream.decompress(block, BLOCK))
            except zlib.error as error:
                raise damaged(f"its pixels cannot be inflated: {error}") from error
            block = stream.unconsumed_tail
    if found < needed:
        raise damaged(f"of {needed} bytes of its pixels it holds {found}")


def _jpeg_header(file: IO[bytes]) -> Header:
    header: Header | None = None
    file.seek(2)
    for _ in range(MAX_PARTS):
        marker, length = _segment(file)
        if marker == 0xDA and header is not None:
            _limit_scans(file, *header.shape)
            return header
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            header = _frame(file.read(6))
            length -= 6
        file.seek(length, 1)
    raise damaged(f"it has more than {MAX_PARTS} segments")


def _segment(file: IO[bytes]) -> tuple[int, int]:
    """Read the marker of a JPEG and the length of what follows it."""
    found = file.read(2)
    while found[1:] == b"\xff" or (len(found) == 2 and found[1] in _ALONE):
        # Padding, and markers without a length.
        found = found[1:] + file.read(1) if found[1:] == b"\xff" else file.read(2)
    length = file.read(2)
    if len(found) < 2 or found[0] != 0xFF or len(length) < 2:
        raise damaged("it is cut off, or its header is broken")
    return found[1], int.from_bytes(length, "big") - 2


def _frame(raw: bytes) -> Header:
    if len(raw) < 6:
        raise damaged("it is cut off")
    bits, height, width, components = struct.unpack(">BHHB", raw)
    _limit(height, width)
    if bits != 8 or components not in _COLOURS:
        raise BadPicture(f"a JPEG of {components} components of {bits} bit - {_CONVERT}")
    return Header("jpeg", (height, width), bits, _COLOURS[components])


def _limit_scans(file: IO[bytes], height: int, width: int) -> None:
    scans, last = 0, b""
    file.seek(0)
    while block := file.read(BLOCK):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:]
    if scans * height * width > MAX_SCANNED:
        raise BadPicture(f"a JPEG of {scans} scans, which would take minutes - {_CONVERT}")
