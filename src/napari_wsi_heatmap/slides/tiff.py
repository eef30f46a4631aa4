"""Tiled TIFF, its tiles decoded here: several times faster than through OpenSlide, same pixels.

OpenSlide composes every region at about 60 million pixels a second; decoding the same JPEG tiles
gives 400. So where a file is nothing but grids of tiles, they are read from their places,
decoded by several threads and put into the region's array, and nothing else is done.

What the file says about itself comes from OpenSlide. At opening, a tile of each level that
OpenSlide draws unchanged is compared with it, bit by bit; a file about which there is any doubt
is left to OpenSlide (`NotSureError`), and `Slide.why` says what the doubt was.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, final

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError, one_line
from napari_wsi_heatmap.slides import metadata, tiffchecks
from napari_wsi_heatmap.slides.base import Level, level_downsample
from napari_wsi_heatmap.slides.file import FileSlide, NotSureError
from napari_wsi_heatmap.slides.handle import Handle
from napari_wsi_heatmap.slides.openslide import OpenSlideSlide
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
        self._cache = TileCache(CACHE)
        try:
            self._lay_out()
            self._describe()
            self.warnings += tuple(tiffchecks.compare(self, self._known))
        except BaseException:
            self.close()
            raise
        if self._known is not None:
            self._known.rest()  # until somebody asks for an associated image

    def _through_openslide(self) -> OpenSlideSlide | None:
        try:
            return OpenSlideSlide(self._file, mpp=self._stated_mpp)
        except SlideOpenError as error:
            tiffchecks.refuse_damaged(self._file, error)
            return None

    def _lay_out(self) -> None:
        try:
            with self._handle.borrow() as raw:
                self.format, self._tiled = pyramid_of(self._file, Tags(raw), self._known)
        except SlideReadError as error:
            raise NotSureError(f"its tags cannot be read ({error.what})", self.path) from error
        shapes = [tiled.shape for tiled in self._tiled]
        self.levels = tuple(
            Level(tiled.shape, level_downsample(shapes[0], tiled.shape), tiled.coding.tile)
            for tiled in self._tiled
        )

    def _describe(self) -> None:
        known, directories = self._known, self._file.directories
        self.properties = (
            metadata.tiff_properties(directories) if known is None else known.properties
        )
        self.compression = metadata.compression(directories, self.properties)
        self.objective_power = metadata.objective_power(self.properties)
        if self.objective_power is None:
            self.objective_power = metadata.ome_power(directories[0].description)
        self.bounds = metadata.bounds(self.properties, self.levels[0].shape)
        self.background = metadata.background(self.properties)
        found = metadata.calibration(self.properties, directories[0].description)
        self.warnings = (
            *self._calibrate(*found),
            *metadata.file_warnings(self.path, directories, self.properties),
            *metadata.level_warnings(self.levels),
            *(() if known is None else known.profile_warnings),
        )

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        box = TileReading(self._tiled[level], level, (y, x, height, width), self._cache)
        with self._handle.borrow() as raw:
            if height == 0 or width == 0:
                return box.rgb, None
            try:
                box.read(raw)
            except (TileError, SlideReadError) as error:
                raise self._read_error(error, level, y, x, height, width) from error
        return self._without_missing(box)

    def _read_error(self, error: Exception, level: int, *box: int) -> SlideReadError:
        self._refuse_changed()
        y, x, height, width = box
        what = error.what if isinstance(error, SlideReadError) else error
        where = f"{self.path}, level {level}, {height} x {width} px at y {y}, x {x}"
        return SlideReadError(one_line(what, 200), where)

    def _without_missing(self, box: TileReading) -> tuple[Rgb, Mask | None]:
        """Fill in tiles that the file does not hold: with background, as OpenSlide does.

        In the coarser levels of an Aperio slide OpenSlide draws them from the finer level.
        """
        scanned = box.scanned()
        if scanned is None:
            return box.rgb, None
        if self._known is not None and self.format == "aperio" and box.index > 0:
            return self._known.read_scanned(box.index, *box.box)
        box.rgb[~scanned] = self.background
        return box.rgb, scanned

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of level 0; None where there is none, or one that is damaged."""
        return None if self._known is None else self._known.icc_profile

    @property
    def associated_images(self) -> Mapping[str, Rgb]:
        """Label, macro, thumbnail by name; a damaged one raises SlideReadError when asked for."""
        return {} if self._known is None else self._known.associated_images

    def close(self) -> None:
        """Release the file as soon as the last read that goes on has ended."""
        self._handle.close()
        self._cache.clear()
        if self._known is not None:
            self._known.close()
