"""Tiled TIFF, its tiles decoded here: several times faster than through OpenSlide, same pixels.

OpenSlide composes every region at about 60 million pixels a second; decoding the same JPEG tiles
gives 400. So where a file is nothing but grids of tiles, they are read from their places,
decoded by several threads and put into the region's array, and nothing else is done.

What the file says about itself comes from OpenSlide. At opening, a tile of each level that
OpenSlide draws unchanged is compared with it, bit by bit; a file about which there is any doubt
is left to OpenSlide (`NotSureError`), and `Slide.why` says what the doubt was.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, final

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError, one_line
from napari_wsi_heatmap.slides import metadata, tiffchecks
from napari_wsi_heatmap.slides.base import Level, level_downsample
from napari_wsi_heatmap.slides.file import FileSlide, NotSureError
from napari_wsi_heatmap.slides.handle import Handle
from napari_wsi_heatmap.slides.openslide import Associated, OpenSlideSlide
from napari_wsi_heatmap.slides.rawfile import RawFile
from napari_wsi_heatmap.slides.tifflayout import Tags
from napari_wsi_heatmap.slides.tiffpyramid import pyramid_of
from napari_wsi_heatmap.slides.tilecodecs import TileError
from napari_wsi_heatmap.slides.tilereading import TileReading
from napari_wsi_heatmap.tilecache import TileCache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_wsi_heatmap.slides.base import Mask, Rgb
    from napari_wsi_heatmap.slides.file import SlideFile

JPEG = 7
_WITHOUT_GAPS = ("trestle",)
"""Formats in which OpenSlide takes a missing tile for an error."""
CACHE = 32 << 20
"""Bytes of decoded tiles kept for the next small box, as many as OpenSlide keeps."""


@final
class TiffSlide(FileSlide):
    """A tiled TIFF of any vendor whose levels are plain grids of tiles.

    Parameters
    ----------
    file : str or SlideFile
        The file, or what `look` found out about it.
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x), where the file states none or a wrong one.

    Raises
    ------
    NotSureError
        Where OpenSlide had better read it; says why.
    SlideOpenError
        Where nobody can.

    Notes
    -----
    Memory bound: `CACHE` of decoded tiles, and one tile per thread that decodes. Opening costs
    the same for a slide of any size.
    """

    backend = "tiff"

    def __init__(
        self, file: str | SlideFile, *, mpp: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(file, mpp=mpp)
        if not self._file.directories:
            raise NotSureError("it is no TIFF", self.path)
        self._known = self._through_openslide()
        self._handle = Handle(partial(RawFile, self.path, self.identity()), self.path)
        self._fresh_process()
        try:
            self._lay_out()
            self._describe()
            self.warnings += tuple(tiffchecks.compare(self, self._known))
        except BaseException:
            self.close()
            raise
        if self._known is not None:
            self._known.rest()  # until somebody asks for an associated image

    def _fresh_process(self) -> None:
        # The lock of the parent's cache may be held for ever.
        self._pid, self._cache = os.getpid(), TileCache(CACHE)

    def _through_openslide(self) -> OpenSlideSlide | None:
        try:
            return OpenSlideSlide(self._file, mpp=self._stated_mpp)
        except SlideOpenError as error:
            tiffchecks.refuse_damaged(self._file, error)
            return None

    def _lay_out(self) -> None:
        try:
            with self._handle.borrow() as raw:
                tags = Tags(raw)
                self.format, self._tiled = pyramid_of(self._file, tags, self._known)
                self._pixel_size = tags.pixel_size(self._file.directories[0])
                self._composed = self._first_composed(raw)
        except SlideReadError as error:
            raise NotSureError(f"its tags cannot be read ({error.what})", self.path) from error
        shapes = [tiled.shape for tiled in self._tiled]
        self.levels = tuple(
            Level(tiled.shape, level_downsample(shapes[0], tiled.shape), tiled.coding.tile)
            for tiled in self._tiled
        )

    def _first_composed(self, raw: RawFile) -> int:
        """First level that OpenSlide does not draw from this level's tiles alone.

        Where an Aperio slide lacks a tile, OpenSlide draws it from the finer level; so it does
        with tiles over such a gap, since what Aperio stores there is not to be trusted.
        """
        if self.format == "aperio" and len(self._tiled) > 1:
            for index, tiled in enumerate(self._tiled):
                if tiled.misses_tiles(raw):
                    return max(1, index)
        return len(self._tiled)

    def _describe(self) -> None:
        known, directories = self._known, self._file.directories
        self.properties = (
            metadata.tiff_properties(directories) | self._pixel_size
            if known is None
            else known.properties
        )
        self.compression = metadata.compression(directories, self.properties)
        self.objective_power = metadata.objective_power(self.properties)
        if self.objective_power is None:
            self.objective_power = metadata.ome_power(directories[0].description)
        self.bounds = metadata.bounds(self.properties, self.levels[0].shape)
        self.background = metadata.background(self.properties)
        found = metadata.calibration(self.properties, directories[0].description)
        names = () if known is None else known.associated_images
        self._associated = Associated(names, self._associated_image)
        self.warnings = (
            *self._calibrate(*found),
            *metadata.file_warnings(self.path, directories, self.properties),
            *metadata.level_warnings(self.levels),
            *(() if known is None else known.profile_warnings),
        )

    def read_into(self, level: int, y: int, x: int, out: Rgb) -> None:
        """Read a box like `read_region` into an array, without a copy where it lies inside."""
        height, width = out.shape[:2]
        self._check(level, height, width)
        bottom, right = self.levels[level].shape
        if min(y, x) >= 0 and y + height <= bottom and x + width <= right:
            rgb, _ = self._read(level, y, x, height, width, out)
        else:
            rgb = self.read_region(level, y, x, height, width)
        if rgb is not out:
            out[...] = rgb

    def _read(
        self, level: int, y: int, x: int, height: int, width: int, out: Rgb | None = None
    ) -> tuple[Rgb, Mask | None]:
        if self._known is not None and level >= self._composed:
            return self._known.read_scanned(level, y, x, height, width)
        if os.getpid() != self._pid:
            self._fresh_process()
        try:
            box = TileReading(self._tiled[level], level, (y, x, height, width), self._cache, out)
            if box.rgb.size or self._handle.closed:
                box.read(self._handle.borrow)
        except (TileError, SlideReadError, MemoryError) as error:
            lenient = self._warned_only(error, level, y, x, height, width)
            if lenient is not None:
                return lenient
            raise self._read_error(error, level, y, x, height, width) from error
        return self._without_missing(box)

    def _warned_only(
        self, error: Exception, level: int, *box: int
    ) -> tuple[Rgb, Mask | None] | None:
        """Read through OpenSlide what stopped the JPEG decoder here; None if that fails too.

        Some scanners write a few bytes too many at the end of a tile. OpenSlide knows which of
        libjpeg's warnings are harmless, and raises the others.
        """
        known = self._known
        if (
            known is None
            or not isinstance(error, TileError)
            or self._tiled[level].coding.compression != JPEG
            or known.shape_of(level) != self.levels[level].shape
        ):
            return None
        try:
            return known.read_scanned(level, *box)
        except SlideReadError:
            return None

    def _read_error(self, error: Exception, level: int, *box: int) -> SlideReadError:
        if self._handle.closed:
            return SlideReadError("the slide is closed", self.path, "open it again")
        self._refuse_changed()
        y, x, height, width = box
        where = f"{self.path}, level {level}, {height} x {width} px at y {y}, x {x}"
        if isinstance(error, MemoryError):
            return SlideReadError("not enough memory", where, "read less at once")
        what = error.what if isinstance(error, SlideReadError) else error
        return SlideReadError(one_line(what, 200), where)

    def _without_missing(self, box: TileReading) -> tuple[Rgb, Mask | None]:
        """Fill in tiles that the file does not hold: with background, as OpenSlide does."""
        scanned = box.scanned()
        if scanned is None:
            return box.rgb, None
        if self.format in _WITHOUT_GAPS:
            raise self._read_error(TileError("a tile is missing"), box.index, *box.box)
        box.rgb[~scanned] = self.background
        return box.rgb, scanned

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of level 0; None where there is none, or one that is damaged."""
        self._refuse_changed()
        return None if self._known is None else self._known.icc_profile

    @property
    def associated_images(self) -> Mapping[str, Rgb]:
        """Label, macro, thumbnail by name; a damaged one raises SlideReadError when asked for."""
        return self._associated

    def _associated_image(self, name: str) -> Rgb:
        # OpenSlide opens the file by its name: it could be the label of another patient by now.
        self._refuse_changed()
        assert self._known is not None
        return self._known.associated_images[name]

    def close(self) -> None:
        """Release the file as soon as the last read that goes on has ended."""
        self._handle.close()
        self._cache.clear()
        if self._known is not None:
            self._known.close()
