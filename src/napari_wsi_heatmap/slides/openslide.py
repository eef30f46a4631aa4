"""Slides through OpenSlide: every vendor's format that it reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
import openslide
from PIL.ImageCms import PyCMSError

from napari_wsi_heatmap.errors import SlideChangedError, SlideOpenError, SlideReadError, one_line
from napari_wsi_heatmap.slides import content, diagnose, guard, metadata
from napari_wsi_heatmap.slides.base import Level, Slide, level_downsample
from napari_wsi_heatmap.slides.cells import CellReader
from napari_wsi_heatmap.slides.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_wsi_heatmap.slides.base import Mask, Rgb
    from napari_wsi_heatmap.slides.tiffheader import Directory


@final
class OpenSlideSlide(Slide):
    """A slide file, read by OpenSlide.

    Parameters
    ----------
    path : str
        The file.
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

    def __init__(self, path: str, *, mpp: float | Sequence[float] | None = None) -> None:
        self.path, self.name = path, os.path.basename(path)
        self._stated_mpp = None if mpp is None else metadata.caller_mpp(mpp, path)
        directories, unread = self._look_before_opening()
        self._handle = Handle(partial(openslide.OpenSlide, path), path)
        try:
            with self._handle.borrow() as osr:
                self._describe(osr, directories)
        except openslide.OpenSlideError as error:
            raise _open_error(path, error) from error
        if unread:
            self.warnings += (f"a part of it cannot be read: {one_line(unread, 160)}",)

    def _look_before_opening(self) -> tuple[tuple[Directory, ...], str | None]:
        cause = diagnose.obvious_cause(self.path)
        if cause:
            raise guard.refuse(cause, self.path)
        try:
            self._identities = content.identities(self.path)
            self._fingerprint = content.fingerprint(self.path)
            return guard.check(self.path, self._fingerprint)
        except OSError as error:
            raise SlideOpenError(f"it cannot be read: {error.strerror}", self.path) from error

    def _describe(self, osr: Any, directories: tuple[Directory, ...]) -> None:
        self.properties = properties = dict(osr.properties)
        self._averages = osr.level_downsamples
        self.levels = tuple(_levels(osr.level_dimensions, properties))
        self.objective_power = metadata.objective_power(properties)
        self.bounds = metadata.bounds(properties, self.levels[0].shape)
        self.background = metadata.background(properties)
        self._associated = Associated(osr.associated_images, self._associated_image)
        self._start_cells()
        self.warnings = (
            *self._calibrate(directories),
            *metadata.file_warnings(self.path, directories, properties),
            *metadata.level_warnings(self.levels),
            *self._cell_warnings(),
            *_profile_warnings(osr),
        )

    def _calibrate(self, directories: tuple[Directory, ...]) -> Iterator[str]:
        description = next((d.description for d in directories if d.tiled), "")
        self.mpp, missing = metadata.calibration(self.properties, description)
        if self._stated_mpp is not None:
            self.mpp = self._stated_mpp
        elif missing:
            yield missing

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

    def _refuse_changed(self) -> None:
        # Opening a replaced file again would mix the pixels of two slides.
        reason = self.changed()
        if reason:
            raise SlideChangedError(reason, self.path, "put it back, or open it again")

    @property
    def fingerprint(self) -> str:
        """Hex digest of the content: sizes, headers and sampled bytes of the files."""
        return self._fingerprint

    def identity(self) -> content.Identity:
        """(size, mtime_ns, inode) that the file had when it was opened."""
        return self._identities[self.path]

    def changed(self) -> str | None:
        """Say why the file is no longer the one that was opened; None while it is."""
        return content.difference(self._identities)

    @property
    def associated_images(self) -> Mapping[str, Rgb]:
        """Label, macro, thumbnail by name; a damaged one raises SlideReadError when asked for."""
        return self._associated

    def _associated_image(self, name: str) -> Rgb:
        where = f"{self.path}, its image {name!r}"
        image = self._twice(lambda osr: osr.associated_images[name], where)
        return composite(image, self.background)[0]

    def close(self) -> None:
        """Release the file as soon as the last read that goes on has ended."""
        self._handle.close()
        self._cells.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._stated_mpp)


def _reopen(path: str, mpp: tuple[float, float] | None) -> OpenSlideSlide:
    return OpenSlideSlide(path, mpp=mpp)


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


def _levels(dimensions: Any, properties: Mapping[str, str]) -> Iterator[Level]:
    shapes = [(height, width) for width, height in dimensions]
    for index, shape in enumerate(shapes):
        tile = (_side(properties, index, "height"), _side(properties, index, "width"))
        yield Level(shape, level_downsample(shapes[0], shape), tile)


def _side(properties: Mapping[str, str], level: int, which: str) -> int:
    text = properties.get(f"openslide.level[{level}].tile-{which}", "")
    return int(text) if text.isdecimal() and 0 < int(text) <= guard.TILE_SIDES[1] else 256


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
