"""Slides through OpenSlide: every vendor's format that it reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
import openslide
from PIL.ImageCms import PyCMSError

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError, one_line
from napari_wsi_heatmap.slides import diagnose, guard, metadata
from napari_wsi_heatmap.slides.base import Level, level_downsample
from napari_wsi_heatmap.slides.cells import CellReader
from napari_wsi_heatmap.slides.file import FileSlide
from napari_wsi_heatmap.slides.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_wsi_heatmap.slides.base import Mask, Rgb
    from napari_wsi_heatmap.slides.file import SlideFile
    from napari_wsi_heatmap.slides.tiffheader import Directory


MOST_ASSOCIATED = 1 << 25
"""Pixels of a label or macro image; real ones have some millions."""


@final
class OpenSlideSlide(FileSlide):
    """A slide file, read by OpenSlide.

    Parameters
    ----------
    file : str or SlideFile
        The file, or what `look` found out about it.
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x), where the file states none or a wrong one.

    Raises
    ------
    SlideOpenError
        With the true cause, and what to do.

    Notes
    -----
    Memory bound: OpenSlide's own cache (32 MB), and `cells.MAX_BYTES` for each level with a
    downsample that is no whole number, once it is read.
    """

    backend = "openslide"

    def __init__(
        self, file: str | SlideFile, *, mpp: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(file, mpp=mpp)
        self._handle = Handle(partial(openslide.OpenSlide, self.path), self.path)
        try:
            with self._handle.borrow() as osr:
                self._describe(osr, self._file.directories)
        except openslide.OpenSlideError as error:
            raise _open_error(self.path, error) from error
        if self._file.unread:
            self.warnings += (f"a part of it cannot be read: {one_line(self._file.unread, 160)}",)

    def _describe(self, osr: Any, directories: tuple[Directory, ...]) -> None:
        self.properties = properties = _properties(osr)
        self.format = properties.get("openslide.vendor")
        self.compression = metadata.compression(directories, properties)
        self._averages = osr.level_downsamples
        self.levels = tuple(_levels(osr.level_dimensions, properties))
        self.objective_power = metadata.objective_power(properties)
        self.bounds = metadata.bounds(properties, self.levels[0].shape)
        self.background = metadata.background(properties)
        self._associated = Associated(osr.associated_images, self._associated_image)
        self._start_cells()
        self.profile_warnings = tuple(_profile_warnings(osr))
        description = next((d.description for d in directories if d.tiled), "")
        self.warnings = (
            *self._calibrate(*metadata.calibration(properties, description)),
            *metadata.file_warnings(self.path, directories, properties),
            *metadata.left_out(directories, properties),
            *metadata.level_warnings(self.levels),
            *self._cell_warnings(),
            *self.profile_warnings,
        )

    def _start_cells(self) -> None:
        self._pid = os.getpid()
        self._cells = {
            index: CellReader(level.shape, average, partial(self._draw, index))
            for index, (level, average) in enumerate(zip(self.levels, self._averages, strict=True))
            if average != int(average)
        }

    def _cell_warnings(self) -> Iterator[str]:
        for index, cells in self._cells.items():
            lost = 1 - cells.y.exact * cells.x.exact
            if lost > 0:
                yield (
                    f"level {index}: OpenSlide interpolates {lost:.0%} of its pixels"
                    f" (downsample {self._averages[index]:.6g})"
                )

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        if self._handle.closed:
            raise SlideReadError("the slide is closed", self.path, "open it again")
        if height == 0 or width == 0:
            return np.empty((height, width, 3), np.uint8), None
        if os.getpid() != self._pid:
            self._start_cells()  # a lock of the parent's may be held for ever
        if level in self._cells:
            return self._cells[level].box(y, x, height, width)
        average = int(self._averages[level])
        return self._draw(level, y * average, x * average, height, width)

    def _draw(
        self, level: int, y0: int, x0: int, height: int, width: int
    ) -> tuple[Rgb, Mask | None]:
        where = f"{self.path}, level {level}, {height} x {width} px at level-0 y {y0}, x {x0}"
        image = self._twice(lambda osr: osr.read_region((x0, y0), level, (width, height)), where)
        # OpenSlide opens the file by its name now and then, and would mix the pixels of two slides.
        self._refuse_changed()
        return composite(image, self.background)

    def _twice(self, job: Callable[[Any], Any], where: str) -> Any:
        """Do something with the handle; if it fails, once more with one of its own.

        An error of one reader becomes the error of all who share the handle. What fails with
        a handle that nobody else uses, fails for its own sake.
        """
        try:
            with self._handle.borrow() as osr:
                return job(osr)
        except openslide.OpenSlideError:
            self._refuse_changed()
        except MemoryError as error:
            raise SlideReadError("not enough memory", where, "read less at once") from error
        try:
            with self._handle.borrow(alone=True) as osr:
                return job(osr)
        except openslide.OpenSlideError as error:
            raise SlideReadError(one_line(error, 200), where) from error

    @property
    def associated_images(self) -> Mapping[str, Rgb]:
        """Label, macro, thumbnail by name; a damaged one raises SlideReadError when asked for."""
        return self._associated

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of level 0; None where there is none, or one that is damaged."""
        profile = self._twice(_profile, f"{self.path}, its ICC profile")
        return None if profile is None else bytes(profile.tobytes())

    def _associated_image(self, name: str) -> Rgb:
        where = f"{self.path}, its image {name!r}"
        self._refuse_large(name, where)
        image = self._twice(lambda osr: osr.associated_images[name], where)
        return composite(image, self.background)[0]

    def shape_of(self, level: int) -> tuple[int, int] | None:
        """(height, width) of a level, or None where there is no such level."""
        return self.levels[level].shape if level < len(self.levels) else None

    @property
    def whole_levels(self) -> frozenset[int]:
        """Levels whose downsample is a whole number: there OpenSlide draws stored pixels."""
        return frozenset(range(len(self.levels))) - self._cells.keys()

    def rest(self) -> None:
        """Release the file until something is asked for."""
        self._handle.rest()

    def _refuse_large(self, name: str, where: str) -> None:
        # A damaged header can claim gigabytes for a label; they would be allocated.
        prefix = f"openslide.associated.{name}"
        width, height = (int(self.properties[f"{prefix}.{side}"]) for side in ("width", "height"))
        if width * height > MOST_ASSOCIATED:
            raise SlideReadError(f"it claims {width} x {height} pixels", where)

    def close(self) -> None:
        """Release the file as soon as the last read that goes on has ended."""
        self._handle.close()
        self._cells.clear()


