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
"""px: side of what is compared; more would only take time."""
_PLACES = ((2, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Where a tile is looked for, quarters of a level (y, x): the middle may not have been scanned."""
ROUNDING = 1
"""Grey levels by which two builds of OpenJPEG may differ; JPEG and lossless codecs: none."""
_ONLY_HERE = (34712, 34925, 50001)
"""Compressions that OpenSlide does not read: JPEG 2000 in plain TIFF, LZMA, WebP."""
_BIG_ENDIAN = b"MM\0*"
"""Start of a classic TIFF as Bio-Formats writes it, which OpenSlide does not take for one."""


def refuse_damaged(file: SlideFile, error: SlideOpenError) -> None:
    """Leave a file to OpenSlide that it refuses, unless it only lacks the codec or byte order.

    Raises
    ------
    NotSureError
    """
    first = file.directories[0]
    lacking = first.number(tiffheader.COMPRESSION, 1) in _ONLY_HERE
    lacking |= diagnose.read_head(file.path).startswith(_BIG_ENDIAN)
    if not first.tiled or not lacking or diagnose.why_not_a_slide(file.path):
        raise NotSureError("OpenSlide refuses it", file.path) from error


def compare(slide: Slide, known: OpenSlideSlide | None) -> Iterator[str]:
    """Compare a tile of each level with what OpenSlide reads there.

    Yields
    ------
    str
        A warning, where neither can read it.

    Raises
    ------
    NotSureError
        Where only OpenSlide reads it, or the pixels differ.
    """
    for index in range(len(slide.levels)):
        yield from _compare_level(slide, index, known)


def _compare_level(slide: Slide, index: int, known: OpenSlideSlide | None) -> Iterator[str]:
    for place in _PLACES:
        box = _tile_at(slide.levels[index], place)
        try:
            ours, scanned = slide.read_scanned(index, *box)
        except SlideReadError as error:
            if _theirs(slide, index, box, known) is not None:
                raise NotSureError(f"level {index}: {error.what}", slide.path) from error
            yield f"a part of it cannot be read: level {index}: {error.what}"
            return
        if known is not None and index in known.whole_levels:
            theirs = _theirs(slide, index, box, known)
            if theirs is not None and _differ(slide, ours, theirs):
                raise NotSureError(f"the pixels of level {index} come out otherwise", slide.path)
        if scanned.any():
            return


def _tile_at(level: Level, place: tuple[int, int]) -> tuple[int, int, int, int]:
    """Box (y, x, height, width) in the tile at `place`, quarters of the level from its corner."""
    starts = [
        side * quarters // 4 // tile * tile
        for side, quarters, tile in zip(level.shape, place, level.tile, strict=True)
    ]
    height, width = (
        min(tile, side - start, LARGEST_BOX)
        for tile, side, start in zip(level.tile, level.shape, starts, strict=True)
    )
    return starts[0], starts[1], height, width


def _theirs(
    slide: Slide, index: int, box: tuple[int, int, int, int], known: OpenSlideSlide | None
) -> Rgb | None:
    """What OpenSlide reads; None where it cannot, or has no such level."""
    shape = slide.levels[index].shape
    if known is None or [level.shape for level in known.levels[index : index + 1]] != [shape]:
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
