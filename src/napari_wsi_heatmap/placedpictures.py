"""Pictures of a slide, or of its heatmap, and where they lie on it.

Those that this package wrote say it themselves. Any other is taken to show the whole slide, if it
has the slide's shape. A TIFF of floats holds values, not colours.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import SlideOpenError, StoreError
from napari_wsi_heatmap.exports.png import KEY
from napari_wsi_heatmap.runfolder import reading
from napari_wsi_heatmap.slides import PICTURE_EXTENSIONS
from napari_wsi_heatmap.slides.pictureheader import MAX_PIXELS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Slide

    Pair = tuple[float, float]

TIFFS = (".tif", ".tiff")
MOST_VALUES = 1 << 28
"""Of a TIFF of floats: 1 GB."""


@dataclass(frozen=True)
class PlacedPicture:
    """A picture on a slide.

    Attributes
    ----------
    path : Path
    slide : Slide or None
        The picture's own pixels, opened like those of a slide; None of one that holds values.
    origin : (float, float)
        (y, x) of its top-left border, level-0 pixels from the slide's.
    scale : (float, float)
        (y, x) level-0 pixels per pixel.
    values : (C, h, w) float, or None
    names : tuple of str
        Of the values.
    """

    path: Path
    slide: Slide | None
    origin: Pair
    scale: Pair
    values: NDArray[np.floating[Any]] | None = None
    names: tuple[str, ...] = ()

    @property
    def offset(self) -> Pair:
        """(y, x) of the centre of its first pixel, level-0 pixels; their centres are whole."""
        y, x = (o + (s - 1) / 2 for o, s in zip(self.origin, self.scale, strict=True))
        return y, x

    def close(self) -> None:
        """Let go of the file."""
        if self.slide is not None:
            self.slide.close()


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name."""
    return path.suffix.lower() in (*PICTURE_EXTENSIONS, *TIFFS)


def place_picture(path: Path, slide: Slide) -> PlacedPicture:
    """Open a picture and find its place on a slide.

    Raises
    ------
    StoreError
        If it does not say where it lies, and has not the slide's shape.
    SlideOpenError
        If it cannot be opened.
    """
    if path.suffix.lower() in TIFFS and (found := _values(path)) is not None:
        values, names, text = found
        origin, scale = _place(text, values.shape[1:], slide, path)
        return PlacedPicture(path, None, origin, scale, values, names)
    picture = _opened(path)
    try:
        with reading(path, "the picture", "export it again"):
            origin, scale = _place(_text(path), picture.levels[0].shape, slide, path)
    except StoreError:
        picture.close()
        raise
    return PlacedPicture(path, picture, origin, scale)


def _opened(path: Path) -> Slide:
    """Open a picture like a slide; a TIFF that is none, but a plain picture, in memory."""
    from napari_wsi_heatmap.slides import open_slide

    try:
        return open_slide(path)
    except SlideOpenError:
        plain = _plain_tiff(path) if path.suffix.lower() in TIFFS else None
        if plain is None:
            raise
        return plain


def _plain_tiff(path: Path) -> Slide | None:
    from PIL import Image

    from napari_wsi_heatmap.slides.array import ArraySlide

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["TIFF"]) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            return ArraySlide([np.asarray(image.convert("RGB"))], name=path.name)
    except Exception:  # noqa: BLE001 - what `open_slide` said of it is told
        return None


def _place(text: Any, shape: tuple[int, ...], slide: Slide, path: Path) -> tuple[Pair, Pair]:
    """Top-left border and scale of a picture, from what it says, or its shape."""
    said = _said(text)
    if said is not None:
        y, x = (o - c * s for c, o, s in zip(*said, strict=True))
        return (y, x), (said[2][0], said[2][1])
    base = slide.levels[0].shape
    scale = base[0] / shape[0], base[1] / shape[1]
    # A side may have been cut off or rounded up to whole pixels.
    if abs(base[0] / scale[1] - shape[0]) > 1 and abs(base[1] / scale[0] - shape[1]) > 1:
        raise StoreError(
            f"it does not say where it lies, and {shape[0]} x {shape[1]} px are not the shape of "
            f"the slide ({base[0]} x {base[1]})",
            path,
            "export it again, or view the slide that it was made of",
        )
    return (0.0, 0.0), scale


def _said(text: Any) -> tuple[list[float], list[float], list[float]] | None:
    """(corner, origin, scale) of our own pictures; None of others."""
    try:
        about = json.loads(text)
        found = [
            [float(side) for side in about.get("corner_px", (0, 0))],
            [float(side) for side in about["origin_level0"]],
            [float(side) for side in about["scale_level0"]],
        ]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    fine = all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in found)
    return (found[0], found[1], found[2]) if fine and min(found[2]) > 0 else None


def _text(path: Path) -> Any:
    """What a picture says of itself: a PNG's text, a JPEG's comment, a TIFF's description."""
    if path.suffix.lower() in TIFFS:
        from tifffile import TiffFile

        with TiffFile(path) as file:
            return file.pages.first.description
    from PIL import Image

    with Image.open(path) as image:
        return image.info.get(KEY, image.info.get("comment"))


def _values(path: Path) -> tuple[NDArray[Any], tuple[str, ...], Any] | None:
    """Values (C, h, w), their names and description, of a TIFF of floats; None of others."""
    from tifffile import TiffFile, xml2dict

    if not _holds_floats(path):
        return None
    with reading(path, "the picture", "export it again"), TiffFile(path) as file:
        series = file.series[0]
        if series.size > MOST_VALUES:
            raise StoreError(f"it holds {series.size} values", path, "view the OUT.zarr")
        values = series.levels[0].asarray()
        image = xml2dict(file.ome_metadata)["OME"]["Image"] if file.is_ome else {}
        values = values.reshape(-1, *values.shape[-2:])
        about = image.get("Description") if isinstance(image, dict) else None
        return values, _names(image, len(values), path), about


def _holds_floats(path: Path) -> bool:
    from tifffile import TiffFile

    try:
        with TiffFile(path) as file:
            kind = file.pages.first.dtype
            return kind is not None and kind.kind == "f"
    except Exception:  # noqa: BLE001 - whatever it is, `open_slide` says what is wrong
        return False


def _names(image: Any, count: int, path: Path) -> tuple[str, ...]:
    try:
        channels = image["Pixels"]["Channel"]
        channels = channels if isinstance(channels, list) else [channels]
        names = tuple(str(channel["Name"]) for channel in channels)
    except (KeyError, TypeError):
        names = ()
    return names if len(names) == count else tuple(f"{path.stem} {i}" for i in range(count))
