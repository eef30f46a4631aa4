"""Where the pixels of a Zarr array lie: shape, chunks, names of files, codecs; formats 2 and 3.

Only what a slide needs, arrays of uint8, is read here, straight from the JSON: reading through
the zarr library costs a task of its event loop and a copy for each chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import SlideOpenError, one_line
from napari_wsi_heatmap.slides.zarrcodecs import CHECKSUM, CRC32C, DECODERS, Chain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.slides.zarrfolder import Node, ZarrFolder

    Sizes = tuple[int, ...]

MOST_BYTES = 64 << 20
"""Of one decoded chunk: 8192 x 8192 pixels of one channel, or 4096 x 4096 of three and more."""
MOST_IN_SHARD = 1 << 20
"""Chunks in a shard; their list has 16 bytes for each."""
MOST_AXES = 8
_ENTRY = 16
_RGB8 = "convert it to 8-bit RGB"
_WRITE_AGAIN = "write it again with blosc, zstd or gzip"


@dataclass(frozen=True)
class Shard:
    """Where the list of a shard's chunks stands."""

    counts: Sizes
    """Chunks along each axis."""
    at_end: bool
    checked: bool
    """The list has a checksum."""

    @property
    def list_bytes(self) -> int:
        """Length of the list."""
        return math.prod(self.counts) * _ENTRY + self.checked * CHECKSUM

    def decode_list(self, data: bytes) -> bytes:
        """Check the list's checksum, if it has one, and return it without."""
        return bytes(DECODERS[CRC32C](data, len(data))) if self.checked else data


@dataclass(frozen=True)
class StoredArray:
    """An array of uint8 and how its files are named and decoded."""

    place: str
    shape: Sizes
    file_shape: Sizes
    """Of what one file holds: a chunk, or a shard of several."""
    chunk: Sizes
    """Of what is decoded at once."""
    prefix: str
    separator: str
    chain: Chain
    fill: int = 0
    shard: Shard | None = None

    def file(self, index: Sizes) -> str:
        """Name of a file within the array's folder, from its place among the files."""
        return self.prefix + self.separator.join(map(str, index))


def stored_array(folder: ZarrFolder, node: Node) -> StoredArray:
    """Understand the metadata of an array.

    Raises
    ------
    SlideOpenError
        If they make no sense, or say something that is not read here.
    """
    return _Reader(folder, node).array()


