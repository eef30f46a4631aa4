"""Compressed bytes of a TIFF tile -> its pixels: one small function for each codec.

What decides is the codec's number and a few tags. A codec that is not sure of its input raises:
a tile is right or it is an error, never grey in place of what was lost. JPEG goes through
simplejpeg (libjpeg-turbo), which takes libjpeg's warnings for the errors that they are;
imagecodecs' own JPEG decoder drops them, and half a tile comes out grey.

Nothing is allocated by what a tile's own header claims; see `_check_jpeg2k`.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import simplejpeg

from napari_wsi_heatmap.slides import lzw
from napari_wsi_heatmap.slides.metadata import COMPRESSIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
"""Values of PhotometricInterpretation."""


class TileError(ValueError):
    """A tile's bytes do not decode to its pixels; one line."""


@dataclass(frozen=True)
class Coding:
    """All that decides how the bytes of a tile become pixels."""

    compression: int
    tile: tuple[int, int]
    """(height, width) in pixels."""
    samples: int
    """Values a pixel in one tile: 3, or 1 (grey, or one plane of planar RGB)."""
    photometric: int
    predictor: int = 1
    tables: bytes = b""
    """JPEGTables of the directory, an abbreviated JPEG stream."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, samples) of a decoded tile."""
        return (*self.tile, self.samples)


class Decode(Protocol):
    """Decodes tiles of one coding."""

    def __call__(self, data: bytes, out: Pixels | None = None) -> Pixels:
        """Return (height, width, samples) uint8, perhaps in `out`, which has that shape.

        Raises
        ------
        TileError
        """
        ...


class _Decoder(Protocol):
    def __call__(self, data: bytes, coding: Coding) -> Any: ...


def decoder(coding: Coding) -> Decode | None:
    """Return the function that decodes such tiles, or None where there is none.

    Returns
    -------
    Decode or None
    """
    if coding.compression == 7:
        return _jpeg(coding)
    raw = _DECODERS.get(coding.compression)
    if raw is None or (coding.predictor != 1 and coding.compression not in _PREDICTED):
        return None
    return functools.partial(_checked, raw, coding)


def _checked(raw: _Decoder, coding: Coding, data: bytes, out: Pixels | None = None) -> Pixels:
    """Decode; whatever goes wrong inside a codec becomes a `TileError`."""
    try:
        pixels = np.asarray(raw(data, coding))
        if pixels.dtype != np.uint8 or pixels.size != np.prod(coding.shape):
            raise TileError(f"it decodes to {pixels.dtype} {pixels.shape}, not {coding.shape}")
    except TileError:
        raise
    # Each codec of imagecodecs has its own exception, derived from RuntimeError.
    except Exception as error:
        name = COMPRESSIONS.get(coding.compression, "codec")
        raise TileError(f"{name}: {str(error) or type(error).__name__}") from error
    pixels = pixels.reshape(coding.shape)
    return pixels if coding.predictor == 1 else _undo_differences(pixels)


def _undo_differences(pixels: Pixels) -> Pixels:
    import imagecodecs

    return np.asarray(imagecodecs.delta_decode(pixels, axis=1))


_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""APP14 marker of a JPEG; the byte that follows says: 0 RGB, 1 YCbCr."""
_SCAN, _JFIF, _ADOBES = 0xDA, 0xE0, 0xEE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG: what follows is compressed; APP0; APP14; what states its size."""


def _jpeg(coding: Coding) -> Decode | None:
    """Decode JPEG tiles, their colours by the TIFF's tags, as all readers of TIFF do."""
    if coding.samples == 3 and coding.photometric not in (RGB, YCBCR):
        return None
    transform = b"\x01" if coding.photometric == YCBCR else b"\x00"
    adobe = _ADOBE + transform if coding.samples == 3 else b""
    tables = coding.tables.removesuffix(b"\xff\xd9") or b"\xff\xd8"
    return functools.partial(_decode_jpeg, coding, tables + adobe)


def _decode_jpeg(coding: Coding, start: bytes, data: bytes, out: Pixels | None = None) -> Pixels:
    if data[:2] != b"\xff\xd8":
        raise TileError(f"Not a JPEG file: starts with {_hex(data[:2])}")
    plain = b"".join([start, *_plain_jpeg(data, coding)])
    pixels = np.empty(coding.shape, np.uint8) if out is None else out
    try:
        # Into a buffer of the right size: its own header may claim gigabytes.
        decoded = simplejpeg.decode_jpeg(
            plain,
            colorspace="RGB" if coding.samples == 3 else "GRAY",
            buffer=pixels,
            strict=True,
        )
    except ValueError as error:
        raise TileError(f"JPEG: {error}") from error
    _check_jpeg(decoded.shape, coding)
    return pixels


def _plain_jpeg(data: bytes, coding: Coding) -> list[bytes]:
    """Parts of a JPEG after its first marker, less those in which it states its own colours.

    They may contradict the TIFF's tags, by which every reader of TIFF goes.
    """
    parts, start, at = [], 2, 2
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] in _FRAMES:
            _check_jpeg(struct.unpack_from(">HHB", data, at + 5), coding)
        elif data[at + 1] in (_JFIF, _ADOBES):
            parts.append(data[start:at])
            start = stop
        at = stop
    return [*parts, data[start:]]


