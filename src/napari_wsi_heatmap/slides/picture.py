"""Plain pictures, PNG and JPEG, as slides of one level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import (
    content,
    diagnose,
    guard,
    metadata,
    picturefile,
    pictureheader,
)
from napari_wsi_heatmap.slides.base import Level, believable_mpp
from napari_wsi_heatmap.slides.file import FileSlide, SlideFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_wsi_heatmap.slides.base import Mask, Rgb
    from napari_wsi_heatmap.slides.picturefile import Picture

_MICRONS_PER_INCH = 25400


@final
class PictureSlide(FileSlide):
    """A PNG or JPEG file, decoded when it is opened.

    Parameters
    ----------
    file : str or SlideFile
        The file.
    mpp : float or (float, float), optional
        µm per pixel, one value or (y, x), where the file states none or a wrong one.

    Raises
    ------
    SlideOpenError
        If it is no such picture, not all of its pixels can be had, or it has more than
        `pictureheader.MAX_PIXELS`.

    Notes
    -----
    Pixels stand as they are stored: EXIF's orientation is not applied, transparent ones lie on
    white, of 16 bits the upper 8 are taken, and of several pictures the first.

    Memory bound: 3 bytes per pixel, 4 with transparency, at most 400 MB; while it is opened
    four times as much, and the file itself if it is a JPEG.
    """

    backend = "picture"

    def __init__(
        self, file: str | SlideFile, *, mpp: float | Sequence[float] | None = None
    ) -> None:
        super().__init__(file, mpp=mpp)
        try:
            picture = picturefile.read_picture(self.path)
        except pictureheader.BadPicture as error:
            raise guard.refuse(str(error), self.path) from error
        except OSError as error:
            raise SlideOpenError(f"it cannot be read: {error.strerror}", self.path) from error
        except MemoryError as error:
            raise SlideOpenError("not enough memory for this picture", self.path) from error
        self._refuse_changed()
        self._pixels: tuple[Rgb, Mask | None] | None = (picture.rgb, picture.scanned)
        self._describe(picture)

    def _look(self, path: str) -> SlideFile:
        cause = diagnose.obvious_cause(path)
        if cause and not diagnose.is_picture(
            path
        ):  # a picture is the one "cause" that is none here
            raise guard.refuse(cause, path)
        try:
            return SlideFile(path, content.identities(path), content.fingerprint(path))
        except OSError as error:
            raise SlideOpenError(f"it cannot be read: {error.strerror}", path) from error

    def _describe(self, picture: Picture) -> None:
        header = picture.header
        self.levels = (Level(header.shape, (1.0, 1.0)),)
        self.bounds = (0, 0, *header.shape)
        self.background = metadata.WHITE
        self.format = header.format
        self.compression = "JPEG" if header.format == "jpeg" else "deflate"
        self.properties = {"picture.mode": header.mode, "picture.bits": str(header.bits)}
        self._profile = picture.info.get("icc_profile")
        self.warnings = (*self._calibrate(*_calibration(picture)), *_warnings(picture))

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        pixels = self._pixels
        if pixels is None:
            raise SlideReadError("the slide is closed", self.path, "open it again")
        rgb, scanned = pixels
        place = slice(y, y + height), slice(x, x + width)
        return np.array(rgb[place]), None if scanned is None else np.array(scanned[place])

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of the picture, or None."""
        return self._profile or None

    def close(self) -> None:
        """Release the pixels."""
        self._pixels = None


def _calibration(picture: Picture) -> tuple[tuple[float, float] | None, str | None, str | None]:
    """(mpp, source, warning): the resolution is believed where it can be a microscope's."""
    none = metadata.calibration({}, "")
    dpi: Any = picture.info.get("dpi")
    if picture.header.format == "jpeg" and not picture.info.get("jfif_unit"):
        dpi = None  # Pillow makes one up, or takes EXIF's, which is that of a printer
    try:
        x, y = (_MICRONS_PER_INCH / float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return none
    mpp, _ = believable_mpp((y, x), "the file")
    return (mpp, "the picture's resolution", None) if mpp else none


def _warnings(picture: Picture) -> Iterator[str]:
    header = picture.header
    if header.bits == 16:
        yield "16-bit pixels are reduced to 8 bit (the upper 8)"
        if "transparency" in picture.info:
            yield "its transparent colour is not used"
    if header.mode == "CMYK":
        yield "CMYK pixels are converted to RGB"
    if picture.orientation != 1:
        yield "it asks to be turned (EXIF), which is not done: pixels as they are stored"
    if picture.frames > 1:
        yield "of its pictures only the first is shown"
