"""The pixels of a PNG or JPEG file, all or none.

Those of a PNG come from Pillow, those of a JPEG from simplejpeg: Pillow shows grey where a JPEG
is damaged or ends early, and says nothing.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from napari_wsi_heatmap.errors import one_line
from napari_wsi_heatmap.slides.pictureheader import BadPicture, Header, damaged, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.slides.base import Mask, Rgb

STRIP = 1 << 22
"""Pixels that are converted at once."""

_warnings_lock, _strict_lock = threading.Lock(), threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    header: Header
    rgb: Rgb
    scanned: Mask | None
    """False where it is transparent; None where it is so nowhere."""
    info: dict[str, Any]
    """What Pillow found beside the pixels: "dpi", "icc_profile", "mp"."""
    frames: int
    orientation: int
    """EXIF's; 1 for a picture that stands as it is stored."""


def read_picture(path: str) -> Picture:
    """Read a picture into memory.

    Raises
    ------
    BadPicture
        If not all of its pixels can be had.
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as file:
        header = read_header(file)
        file.seek(0)
        try:
            return _read(file, header)
        except (BadPicture, MemoryError):
            raise
        except Exception as error:  # Pillow raises a dozen kinds
            raise damaged(one_line(error, 120) or type(error).__name__) from error


def _read(file: IO[bytes], header: Header) -> Picture:
    with _quiet():
        plugin = (
            PngImagePlugin.PngImageFile if header.format == "png" else JpegImagePlugin.JpegImageFile
        )
        image = plugin(file)  # not Image.open, whose limit warns and belongs to the application
    if (image.height, image.width) != header.shape:
        raise damaged("it states two sizes")
    if header.mode in ("L", "RGB") and header.format == "jpeg":
        rgb, scanned = _decode_jpeg(file, header.mode), None
    else:
        if header.format == "jpeg":
            _decode_jpeg(file, header.mode)  # Pillow would not say what is damaged
            file.seek(0)
        with _all_or_none():
            image.load()
        rgb, scanned = _composited(image, header)
    with _quiet():
        orientation = _orientation(image)
    info = {str(key): value for key, value in image.info.items()}
    return Picture(header, rgb, scanned, info, _frames(image), orientation)


def _decode_jpeg(file: IO[bytes], mode: str) -> Rgb:
    import simplejpeg

    file.seek(0)
    return simplejpeg.decode_jpeg(file.read(), "CMYK" if mode == "CMYK" else "RGB", strict=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # One at a time: filters restored in another order than saved would stay.
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _all_or_none() -> Iterator[None]:
    with _strict_lock:
        before = ImageFile.LOAD_TRUNCATED_IMAGES  # True if someone in this process wants that
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _composited(image: Any, header: Header) -> tuple[Rgb, Mask | None]:
    """Lay a picture on white, strip by strip."""
    from napari_wsi_heatmap.slides.metadata import WHITE
    from napari_wsi_heatmap.slides.openslide import composite

    height, width = header.shape
    rgb, scanned = np.empty((height, width, 3), np.uint8), np.ones((height, width), bool)
    step = max(1, STRIP // width)
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(height, top + step)))
        part, mask = composite(_rgba(strip, header.bits), WHITE)
        rgb[top : top + step] = part
        if mask is not None:
            scanned[top : top + step] = mask
    return rgb, None if scanned.all() else scanned


def _rgba(strip: Any, bits: int) -> Any:
    """Convert a part of a picture; its transparent colour is taken where it has at most 8 bit."""
    key = strip.info.pop("transparency", None) if strip.mode != "P" else None
    if strip.mode in ("I", "I;16", "I;16B"):
        strip = Image.fromarray((np.asarray(strip) >> 8).astype(np.uint8))
    rgba = strip.convert("RGBA")
    if key is None or bits > 8:
        return rgba
    key = np.minimum(np.multiply(key, 255 // ((1 << bits) - 1)), 255)  # of 1 bit Pillow says 255
    pixels = np.array(rgba)
    pixels[(pixels[..., :3] == key).all(-1), 3] = 0
    return Image.fromarray(pixels)


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF says nothing
        return 1


def _frames(image: Any) -> int:
    """How many pictures the file holds, as far as Pillow knows."""
    if "mp" in image.info:
        return 2  # or more: a JPEG with others behind it
    return int(getattr(image, "n_frames", 1))