class Associated(Mapping[str, "Rgb"]):
    """Associated images by name, each decoded when it is asked for.

    Parameters
    ----------
    names : iterable of str
    read : callable
        ``read(name) -> (H, W, 3) uint8``.
    """

    def __init__(self, names: Any, read: Callable[[str], Rgb]) -> None:
        self._names, self._read = tuple(names), read

    def __getitem__(self, name: str) -> Rgb:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the mapping's own would decode the image

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def composite(image: Any, background: tuple[int, int, int]) -> tuple[Rgb, Mask | None]:
    """Lay an RGBA image (not premultiplied) on a background.

    Parameters
    ----------
    image : PIL.Image.Image
        Of mode RGBA.
    background : (int, int, int)
        RGB.

    Returns
    -------
    rgb : (H, W, 3) uint8
        ``rgb * alpha + background * (1 - alpha)``, rounded.
    scanned : (H, W) bool or None
        Where alpha is above 0; None if it is 255 throughout.
    """
    alpha = np.asarray(image)[..., 3]
    rgb: Rgb = np.array(image.convert("RGB"))
    if alpha.min() == 255:
        return rgb, None
    scanned = alpha > 0
    rgb[~scanned] = background
    partial_ = scanned & (alpha < 255)
    if partial_.any():
        weight = alpha[partial_].astype(np.uint16)[:, None]
        over = rgb[partial_] * weight + np.array(background, np.uint16) * (255 - weight)
        rgb[partial_] = (over + 127) // 255
    return rgb, scanned


def _properties(osr: Any) -> dict[str, str]:
    found = {}
    for name in osr.properties:
        with contextlib.suppress(KeyError):  # listed, but a name that is no UTF-8 is not found
            found[name] = osr.properties[name]
    return found


def _levels(dimensions: Any, properties: Mapping[str, str]) -> Iterator[Level]:
    shapes = [(height, width) for width, height in dimensions]
    for index, shape in enumerate(shapes):
        tile = (_side(properties, index, "height"), _side(properties, index, "width"))
        yield Level(shape, level_downsample(shapes[0], shape), tile)


def _side(properties: Mapping[str, str], level: int, which: str) -> int:
    text = properties.get(f"openslide.level[{level}].tile-{which}", "")
    return int(text) if text.isdecimal() and 0 < int(text) <= guard.TILE_SIDES[1] else 256


def _profile(osr: Any) -> Any:
    try:
        return osr.color_profile
    except (PyCMSError, OSError):
        return None


def _profile_warnings(osr: Any) -> Iterator[str]:
    try:
        osr.color_profile  # noqa: B018 - it is parsed here
    except (PyCMSError, OSError):
        yield "its ICC profile is damaged and not used"


def _open_error(path: str, error: Exception) -> SlideOpenError:
    cause = diagnose.why_not_a_slide(path)
    if cause:
        return guard.refuse(cause, path)
    if isinstance(error, openslide.OpenSlideUnsupportedFormatError):
        return SlideOpenError(
            "not a slide of a format that OpenSlide reads", path, "convert it to a tiled TIFF"
        )
    text = one_line(str(error).replace(f"{path}: ", ""), 200)
    return SlideOpenError(f"OpenSlide cannot open it: {text}", path)
