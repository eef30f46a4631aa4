"""Boxes of one level of an OME-Zarr, put together from its chunks.

A chunk that has no file was never written. Writers leave out what holds nothing but the fill
value: on a slide, what was not scanned. So such pixels are not scanned here and have the slide's
background, also where the fill value is 0, which would draw black.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_wsi_heatmap.slides.zarrcodecs import BadChunk
from napari_wsi_heatmap.slides.zarrfolder import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader

    from napari_wsi_heatmap.slides.base import Mask, Rgb
    from napari_wsi_heatmap.slides.zarrarray import Shard, Sizes, StoredArray
    from napari_wsi_heatmap.slides.zarrcodecs import Pixels

_EMPTY = 2**64 - 1
"""Offset and length, in the list of a shard, of a chunk that was never written."""


class Axes(NamedTuple):
    """Which axis of the arrays is which; of the others only the first plane is read."""

    y: int
    x: int
    c: int


class Span(NamedTuple):
    """The part of a chunk along an axis that a box touches, in pixels of the level."""

    number: int
    """Of the chunk along this axis."""
    start: int
    stop: int
    origin: int
    """Where the chunk begins."""

    @property
    def inside(self) -> slice:
        """The part, counted from the start of the chunk."""
        return slice(self.start - self.origin, self.stop - self.origin)


def spans(start: int, stop: int, chunk: int) -> Iterator[Span]:
    """Cut ``start`` to ``stop`` at the borders of chunks."""
    while start < stop:
        number = start // chunk
        end = min(stop, (number + 1) * chunk)
        yield Span(number, start, end, number * chunk)
        start = end


class ChunkDamage(Exception):
    """A chunk cannot be read; says which file, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class ZarrLevel:
    """One resolution of an image.

    Parameters
    ----------
    folder : str
        Of the array.
    array : StoredArray
    axes : Axes
    background : (int, int, int)
        RGB of what was not scanned.
    """

    folder: str
    array: StoredArray
    axes: Axes
    background: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.array.shape[self.axes.y], self.array.shape[self.axes.x]

    @property
    def tile(self) -> tuple[int, int]:
        """(height, width) of what is decoded at once, pixels."""
        return self.array.chunk[self.axes.y], self.array.chunk[self.axes.x]

    def read(self, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        """Read a box inside the level; see `Slide._read`.

        Raises
        ------
        ChunkDamage
            If a chunk under the box cannot be read.
        """
        rgb = np.empty((height, width, 3), np.uint8)
        scanned = np.ones((height, width), bool)
        shape, axes = self.array.file_shape, self.axes
        for row in spans(y, y + height, shape[axes.y]):
            for column in spans(x, x + width, shape[axes.x]):
                place = slice(row.start - y, row.stop - y), slice(column.start - x, column.stop - x)
                with contextlib.ExitStack() as stack:
                    files = [
                        stack.enter_context(ChunkFile(self, row.number, column.number, channels))
                        for channels in spans(0, 3, shape[axes.c])
                    ]
                    self._fill(files, row, column, rgb[place], scanned[place])
        return rgb, None if scanned.all() else scanned

    def _fill(
        self, files: Sequence[ChunkFile], row: Span, column: Span, rgb: Rgb, scanned: Mask
    ) -> None:
        """Fill what is under one file (or one for each channel)."""
        if not any(file.there for file in files):
            rgb[:], scanned[:] = self.background, False
            return
        down, across = self.tile
        for part_row in spans(row.start - row.origin, row.stop - row.origin, down):
            for part_column in spans(
                column.start - column.origin, column.stop - column.origin, across
            ):
                place = (
                    slice(part_row.start - row.inside.start, part_row.stop - row.inside.start),
                    slice(
                        part_column.start - column.inside.start,
                        part_column.stop - column.inside.start,
                    ),
                )
                self._paste(files, part_row, part_column, rgb[place], scanned[place])

    def _paste(
        self, files: Sequence[ChunkFile], row: Span, column: Span, rgb: Rgb, scanned: Mask
    ) -> None:
        """Fill what is under one chunk (or one for each channel)."""
        channels_at_once, found = self.array.chunk[self.axes.c], False
        for file in files:
            for channels in spans(0, file.channels.stop - file.channels.start, channels_at_once):
                pixels = file.pixels(row.number, column.number, channels.number)
                first = file.channels.start + channels.start
                target = rgb[..., first : first + channels.stop - channels.start]
                if pixels is None:
                    # Real pixels, if another channel has been written here.
                    target[:] = self.array.fill
                else:
                    part = self._part(pixels, row.inside, column.inside, channels.inside)
                    self._copy(part, target)
                    found = True
        if not found:
            rgb[:], scanned[:] = self.background, False

    def _part(self, pixels: Pixels, rows: slice, columns: slice, channels: slice) -> Pixels:
        """Cut a part out of a chunk and put its axes into the order (y, x, c)."""
        axes = self.axes
        cut: list[int | slice] = [0] * pixels.ndim
        cut[axes.y], cut[axes.x], cut[axes.c] = rows, columns, channels
        return pixels[tuple(cut)].transpose(np.argsort(np.argsort(axes)))

    def _copy(self, part: Pixels, target: Rgb) -> None:
        if self.axes.c > max(self.axes.y, self.axes.x):
            target[:] = part
            return
        for channel in range(part.shape[2]):  # three times as fast as all at once
            target[..., channel] = part[..., channel]

    def index(self, y: int, x: int, c: int) -> Sizes:
        """Place of a chunk or file along all axes."""
        found = [0] * len(self.array.shape)
        found[self.axes.y], found[self.axes.x], found[self.axes.c] = y, x, c
        return tuple(found)

    def sample_files(self, most: int) -> list[str]:
        """Names of files, evenly spread over the level, whether they are there or not."""
        axes, array = self.axes, self.array
        counts = [-(-array.shape[axis] // array.file_shape[axis]) for axis in axes]
        total = counts[0] * counts[1] * counts[2]
        picked = sorted({i * total // most for i in range(most)})
        names = []
        for flat in picked:
            across, c = divmod(flat, counts[2])
            names.append(array.file(self.index(*divmod(across, counts[1]), c)))
        return names


class ChunkFile:
    """A file that holds a chunk, or a shard of chunks; entered to open it.

    Parameters
    ----------
    level : ZarrLevel
    row, column : int
        Place among the level's files.
    channels : Span
        Channels that it holds.
    """

    def __init__(self, level: ZarrLevel, row: int, column: int, channels: Span) -> None:
        self.level, self.channels = level, channels
        self.name = level.array.file(level.index(row, column, channels.number))
        self._file: BufferedReader | None = None
        self._list: np.ndarray[tuple[int, ...], np.dtype[np.uint64]] | None = None

    def __enter__(self) -> ChunkFile:
        path = os.path.join(self.level.folder, *self.name.split("/"))
        with contextlib.ExitStack() as unless_entered, self._reading():
            unless_entered.callback(self.close)
            with contextlib.suppress(FileNotFoundError):
                self._file = open_regular(path)
            if self._file is not None and self.level.array.shard is not None:
                self._list = self._listed(self._file, self.level.array.shard)
            unless_entered.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._file is not None:
            self._file.close()

    @property
    def there(self) -> bool:
        """False if the file was never written."""
        return self._file is not None

    def pixels(self, row: int, column: int, channels: int) -> Pixels | None:
        """Decode a chunk by its place within the file; None if it was never written."""
        if self._file is None:
            return None
        array = self.level.array
        with self._reading():
            if self._list is None:
                data: bytes | None = self._all(self._file)
            else:
                data = self._in_shard(
                    self._file, self._list[self.level.index(row, column, channels)]
                )
            return None if data is None else array.chain.decode(data, array.chunk)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ChunkDamage(self.name, error.strerror or str(error)) from error
        except BadChunk as error:
            raise ChunkDamage(self.name, f"damaged, {error}") from error

    def _all(self, file: BufferedReader) -> bytes:
        size = os.fstat(file.fileno()).st_size
        if size > self._most():
            raise BadChunk(f"it has {size} bytes, more than its pixels")
        return file.read(size)

    def _most(self) -> int:
        return self.level.array.chain.most_encoded(self.level.array.chunk)

    def _listed(
        self, file: BufferedReader, shard: Shard
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        """Read where the chunks of a shard stand: (…, 2), offset and length."""
        size = os.fstat(file.fileno()).st_size
        if size < shard.list_bytes:
            raise BadChunk("the shard is cut off")
        file.seek(size - shard.list_bytes if shard.at_end else 0)
        data = file.read(shard.list_bytes)
        content = shard.decode_list(data)
        return np.frombuffer(content, "<u8").reshape(*shard.counts, 2)

    def _in_shard(self, file: BufferedReader, entry: Pixels) -> bytes | None:
        offset, length = (int(n) for n in entry)
        if offset == length == _EMPTY:
            return None
        end = os.fstat(file.fileno()).st_size
        if offset + length > end or length > self._most():
            raise BadChunk(f"its shard lists {length} bytes at {offset} of {end}")
        file.seek(offset)
        return file.read(length)


def spread(levels: Sequence[ZarrLevel], finest: int, coarser: int) -> Iterator[str]:
    """Paths of sampled files: `finest` of the first level, `coarser` of each other."""
    for index, level in enumerate(levels):
        for name in level.sample_files(coarser if index else finest):
            yield os.path.join(level.folder, *name.split("/"))
