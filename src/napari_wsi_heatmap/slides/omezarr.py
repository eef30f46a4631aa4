"""Slides from OME-Zarr folders (0.4 and 0.5): RGB, chunks or shards, read without zarr."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, NoReturn, final

import numpy as np

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import content, metadata, ngff
from napari_wsi_heatmap.slides.base import Level, level_downsample
from napari_wsi_heatmap.slides.file import FileSlide, SlideFile
from napari_wsi_heatmap.slides.ngffscale import SOURCE
from napari_wsi_heatmap.slides.zarrfolder import ZarrFolder, open_regular
from napari_wsi_heatmap.slides.zarrlevel import ChunkDamage, ZarrLevel, spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_wsi_heatmap.slides.base import Mask, Rgb

SAMPLED = 48, 4
"""Files of level 0, and of each coarser level, that stand for all when contents are compared."""
_COPY = "copy or convert it again"


@final
class OmeZarrSlide(FileSlide):
    """An OME-Zarr image of three channels of 8 bits.

    Parameters
    ----------
    path : str
        The folder: an image, or a collection of images as bioformats2raw writes it.
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x), where the folder states none or a wrong one.

    Raises
    ------
    SlideOpenError
        Saying what the folder is instead, or what is damaged, and what to do.

    Notes
    -----
    A chunk without a file was not scanned; see `napari_wsi_heatmap.slides.zarrlevel`. A pixel
    size is believed only with a unit of length.

    `fingerprint` and `changed` look at the metadata and at `SAMPLED` files, since a slide may
    consist of a million.

    Memory bound: one chunk (at most 64 MB) for each thread that reads. Nothing stays open.
    """

    backend = "omezarr"

    def __init__(self, file: str, *, mpp: float | Sequence[float] | None = None) -> None:
        super().__init__(file, mpp=mpp)
        self._closed = False
        image = self._image
        self.levels = tuple(
            Level(one.shape, level_downsample(self._stored[0].shape, one.shape), one.tile)
            for one in self._stored
        )
        self.bounds = (0, 0, *self.levels[0].shape)
        self.format = f"ome-zarr {image.version}"
        self.compression = _compression(image)
        self.properties = _properties(image)
        source = None if image.mpp is None else SOURCE
        self.warnings = (
            *self._calibrate(image.mpp, source, image.missing),
            *image.warnings,
            *metadata.level_warnings(self.levels),
            *_sparse_warnings(self._sampled(level0_only=True)),
        )

    def _look(self, path: str) -> SlideFile:
        try:
            return self._look_at(ZarrFolder(path))
        except OSError as error:
            reason = error.strerror or error
            raise SlideOpenError(f"it cannot be read: {reason}", path) from error

    def _look_at(self, folder: ZarrFolder) -> SlideFile:
        self._image = ngff.read_image(folder)
        self.background = _background(self._image)
        self._stored = tuple(
            ZarrLevel(folder.absolute(array.place), array, self._image.axes, self.background)
            for array in self._image.arrays
        )
        digest = hashlib.sha256()
        for name, text in sorted(folder.files.items()):
            digest.update(_entry(name, folder.path, len(text)) + text)
        sampled = list(self._sampled())
        for name in sampled:
            digest.update(_sample(name, folder.path))
        files = [*folder.files, *(name for name in sampled if os.path.exists(name))]
        self._root = next(iter(folder.files))
        identities = {name: content.identity(name) for name in files}
        return SlideFile(folder.path, identities, digest.hexdigest())

    def _sampled(self, *, level0_only: bool = False) -> Iterator[str]:
        return spread(self._stored[:1] if level0_only else self._stored, *SAMPLED)

    def identity(self) -> content.Identity:
        """(size, mtime_ns, inode) that the folder's metadata file had when it was opened."""
        return self._file.identities[self._root]

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        if self._closed:
            raise SlideReadError("the slide is closed", self.path, "open it again")
        if height == 0 or width == 0:
            return np.empty((height, width, 3), np.uint8), None
        try:
            rgb, scanned = self._stored[level].read(y, x, height, width)
        except ChunkDamage as error:
            self._raise_damage(level, error)
        except MemoryError as error:
            raise SlideReadError("not enough memory", self.path, "read less at once") from error
        if scanned is not None:
            self._refuse_gone(level)
        return rgb, scanned

    def _raise_damage(self, level: int, error: ChunkDamage) -> NoReturn:
        self._refuse_changed()
        where = f"{self.path}, level {level}, chunk {error.name}"
        raise SlideReadError(f"a chunk cannot be read: {error.reason}", where, _COPY) from error

    def _refuse_gone(self, level: int) -> None:
        """Refuse to take the chunks of a folder that went away for ones never written."""
        name = ".zarray" if self._image.zarr_format == 2 else "zarr.json"
        if not os.path.isfile(os.path.join(self._stored[level].folder, name)):
            self._refuse_changed()
            raise SlideReadError("its folder is gone", self.path, "mount or copy it again")

    def close(self) -> None:
        """Refuse further reads; between reads no file is open."""
        self._closed = True


def _background(image: ngff.Image) -> tuple[int, int, int]:
    # 0 is what writers put where nobody chose: black is no colour of glass.
    fill = image.arrays[0].fill
    return (fill, fill, fill) if fill else metadata.WHITE


def _compression(image: ngff.Image) -> str:
    array = image.arrays[0]
    names = ", ".join(array.chain.names) or "none"
    return f"{names} (in shards)" if array.shard else names


def _properties(image: ngff.Image) -> dict[str, str]:
    return {
        "ome-zarr.version": image.version,
        "ome-zarr.zarr-format": str(image.zarr_format),
        "ome-zarr.axes": ",".join(image.axis_names),
        "ome-zarr.name": image.name,
        "ome-zarr.image": image.place or ".",
        "ome-zarr.shape": " x ".join(map(str, image.arrays[0].shape)),
    }


def _sparse_warnings(sampled: Iterator[str]) -> Iterator[str]:
    there = [os.path.exists(name) for name in sampled]
    if not all(there):
        yield (
            f"{1 - sum(there) / len(there):.0%} of its chunks were never written:"
            " they are shown as not scanned"
        )


def _entry(name: str, root: str, size: int) -> bytes:
    return f"{os.path.relpath(name, root).replace(os.sep, '/')}\0{size}\0".encode()


def _sample(name: str, root: str) -> bytes:
    """Name, size, first and last bytes of a file, or that it is not there."""
    try:
        file = open_regular(name)
    except FileNotFoundError:
        return _entry(name, root, -1)
    except OSError as error:
        return _entry(name, root, -2) + str(error.errno).encode()
    with file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(content.EDGE)
        file.seek(max(len(head), size - content.EDGE))
        return _entry(name, root, size) + head + file.read(content.EDGE)
