"""From the bytes of a Zarr chunk to its pixels: one decoder a codec, each with a bound.

A decoder is told how many bytes it may return, so that a few bytes that claim to be gigabytes
are an error and no allocation. Codecs that run code (pickle) are none of these.
"""

from __future__ import annotations

import bz2
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Decoder = Callable[[Any, int], Any]

CRC32C = "crc32c"
CHECKSUM = 4
"""Bytes that `CRC32C` appends."""
_BLOSC_HEADER = 16
_GZIP_OR_ZLIB = 32 + 15
_SLACK = 4096


class BadChunk(Exception):
    """The bytes of a chunk are not what they should be; says why."""


@dataclass(frozen=True)
class Chain:
    """How the chunks of an array are encoded.

    Parameters
    ----------
    names : tuple of str
        Codecs of bytes, in the order in which they were applied.
    order : tuple of int or None
        Order of the axes in the bytes, if it is not that of the array.
    """

    names: tuple[str, ...]
    order: tuple[int, ...] | None = None

    def decode(self, data: Any, shape: tuple[int, ...]) -> Pixels:
        """Decode a chunk.

        Parameters
        ----------
        data : bytes
        shape : tuple of int
            Of the chunk, in the order of the array's axes.

        Returns
        -------
        `shape` uint8
            A view of the decoded bytes, perhaps not writable.

        Raises
        ------
        BadChunk
            If it cannot be decoded, or not to this many pixels.
        """
        size = math.prod(shape)
        for index, name in reversed(list(enumerate(self.names))):
            data = _decoded(name, data, self._most(size, index))
        if len(data) != size:
            raise BadChunk(f"it holds {len(data)} bytes instead of {size}")
        pixels: Pixels = np.frombuffer(data, np.uint8)
        if self.order is None:
            return pixels.reshape(shape)
        stored = pixels.reshape([shape[axis] for axis in self.order])
        return stored.transpose(np.argsort(self.order))

    def most_encoded(self, shape: tuple[int, ...]) -> int:
        """Bytes that an encoded chunk can have at most; no codec doubles its input."""
        return self._most(math.prod(shape), len(self.names))

    def _most(self, size: int, applied: int) -> int:
        return size if applied == 0 else 2 * size + applied * _SLACK


def _decoded(name: str, data: Any, limit: int) -> Any:
    try:
        decoded = DECODERS[name](data, limit)
    except MemoryError:
        raise
    # Each library has its own; all of imagecodecs derive from RuntimeError.
    except (RuntimeError, ValueError, OSError, EOFError, TypeError, zlib.error) as error:
        raise BadChunk(f"{name}: {error}") from error
    if len(decoded) > limit:
        raise BadChunk(f"{name}: it holds more than {limit} bytes")
    return decoded


def _blosc(data: Any, limit: int) -> Any:
    import imagecodecs

    # The C library trusts these: it is not told how many bytes there are.
    if len(data) < _BLOSC_HEADER:
        raise BadChunk("blosc: cut off")
    size, _, encoded = struct.unpack_from("<III", data, 4)
    if encoded != len(data) or size > limit:
        raise BadChunk(f"blosc: {len(data)} bytes, {encoded} expected, {size} decoded")
    return imagecodecs.blosc_decode(data, out=_room(size)) if size else b""


def _room(size: int) -> Any:
    return np.empty(size, np.uint8).data  # unlike a bytearray not filled with zeros first


def _zstd(data: Any, limit: int) -> Any:
    import imagecodecs

    return imagecodecs.zstd_decode(data, out=_room(limit))


def _lz4(data: Any, limit: int) -> Any:
    import imagecodecs

    # numcodecs writes the number of bytes before them.
    return imagecodecs.lz4_decode(data, header=True, out=_room(limit))


def _zlib(data: Any, limit: int) -> bytes:
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    return _whole(stream, stream.decompress(data, limit + 1))


def _bz2(data: Any, limit: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    return _whole(stream, stream.decompress(data, limit + 1))


def _whole(stream: Any, decoded: bytes) -> bytes:
    if not stream.eof or stream.unused_data:
        raise BadChunk("it is cut off, or holds more than it should")
    return decoded


def _crc32c(data: Any, limit: int) -> Any:
    import google_crc32c

    body, checksum = data[:-CHECKSUM], bytes(data[-CHECKSUM:])
    if google_crc32c.value(bytes(body)).to_bytes(CHECKSUM, "little") != checksum:
        raise BadChunk("its checksum is wrong")
    return body


DECODERS: dict[str, Decoder] = {
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
    "zlib": _zlib,
    "gzip": _zlib,
    "bz2": _bz2,
    CRC32C: _crc32c,
}
"""By name, as ``decoder(data, limit) -> bytes``, without the prefix "numcodecs."."""