class _Reader:
    """Reads one array's metadata; every refusal names the array."""

    def __init__(self, folder: ZarrFolder, node: Node) -> None:
        self.folder, self.node, self.metadata = folder, node, node.metadata

    def array(self) -> StoredArray:
        self._check_dtype()
        array = self._second() if self.node.zarr_format == 2 else self._third()
        self._check_sizes(array)
        return array

    def _check_dtype(self) -> None:
        found = self.metadata.get("dtype" if self.node.zarr_format == 2 else "data_type")
        if found not in ("uint8", "|u1", "<u1", ">u1"):
            name = _NUMPY.get(str(found)[1:], found)
            raise self._not_read(f"its pixels are {one_line(name, 60)}, not uint8", _RGB8)

    def _second(self) -> StoredArray:
        chunk = self._sizes("chunks")
        separator = self.metadata.get("dimension_separator") or "."
        codecs = [*self._list("filters"), self.metadata.get("compressor")]
        names = tuple(self._name(codec, "id") for codec in codecs if codec is not None)
        backwards = self.metadata.get("order") == "F" and len(chunk) > 1
        order = tuple(reversed(range(len(chunk)))) if backwards else None
        return StoredArray(
            *(self.node.place, self._sizes("shape"), chunk, chunk),
            *("", self._separator(separator), Chain(names, order), self._fill()),
        )

    def _third(self) -> StoredArray:
        grid = self._part(self.metadata.get("chunk_grid"))
        if grid[0] != "regular" or self._list("storage_transformers"):
            raise self._not_read("its chunks are not of one size", "write it again in chunks")
        outer, codecs = self._sizes("chunk_shape", grid[1]), self._list("codecs")
        chunk, shard = outer, None
        if codecs and self._part(codecs[0])[0] == "sharding_indexed":
            chunk, shard = self._shard(outer, codecs)
            codecs = self._list("codecs", self._part(codecs[0])[1])
        return StoredArray(
            *(self.node.place, self._sizes("shape"), outer, chunk, *self._keys()),
            *(self._chain(codecs, len(chunk)), self._fill(), shard),
        )

    def _keys(self) -> tuple[str, str]:
        """(prefix, separator) of the names of files."""
        name, settings = self._part(self.metadata.get("chunk_key_encoding"))
        if name not in ("default", "v2"):
            raise self._not_read(f"its files are named by {one_line(name, 40)!r}", _WRITE_AGAIN)
        usual = "/" if name == "default" else "."
        separator = self._separator(settings.get("separator", usual))
        return ("c" + separator if name == "default" else ""), separator

    def _shard(self, outer: Sizes, codecs: Sequence[Any]) -> tuple[Sizes, Shard]:
        settings = self._part(codecs[0])[1]
        chunk = self._sizes("chunk_shape", settings)
        fits = len(chunk) == len(outer) and all(
            o % c == 0 for o, c in zip(outer, chunk, strict=True)
        )
        counts = tuple(o // c for o, c in zip(outer, chunk, strict=True)) if fits else (0,)
        index = [self._part(codec) for codec in self._list("index_codecs", settings)]
        known = [name for name, _ in index] in (["bytes"], ["bytes", CRC32C])
        if not known or index[0][1].get("endian", "little") != "little" or len(codecs) > 1:
            raise self._not_read("its shards are encoded in a way that is not read", _WRITE_AGAIN)
        if not 0 < math.prod(counts) <= MOST_IN_SHARD:
            raise self.folder.damaged(f"shards of {outer} cannot hold chunks of {chunk}")
        return chunk, Shard(counts, settings.get("index_location") != "start", len(index) > 1)

    def _chain(self, codecs: Sequence[Any], axes: int) -> Chain:
        parts = [self._part(codec) for codec in codecs]
        order = None
        if parts and parts[0][0] == "transpose":
            order = self._order(parts.pop(0)[1].get("order"), axes)
        if not parts or parts.pop(0)[0] != "bytes":
            raise self._unknown(self._part(codecs[0])[0] if codecs else "none")
        return Chain(
            tuple(self._name(codec, "name") for codec in codecs[-len(parts) :] if parts), order
        )

    def _order(self, order: Any, axes: int) -> Sizes | None:
        usual = tuple(range(axes))
        if order in ("C", "F"):
            order = usual if order == "C" else usual[::-1]
        axes_there = isinstance(order, list | tuple) and all(type(n) is int for n in order)
        if not axes_there or tuple(sorted(order)) != usual:
            raise self.folder.damaged(f"{self.node.place} has no order of axes")
        return None if tuple(order) == usual else tuple(order)

    def _name(self, codec: Any, key: str) -> str:
        name = str(codec.get(key) if isinstance(codec, dict) else codec)
        name = name.removeprefix("numcodecs.")
        if name not in DECODERS:
            raise self._unknown(name)
        return name

    def _unknown(self, name: str) -> SlideOpenError:
        return self._not_read(f"its codec {one_line(name, 40)!r} is not read here", _WRITE_AGAIN)

    def _not_read(self, what: str, do: str) -> SlideOpenError:
        return SlideOpenError(what, f"{self.folder.path}, array {self.node.place!r}", do)

    def _part(self, part: Any) -> tuple[str, dict[str, Any]]:
        """(name, configuration) of an extension point of Zarr 3."""
        if not isinstance(part, dict):
            return str(part), {}
        settings = part.get("configuration")
        return str(part.get("name")), settings if isinstance(settings, dict) else {}

    def _list(self, key: str, within: dict[str, Any] | None = None) -> list[Any]:
        found = (self.metadata if within is None else within).get(key)
        return found if isinstance(found, list) else []

    def _sizes(self, key: str, within: dict[str, Any] | None = None) -> Sizes:
        found = self._list(key, within)
        if not 2 <= len(found) <= MOST_AXES or not all(type(n) is int and n > 0 for n in found):
            raise self.folder.damaged(
                f"{self.node.place} has {key} {one_line(found, 60) if found else 'none'}"
            )
        return tuple(found)

    def _separator(self, found: Any) -> str:
        if found not in (".", "/"):
            raise self.folder.damaged(f"{self.node.place} separates by {one_line(found, 20)!r}")
        return str(found)

    def _fill(self) -> int:
        found = self.metadata.get("fill_value")
        return found if type(found) is int and 0 <= found <= 255 else 0

    def _check_sizes(self, array: StoredArray) -> None:
        if not len(array.shape) == len(array.file_shape) == len(array.chunk):
            raise self.folder.damaged(f"{array.place} has chunks of another number of axes")
        if math.prod(array.chunk) > MOST_BYTES:
            sides = " x ".join(map(str, array.chunk))
            raise self._not_read(
                f"its chunks are {one_line(sides, 60)}, more than {MOST_BYTES >> 20} MB",
                "write it again in smaller chunks",
            )


_NUMPY = {
    "u2": "uint16", "u4": "uint32", "u8": "uint64", "i1": "int8", "i2": "int16", "i4": "int32",
    "i8": "int64", "f2": "float16", "f4": "float32", "f8": "float64", "b1": "bool",
    "O": "Python objects",
}  # fmt: skip