def _check_jpeg(shape: tuple[int, ...], coding: Coding) -> None:
    if shape != coding.shape:
        raise TileError(f"the JPEG is {shape}, its tile {coding.shape}")


def _hex(data: bytes) -> str:
    return " ".join(f"0x{byte:02x}" for byte in data) or "nothing"


def _jpeg2k(data: bytes, coding: Coding) -> Any:
    import imagecodecs

    _check_jpeg2k(data, coding)
    return imagecodecs.jpeg2k_decode(data, planar=False)


def _jpeg2k_ycbcr(data: bytes, coding: Coding) -> Any:
    return rgb_of_ycbcr(_jpeg2k(data, coding))


def _jpeg2k_by_tag(data: bytes, coding: Coding) -> Any:
    return (_jpeg2k_ycbcr if coding.photometric == YCBCR else _jpeg2k)(data, coding)


def _check_jpeg2k(data: bytes, coding: Coding) -> None:
    """Compare the codestream's own header with the tile, before anything is allocated by it."""
    if data[:4] != b"\xff\x4f\xff\x51":
        raise TileError("Expected a SOC marker")
    try:
        width, height, left, top, tile_w, tile_h = struct.unpack_from(">6I", data, 8)
        (components,) = struct.unpack_from(">H", data, 40)
        kinds = struct.unpack_from(f">{3 * components}B", data, 42)
    except struct.error as error:
        raise TileError("its JPEG 2000 header is cut off") from error
    if (height - top, width - left, components) != coding.shape:
        raise TileError(
            f"the JPEG 2000 is {(height - top, width - left, components)}, its tile {coding.shape}"
        )
    if tile_w < 16 or tile_h < 16 or set(kinds[1::3]) != {1} or set(kinds[2::3]) != {1}:
        raise TileError("its JPEG 2000 has subsampled colours or tiny tiles")


def rgb_of_ycbcr(pixels: Pixels) -> Pixels:
    """Full-range YCbCr to RGB, the transform of JFIF (ITU-T T.871).

    Parameters
    ----------
    pixels : (H, W, 3) uint8

    Returns
    -------
    (H, W, 3) uint8
        Each sum rounded half up.
    """
    red, green, blue = _ycbcr_tables()
    luma = pixels[..., 0].astype(np.int16)
    cb, cr = pixels[..., 1], pixels[..., 2]
    rgb = np.stack([luma + red[cr], luma + green[cb, cr], luma + blue[cb]], axis=-1)
    return np.clip(rgb, 0, 255).astype(np.uint8)


@functools.cache
def _ycbcr_tables() -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    chroma = np.arange(256) - 128.0
    red = np.floor(1.402 * chroma + 0.5)
    green = np.floor(-0.34414 * chroma[:, None] - 0.71414 * chroma + 0.5)
    blue = np.floor(1.772 * chroma + 0.5)
    return red.astype(np.int16), green.astype(np.int16), blue.astype(np.int16)


def _stored(data: bytes, coding: Coding) -> Any:
    needed = coding.tile[0] * coding.tile[1] * coding.samples
    if len(data) < needed:
        raise TileError(f"{len(data)} bytes where {needed} are needed")
    return np.frombuffer(data, np.uint8, needed)


def _bytes_of(name: str) -> _Decoder:
    """Codecs of imagecodecs that give bytes: into a buffer of the tile's size and no more."""

    def decode(data: bytes, coding: Coding) -> Any:
        import imagecodecs

        pixels = np.empty(coding.shape, np.uint8)
        out = pixels.reshape(-1)
        got = getattr(imagecodecs, name)(data, out=out)
        if len(got) < out.size:
            raise TileError(f"{len(got)} bytes where {out.size} are needed")
        return pixels

    return decode


def _lzw(data: bytes, coding: Coding) -> Any:
    return lzw.decode(data, coding.tile, coding.samples)


def _webp(data: bytes, coding: Coding) -> Any:
    import imagecodecs

    return imagecodecs.webp_decode(data, hasalpha=False, out=np.empty(coding.shape, np.uint8))


_DECODERS: dict[int, _Decoder] = {
    1: _stored,
    5: _lzw,
    8: _bytes_of("zlib_decode"),
    32773: _bytes_of("packbits_decode"),
    32946: _bytes_of("zlib_decode"),
    33003: _jpeg2k_ycbcr,
    33005: _jpeg2k,
    34712: _jpeg2k_by_tag,
    34925: _bytes_of("lzma_decode"),
    50000: _bytes_of("zstd_decode"),
    50001: _webp,
}
"""By the number of TIFF's tag Compression; 33003 and 33005 are Aperio's."""

_PREDICTED = (5, 8, 32946, 34925, 50000)
"""Codecs before which a writer may have taken differences along rows."""
