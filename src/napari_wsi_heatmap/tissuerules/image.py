"""`MASK.png`, or an array: tissue is where a picture of the whole slide is not zero."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError, one_line
from napari_wsi_heatmap.tissue import TissueMask
from napari_wsi_heatmap.tissuerules.given import MOST_PIXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.slides.base import Slide

    Mask = NDArray[np.bool_]

TOLERANCE = 0.01
"""By which the aspect of a mask may differ from the slide's."""


def image_mask(slide: Slide, path: str, grid: WindowGrid | None) -> TissueMask:
    """Mask from a picture of any size: what has any colour, and is not transparent, is tissue.

    Raises
    ------
    GridError
        If the file cannot be read, is too large, or shows no slide of this aspect.
    """
    mask, digest = _read(Path(path))
    record = {"rule": "mask", "file": Path(path).name, "sha256": digest}
    return TissueMask(mask, _downsample(slide, mask, path), record)


def array_mask(slide: Slide, mask: Mask, grid: WindowGrid | None) -> TissueMask:
    """Mask from an array (H, W) of any size."""
    if mask.size > MOST_PIXELS:
        raise _too_large(mask.shape, None)
    digest = hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()
    return TissueMask(mask, _downsample(slide, mask, None), {"rule": "array", "sha256": digest})


def _downsample(slide: Slide, mask: Mask, where: str | None) -> tuple[float, float]:
    height, width = slide.levels[0].shape
    rows, cols = mask.shape
    wanted = cols * height / width
    # A small mask has whole pixels only: one more or less is no other aspect.
    if abs(rows - wanted) > max(1.0, TOLERANCE * wanted):
        raise GridError(
            f"the mask has {cols} x {rows} px, and another aspect than the slide's "
            f"{width} x {height}",
            where,
            "give a mask of the whole slide",
        )
    if not mask.any():
        raise GridError("the mask is empty", where, "what is not zero is tissue")
    return height / rows, width / cols


def _read(path: Path) -> tuple[Mask, str]:
    try:
        if path.exists() and not path.is_file():
            raise GridError("the tissue rule is no file", path, "give a picture")
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of Pillow, about sizes: ours is the stricter limit
            mask = _pixels_of(file, path)
            file.seek(0)
            return mask, hashlib.file_digest(file, "sha256").hexdigest()
    except GridError:
        raise
    except FileNotFoundError as error:
        raise GridError("the mask cannot be read: no such file", path) from error
    except Exception as error:  # Pillow raises a dozen kinds
        why = one_line(error, 120) or type(error).__name__
        raise GridError(f"the mask cannot be read: {why}", path, "give a PNG") from error


def _pixels_of(file: object, path: Path) -> Mask:
    from PIL import Image

    with Image.open(file) as image:  # type: ignore[arg-type]
        if image.width * image.height > MOST_PIXELS:
            raise _too_large((image.height, image.width), path)
        return _not_zero(image)


def _not_zero(image: Image) -> Mask:
    """Where any channel but an alpha channel is not zero, and alpha is not either."""
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")
    values = np.asarray(image)
    if values.ndim == 2:
        return values != 0
    if image.mode in ("LA", "RGBA"):
        return values[..., :-1].any(-1) & (values[..., -1] != 0)
    return np.asarray(values.any(-1))


def _too_large(shape: tuple[int, ...], where: Path | None) -> GridError:
    return GridError(
        f"the mask has {shape[1]} x {shape[0]} px",
        where,
        f"at most {MOST_PIXELS >> 20} million are read: give a smaller one of the whole slide",
    )
