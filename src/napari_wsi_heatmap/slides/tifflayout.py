"""Where the tiles of a TIFF lie, and whether they can be decoded here with certainty.

The headers are read with `tiffheader`, which believes them nothing. Tables of tiles are never
loaded: a region reads the few entries that it needs, so opening costs the same for any slide.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_wsi_heatmap.slides import guard, tiffheader
from napari_wsi_heatmap.slides.file import NotSureError
from napari_wsi_heatmap.slides.metadata import COMPRESSIONS
from napari_wsi_heatmap.slides.tilecodecs import (
    BLACK_IS_ZERO,
    RGB,
    YCBCR,
    Coding,
    decoder,
)

if TYPE_CHECKING:
    from napari_wsi_heatmap.slides.rawfile import RawFile
    from napari_wsi_heatmap.slides.tiffheader import Directory
    from napari_wsi_heatmap.slides.tilecodecs import Decode

    Place = tuple[int, int]

FILL_ORDER, ORIENTATION, PREDICTOR, JPEG_TABLES = 266, 274, 317, 347
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_RATIONAL = 5
_MICRONS = {2: 25400.0, 3: 10000.0}
"""In TIFF's units of resolution, inch and centimetre."""
_JPEG, _JPEG_2000 = 7, (33003, 33005, 34712)
_MOST_TABLES = 1 << 16
"""Bytes of JPEGTables; real ones have some hundreds."""
_KINDS = {3: "H", 4: "I", 13: "I", 16: "Q"}
_BLOCK = 1 << 16
"""Numbers of a table that are in memory at once."""


class Table(NamedTuple):
    """A long tag of numbers that stays in the file."""

    place: int
    kind: str
    """`struct` code of one number."""
    order: str

    def read(self, raw: RawFile, start: int, stop: int) -> tuple[int, ...]:
        """Return the numbers `start` to `stop`."""
        form = f"{self.order}{stop - start}{self.kind}"
        size = struct.calcsize(self.order + self.kind)
        return struct.unpack(form, raw.read(self.place + size * start, struct.calcsize(form)))

    def holds_zero(self, raw: RawFile, number: int) -> bool:
        """Whether one of its first `number` values is 0."""
        size = struct.calcsize(self.order + self.kind)
        for start in range(0, number, _BLOCK):
            length = size * min(_BLOCK, number - start)
            values = np.frombuffer(
                raw.read(self.place + size * start, length), f"{self.order}u{size}"
            )
            if not values.all():
                return True
        return False


@dataclass(frozen=True)
class TiledLevel:
    """One level: its geometry, its codec, and where its tiles lie."""

    shape: tuple[int, int]
    coding: Coding
    decode: Decode
    grid: tuple[int, int]
    """(rows, columns) of tiles."""
    planes: int
    """3 where red, green and blue are stored one after the other, else 1."""
    offsets: Table
    counts: Table

    def places(self, raw: RawFile, row: int, start: int, stop: int) -> list[tuple[Place, ...]]:
        """Look up where the bytes of tiles `start` to `stop` of a row are.

        Returns
        -------
        list of tuple of (int, int)
            For each tile, and each of its planes, (offset, length) in the file; a tile of
            length 0 is missing.
        """
        planes = [self._row(raw, plane, row, (start, stop)) for plane in range(self.planes)]
        return list(zip(*planes, strict=True))

    def misses_tiles(self, raw: RawFile) -> bool:
        """Whether the file does not hold some of its tiles."""
        return self.counts.holds_zero(raw, self.grid[0] * self.grid[1] * self.planes)

    def _row(self, raw: RawFile, plane: int, row: int, columns: tuple[int, int]) -> list[Place]:
        first = (plane * self.grid[0] + row) * self.grid[1]
        span = first + columns[0], first + columns[1]
        return list(zip(self.offsets.read(raw, *span), self.counts.read(raw, *span), strict=True))


