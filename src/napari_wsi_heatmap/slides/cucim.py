"""Slides through cuCIM: JPEG and deflated tiles, decoded on the CPU or on a GPU."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any, final

import numpy as np
import openslide

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import cells, metadata, probe, tiffheader
from napari_wsi_heatmap.slides.cucim_worker import Worker, WorkerError, Workers
from napari_wsi_heatmap.slides.file import FileSlide, NotSureError
from napari_wsi_heatmap.slides.openslide import OpenSlideSlide, composite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Mask, Rgb
    from napari_wsi_heatmap.slides.file import SlideFile
    from napari_wsi_heatmap.slides.tiffheader import Directory

if importlib.util.find_spec("cucim") is None:
    raise ImportError("No module named 'cucim'")

VENDORS = ("aperio", "generic-tiff", "philips")
"""By OpenSlide's names; cuCIM opens no other, or joins its tiles wrongly (Trestle)."""
COMPRESSIONS = (1, 5, 7, 8, 32946)
"""Of TIFF. JPEG 2000 is not among them: see `CucimSlide`."""
STRIP = 48 << 20
"""Bytes that are read at once; more where one row of tiles holds more."""
LEAST_STEP = 1.5
"""Downsample from one level to the next below which cuCIM's 32-bit positions are not exact."""
SURE_SIDE = 256
"""Side of the box of each level that is compared with OpenSlide's."""
GPU_DIFFERENCE = 2.0
"""Grey levels by which that box may differ on average when a GPU decodes it."""


