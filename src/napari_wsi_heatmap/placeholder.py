"""What a viewer shows of a slide before its pixels come."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.slides.base import Rgb, Slide

    Box = tuple[int, int, int, int]
    Draw = Callable[[tuple[int, int], Box], Rgb]
    """``draw(shape, box)``: the part (y, x, height, width) of a picture (height, width)."""

logger = logging.getLogger(__name__)


def placeholder(slide: Slide) -> Draw:
    """Return what draws a box of a picture to show before pixels come, at any size.

    It is the file's thumbnail enlarged, else a light hatch on the slide's background.
    """
    thumbnail = _thumbnail(slide)
    if thumbnail is None:
        return partial(_hatch, slide.background)
    return partial(_resized, thumbnail)


def _thumbnail(slide: Slide) -> Rgb | None:
    """Return the file's thumbnail if it shows the same field as the slide."""
    try:
        thumbnail = slide.associated_images.get("thumbnail")
    except HeatmapError as error:
        logger.info("no thumbnail: %s", error)
        return None
    if thumbnail is None:
        return None
    height, width = slide.levels[0].shape
    stretch = thumbnail.shape[0] * width / (thumbnail.shape[1] * height)
    # A row more or less decides the aspect of a thumbnail that is a few pixels high.
    slack = 0.01 + 1 / min(thumbnail.shape[:2])
    return thumbnail if abs(math.log(stretch)) <= slack else None


def _resized(rgb: Rgb, shape: tuple[int, int], box: Box) -> Rgb:
    from PIL import Image

    y, x, height, width = box
    down, across = rgb.shape[0] / shape[0], rgb.shape[1] / shape[1]
    part = (
        x * across,
        y * down,
        min((x + width) * across, rgb.shape[1]),
        min((y + height) * down, rgb.shape[0]),
    )
    picture = Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR, box=part)
    return np.array(picture)


def _hatch(background: tuple[int, int, int], shape: tuple[int, int], box: Box) -> Rgb:
    y, x, height, width = box
    hatch = np.empty((height, width, 3), np.uint8)
    hatch[:] = background
    lines = (np.arange(y, y + height)[:, None] + np.arange(x, x + width)) % 32 < 2
    hatch[lines] = np.multiply(background, 0.88)
    return hatch
