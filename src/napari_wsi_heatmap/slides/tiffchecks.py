"""Is the direct reading of a TIFF right? Compared with OpenSlide when the file is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides import diagnose, tiffheader
from napari_wsi_heatmap.slides.file import NotSureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.errors import SlideOpenError
    from napari_wsi_heatmap.slides.base import Level, Rgb, Slide
    from napari_wsi_heatmap.slides.file import SlideFile
    from napari_wsi_heatmap.slides.openslide import OpenSlideSlide

LARGEST_BOX = 256
"""px: side of what is compared, in the tile in the middle of a level."""
ROUNDING = 1
"""Grey levels by which two builds of OpenJPEG may differ; JPEG and lossless codecs: none."""
_ONLY_HERE = (34712, 34925, 50001)
"""Compressions that OpenSlide does not read: JPEG 2000 in plain TIFF, LZMA, WebP."""


def refuse_damaged(file: SlideFile, error: SlideOpenError) -> None:
    """Leave a file to OpenSlide that it refuses, unless it only lacks the codec.

    Raises
    ------
    NotSureError
    """
    first = file.directories[0]
    codec = first.number(tiffheader.COMPRESSION, 1)
    if not first.tiled or codec not in _ONLY_HERE or diagnose.why_not_a_slide(file.path):
        raise NotSureError("OpenSlide refuses it", file.path) from error


def compare(slide: Slide, known: OpenSlideSlide | None) -> Iterator[str]:
    """Compare the middle of each level with what OpenSlide reads there.

    Yields
    ------
    str
        A warning, where neither can read it.

    Raises
    ------
    NotSureError
        Where only OpenSlide reads it, or the pixels differ.
    """
    for index, level in enumerate(slide.levels):
        box = _middle(level)
        theirs = None if known is None else _theirs(known, index, level.shape, box)
        try:
            ours = slide.read_region(index, *box)
        except SlideReadError as error:
            if theirs is not None:
                raise NotSureError(f"level {index}: {error.what}", slide.path) from error
            yield f"a part of it cannot be read: level {index}: {error.what}"
            continue
        if theirs is not None and _differ(slide, ours, theirs):
            raise NotSureError(f"the pixels of level {index} come out otherwise", slide.path)


def _middle(level: Level) -> tuple[int, int, int, int]:
    """Box (y, x, height, width) in the middle tile of a level; more tiles would only take time."""
    starts = [side // 2 // tile * tile for side, tile in zip(level.shape, level.tile, strict=True)]
    height, width = (
        min(tile, side - start, LARGEST_BOX)
        for tile, side, start in zip(level.tile, level.shape, starts, strict=True)
    )
    return starts[0], starts[1], height, width


def _theirs(
    known: OpenSlideSlide, index: int, shape: tuple[int, int], box: tuple[int, int, int, int]
) -> Rgb | None:
    """What OpenSlide reads, where it draws stored pixels; None where it does not or cannot."""
    if index not in known.whole_levels or known.levels[index].shape != shape:
        return None
    try:
        return known.read_region(index, *box)
    except SlideReadError:
        return None


def _differ(slide: Slide, ours: Rgb, theirs: Rgb) -> bool:
    if np.array_equal(ours, theirs):
        return False
    rounding = ROUNDING if (slide.compression or "").startswith("JPEG 2000") else 0
    return bool(np.abs(ours.astype(np.int16) - theirs).max() > rounding)
