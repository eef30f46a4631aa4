"""LZW as TIFF has it, decoded by libtiff.

imagecodecs' own decoder is faster to call and crashes the process on damaged data where it is
given the array to fill; where it is not, what it allocates is up to the data. libtiff does
neither, and is faster. It takes files, so the bytes of a tile get the shortest header there is.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

_SHORT, _LONG = 3, 4
_DIRECTORY = 8
"""Where the only directory of the header starts."""


def decode(data: bytes, tile: tuple[int, int], samples: int) -> Any:
    """Return the pixels of a tile.

    Parameters
    ----------
    data : bytes
        LZW, most significant bit first as in TIFF 6.0, or as older writers had it.
    tile : (int, int)
        (height, width) in pixels.
    samples : int
        Values of 8 bits a pixel.

    Returns
    -------
    (height, width[, samples]) uint8

    Raises
    ------
    imagecodecs.TiffError
        If the data are damaged or too short.
    """
    import imagecodecs

    header, count_at = _header(tile, samples)
    count = struct.pack("<I", len(data))
    return imagecodecs.tiff_decode(
        b"".join([header[:count_at], count, header[count_at + 4 :], data])
    )


@functools.lru_cache(maxsize=64)
def _header(tile: tuple[int, int], samples: int) -> tuple[bytes, int]:
    """A TIFF of one strip up to its data, and the place in it of their length."""
    number = 9
    bits = _DIRECTORY + 2 + 12 * number + 4
    start = bits + 2 * samples
    entries = (
        (256, _LONG, 1, tile[1]),
        (257, _LONG, 1, tile[0]),
        (258, _SHORT, samples, bits if samples > 2 else 8),
        (259, _SHORT, 1, 5),
        (262, _SHORT, 1, 2 if samples == 3 else 1),
        (273, _LONG, 1, start),
        (277, _SHORT, 1, samples),
        (278, _LONG, 1, tile[0]),
        (279, _LONG, 1, 0),
    )
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = struct.pack("<2sHIH", b"II", 42, _DIRECTORY, number) + directory
    whole = head + bytes(4) + struct.pack("<H", 8) * samples
    return whole, len(head) - 4