@final
class CucimSlide(FileSlide):
    """A tiled TIFF (Aperio SVS, Philips, generic), its pixels read by cuCIM.

    Parameters
    ----------
    file : str or SlideFile
        The file, or what `look` found out about it.
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x), where the file states none or a wrong one.
    device : str
        "cpu", "cuda" or "cuda:0": what decodes. It is recorded in `properties` as
        ``cucim.device``. JPEG from a GPU is not the same bit by bit, which is a warning; `backend`
        is "cucim" either way.

    Raises
    ------
    NotSureError
        If cuCIM does not read this file, or not the pixels that OpenSlide reads. JPEG 2000 is
        refused: of a lossy slide 1 value in 4 million comes out one grey level off, of YCbCr
        tiles one in five.
    SlideOpenError
        With the true cause, and what to do.

    Notes
    -----
    What the slide says about itself comes from OpenSlide. cuCIM runs in processes of its own,
    since it crashes on some damaged files and is silent about other damage (`cucim_child`).
    Deflated tiles are inflated twice for that.

    Memory bound: 60 MB and `STRIP` for each process, of which there are as many as threads that
    read, at most `cucim_worker.MOST` or the number of processors.
    """

    backend = "cucim"

    def __init__(
        self,
        file: str | SlideFile,
        *,
        mpp: float | Sequence[float] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(file, mpp=mpp)
        self.device = _known_device(device, self.path)
        if not probe.has_interpreter():
            raise NotSureError("there is no Python interpreter to run cuCIM in", self.path)
        tiled = [directory for directory in self._file.directories if directory.tiled]
        _refuse_unread(tiled, self.path)
        self._beside = OpenSlideSlide(self._file, mpp=mpp)
        self._workers = Workers(self._start_worker, self.path)
        try:
            self._describe()
            self._place_tiles(tiled)
            self._refuse_other_levels()
            self._refuse_other_pixels()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        beside = self._beside
        self.format, self.compression = beside.format, beside.compression
        self.levels, self.bounds, self.background = beside.levels, beside.bounds, beside.background
        self.mpp, self.mpp_source = beside.mpp, beside.mpp_source
        self.objective_power = beside.objective_power
        self.properties = {**beside.properties, "cucim.device": self.device}
        self.warnings = tuple(w for w in beside.warnings if "OpenSlide interpolates" not in w)
        if self.device != "cpu":
            self.warnings += (
                f"decoded by {self.device}: JPEG pixels differ from a CPU's by some grey levels",
            )

    def _place_tiles(self, tiled: list[Directory]) -> None:
        if self.format not in VENDORS:
            raise NotSureError(f"cuCIM does not read {self.format} slides", self.path)
        tiled = sorted(tiled, key=lambda directory: directory.shape, reverse=True)
        if len(tiled) != len(self.levels):
            raise NotSureError(
                f"it has {len(tiled)} tiled images and {len(self.levels)} levels", self.path
            )
        self._layout = [_layout(self.path, directory) for directory in tiled]
        self._missing = [_missing(self.path, level) for level in self._layout]
        if self.format == "aperio" and any(missing.any() for missing in self._missing):
            # There OpenSlide also hides what lies below a missing tile in coarser levels.
            raise NotSureError("an Aperio slide with missing tiles", self.path)

    def _start_worker(self) -> Worker:
        self._refuse_changed()
        return Worker({"path": self.path, "device": self.device, "levels": self._layout})

    def _refuse_other_levels(self) -> None:
        try:
            with self._workers.borrow() as worker:
                found = worker.found
            self.properties = {**self.properties, "cucim.version": found["version"]}
        except WorkerError as error:
            raise NotSureError(f"cuCIM cannot open it: {error}", self.path) from error
        if [tuple(shape) for shape in found["shapes"]] != [level.shape for level in self.levels]:
            raise NotSureError(f"cuCIM finds other levels: {found['shapes']}", self.path)
        if any(downsample < LEAST_STEP for downsample in found["downsamples"][1:]):
            raise NotSureError("a level is hardly smaller than level 0", self.path)

    def _refuse_other_pixels(self) -> None:
        for index in range(len(self.levels)):
            y, x, expected = _openslide_box(self.path, index, self.background)
            if expected is None:
                continue  # damaged there, so there is nothing to compare
            try:
                got = self.read_region(index, y, x, *expected.shape[:2])
            except SlideReadError as error:
                raise NotSureError(error.what, self.path) from error
            off = np.abs(got.astype(np.int16) - expected)
            if off.mean() > (0 if self.device == "cpu" else GPU_DIFFERENCE):
                raise NotSureError(
                    f"cuCIM reads other pixels than OpenSlide in level {index}", self.path
                )

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        if self._workers.closed:
            raise SlideReadError("the slide is closed", self.path, "open it again")
        rgb = np.empty((height, width, 3), np.uint8)
        scanned = self._scanned(level, y, x, height, width)
        if height and width and (scanned is None or scanned.any()):
            for top, bottom in self._strips(level, y, height, width):
                self._fill(rgb[top:bottom], level, y + top, x)
        if scanned is not None:
            rgb[~scanned] = self.background
        return rgb, scanned

    def _strips(self, level: int, y: int, height: int, width: int) -> Iterator[tuple[int, int]]:
        tile = self._layout[level]["tile"][0]
        rows = max(1, STRIP // (3 * width * tile)) * tile
        top = 0
        while top < height:
            bottom = min(height, (y + top) // tile * tile + rows - y)
            yield top, bottom
            top = bottom

    def _fill(self, out: Rgb, level: int, y: int, x: int) -> None:
        try:
            with self._workers.borrow() as worker:
                worker.read(out, level, y, x)
        except WorkerError as error:
            self._refuse_changed()
            height, width = out.shape[:2]
            where = f"{self.path}, level {level}, {height} x {width} px at y {y}, x {x}"
            raise SlideReadError(f"cuCIM cannot read it: {error}", where) from error

    def _scanned(self, level: int, y: int, x: int, height: int, width: int) -> Mask | None:
        tile = self._layout[level]["tile"]
        rows = np.arange(y, y + height) // tile[0]
        columns = np.arange(x, x + width) // tile[1]
        if not self._missing[level][np.ix_(np.unique(rows), np.unique(columns))].any():
            return None
        return ~self._missing[level][np.ix_(rows, columns)]

    @property
    def associated_images(self) -> Mapping[str, Rgb]:
        """Label, macro, thumbnail by name, read by OpenSlide when asked for."""
        return self._beside.associated_images

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of level 0; None where there is none, or one that is damaged."""
        return self._beside.icc_profile

    def close(self) -> None:
        """End the processes that read, each when its last read has ended."""
        self._workers.close()
        self._beside.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._stated_mpp, self.device)


def _reopen(path: str, mpp: tuple[float, float] | None, device: str) -> CucimSlide:
    return CucimSlide(path, mpp=mpp, device=device)


def _known_device(device: str, path: str) -> str:
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise SlideOpenError(f"no device {device!r}", path, 'give "cpu", "cuda" or "cuda:0"')
    return device


def _refuse_unread(tiled: list[Directory], path: str) -> None:
    if not tiled:
        raise NotSureError("cuCIM reads tiled TIFF only", path)
    for directory in tiled:
        compression = directory.number(tiffheader.COMPRESSION, 1)
        if compression not in COMPRESSIONS:
            name = metadata.COMPRESSIONS.get(compression, f"compression {compression}")
            raise NotSureError(f"cuCIM does not read {name} tiles exactly", path)
        bits, planar = directory.numbers.get(tiffheader.BITS, (1,)), tiffheader.PLANAR
        if set(bits) != {8} or directory.samples != 3 or directory.number(planar, 1) != 1:
            raise NotSureError("cuCIM reads 8-bit RGB tiles only", path)


def _layout(path: str, directory: Directory) -> dict[str, Any]:
    """Describe where the tiles of a level lie, for `cucim_child.Tiles`."""
    return {
        "tile": directory.tile,
        "across": -(-directory.shape[1] // directory.tile[1]),
        "compression": directory.number(tiffheader.COMPRESSION, 1),
        "offsets": _table(path, directory, tiffheader.TILE_OFFSETS),
        "counts": _table(path, directory, tiffheader.TILE_COUNTS),
    }


def _table(path: str, directory: Directory, tag: int) -> tuple[str, int, int]:
    """(NumPy's name of the type, count, position in the file) of a long tag."""
    kind, count, place = directory.entries.get(tag, (0, 0, 0))
    size = {3: 2, 4: 4, 16: 8}.get(kind)
    (height, width), (tile_height, tile_width) = directory.shape, directory.tile
    needed = -(-height // tile_height) * -(-width // tile_width)
    if size is None or count < needed or place + size * needed > os.path.getsize(path):
        raise NotSureError("its tables of tiles are damaged", path)
    with open(path, "rb") as file:
        order = "<" if file.read(2) == b"II" else ">"
    return f"{order}u{size}", needed, place


def _missing(path: str, level: dict[str, Any]) -> NDArray[np.bool_]:
    """Which tiles of a level, (rows, columns), hold no bytes: they were not scanned."""
    dtype, count, place = level["counts"]
    counts = np.fromfile(path, dtype, count, offset=place)
    return (counts == 0).reshape(-1, level["across"])


def _openslide_box(
    path: str, level: int, background: tuple[int, int, int]
) -> tuple[int, int, Rgb | None]:
    """(y, x, pixels) of a box near the middle where OpenSlide draws stored pixels, None if damaged.

    See `cells` for why not everywhere.
    """
    with openslide.OpenSlide(path) as osr:
        width, height = osr.level_dimensions[level]
        down, across = (
            cells.Axis(length, osr.level_downsamples[level]) for length in (height, width)
        )
        y, x = (
            int(axis.origins[np.searchsorted(axis.origins, axis.length // 2, "right") - 1])
            for axis in (down, across)
        )
        size = min(SURE_SIDE, width - x), min(SURE_SIDE, height - y)
        try:
            image = osr.read_region((across.level0(x), down.level0(y)), level, size)
        except openslide.OpenSlideError:
            return y, x, None
    return y, x, composite(image, background)[0]