class Tags:
    """Reads single tags of the directories of one file."""

    def __init__(self, raw: RawFile) -> None:
        self._raw = raw
        self.order = "<" if raw.read(0, 2) == b"II" else ">"

    def number(self, directory: Directory, tag: int, default: int) -> int:
        """First value of a tag that `Directory` does not hold."""
        kind, count, place = directory.entries.get(tag, (0, 0, 0))
        if kind not in _KINDS or count < 1:
            return default
        return Table(place, _KINDS[kind], self.order).read(self._raw, 0, 1)[0]

    def pixel_size(self, directory: Directory) -> dict[str, str]:
        """µm per pixel by the tags of resolution, named as OpenSlide names them; {} if unsaid."""
        unit = _MICRONS.get(self.number(directory, RESOLUTION_UNIT, 2))
        x, y = (self._ratio(directory, tag) for tag in (X_RESOLUTION, Y_RESOLUTION))
        if not (unit and x and y):
            return {}
        return {"openslide.mpp-x": repr(unit / x), "openslide.mpp-y": repr(unit / y)}

    def _ratio(self, directory: Directory, tag: int) -> float:
        kind, count, place = directory.entries.get(tag, (0, 0, 0))
        if kind != _RATIONAL or count < 1:
            return 0.0
        above, below = Table(place, "I", self.order).read(self._raw, 0, 2)
        return above / below if below else 0.0

    def bytes(self, directory: Directory, tag: int, most: int) -> bytes:
        """Bytes of a tag; raises NotSureError where they are more than `most`."""
        _, count, place = directory.entries.get(tag, (0, 0, 0))
        if count > most:
            raise NotSureError(f"its tag {tag} has {count} bytes")
        return self._raw.read(place, count)

    def table(self, directory: Directory, tag: int, needed: int) -> Table:
        """Table of a tag that has exactly one number a tile."""
        kind, count, place = directory.entries.get(tag, (0, 0, 0))
        if kind not in _KINDS or count != needed:
            raise NotSureError(f"its tag {tag} lists {count} tiles of {needed}")
        return Table(place, _KINDS[kind], self.order)


def tiled_level(
    tags: Tags, directory: Directory, shape: tuple[int, int] | None = None
) -> TiledLevel:
    """Lay out the tiles of a directory.

    Parameters
    ----------
    tags : Tags
    directory : Directory
    shape : (int, int), optional
        (height, width) where a format pads its levels to whole tiles; default: as stored.

    Raises
    ------
    NotSureError
        Where its pixels might come out otherwise than through OpenSlide; says why.
    """
    reason = guard.dangerous(directory) or _doubt(tags, directory)
    if reason:
        raise NotSureError(reason.partition(" - ")[0])
    grid = (
        -(-directory.shape[0] // directory.tile[0]),
        -(-directory.shape[1] // directory.tile[1]),
    )
    planes = 3 if directory.samples == 3 and _planar(directory) else 1
    coding = _coding(tags, directory, planes)
    decode = decoder(coding)
    if decode is None:
        raise NotSureError(f"{_codec_name(coding.compression)} tiles of its kind")
    needed = grid[0] * grid[1] * planes
    return TiledLevel(
        shape or directory.shape,
        coding,
        decode,
        grid,
        planes,
        tags.table(directory, tiffheader.TILE_OFFSETS, needed),
        tags.table(directory, tiffheader.TILE_COUNTS, needed),
    )


def _coding(tags: Tags, directory: Directory, planes: int) -> Coding:
    return Coding(
        directory.number(tiffheader.COMPRESSION, 1),
        directory.tile,
        directory.samples // planes,
        directory.number(tiffheader.PHOTOMETRIC, BLACK_IS_ZERO),
        tags.number(directory, PREDICTOR, 1),
        tags.bytes(directory, JPEG_TABLES, _MOST_TABLES),
    )


def _planar(directory: Directory) -> bool:
    return directory.number(tiffheader.PLANAR, 1) == 2


def _doubt(tags: Tags, directory: Directory) -> str | None:
    """Say why a directory is better left to OpenSlide, or None."""
    return _doubtful_samples(directory) or _doubtful_colours(directory) or _odd(tags, directory)


def _doubtful_samples(directory: Directory) -> str | None:
    if not directory.tiled:
        return "it is not tiled"
    bits = directory.numbers.get(tiffheader.BITS, (1,))
    if set(bits) != {8} or directory.number(tiffheader.SAMPLE_FORMAT, 1) != 1:
        return f"{bits[0] if bits else 0}-bit samples"
    if directory.samples not in (1, 3) or tiffheader.EXTRA_SAMPLES in directory.entries:
        return f"{directory.samples} samples per pixel"
    return None


def _doubtful_colours(directory: Directory) -> str | None:
    compression = directory.number(tiffheader.COMPRESSION, 1)
    photometric = directory.number(tiffheader.PHOTOMETRIC, BLACK_IS_ZERO)
    grey = directory.samples == 1 and photometric == BLACK_IS_ZERO
    coloured = directory.samples == 3 and (
        photometric == RGB or (photometric == YCBCR and compression in (_JPEG, *_JPEG_2000))
    )
    if not grey and not coloured:
        return f"colours of photometric interpretation {photometric}"
    if _planar(directory) and (compression == _JPEG or compression in _JPEG_2000):
        return f"planar {_codec_name(compression)}"
    return None


def _odd(tags: Tags, directory: Directory) -> str | None:
    if tags.number(directory, ORIENTATION, 1) != 1:
        return "it is stored turned"
    if tags.number(directory, FILL_ORDER, 1) != 1:
        return "its bits are stored in reverse"
    if tags.number(directory, PREDICTOR, 1) not in (1, 2):
        return "its predictor"
    return None


def _codec_name(compression: int) -> str:
    return COMPRESSIONS.get(compression, f"compression {compression}")
