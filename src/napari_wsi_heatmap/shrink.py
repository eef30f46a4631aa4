"""A large box of a slide, shrunk by a whole factor while it is read, block by block.

For masks and pictures of slides that hold no small level.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.slides.base import Mask, Rgb, Slide

    Box = tuple[int, int, int, int]
    Read = Callable[[int, int, int, int, int], tuple[Rgb, Mask]]

SMALLEST_READ = 128
"""px: below it damage is not narrowed down further."""
BLOCK_BYTES = 64 << 20
"""What is read at once, whatever the slide's size: 4 bytes a pixel."""


def level_and_factor(slide: Slide, wanted: float) -> tuple[int, int]:
    """Coarsest level that is fine enough, and the whole factor by which it is shrunk further.

    Parameters
    ----------
    wanted : float
        Level-0 pixels per pixel of the result at most.
    """
    fine = [i for i, level in enumerate(slide.levels) if max(level.downsample) <= wanted * 1.001]
    level = fine[-1] if fine else 0
    return level, max(1, int(wanted / max(slide.levels[level].downsample)))


def read_shrunk(
    slide: Slide,
    level: int,
    factor: int,
    box: Box | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
    read: Read | None = None,
) -> tuple[Rgb, Mask]:
    """Read a box of a level and shrink it.

    Parameters
    ----------
    slide : Slide
    level : int
    factor : int
        `factor` x `factor` pixels of the level become one; fewer at the far borders of the box.
    box : (y, x, height, width), optional
        Pixels of the level; default all of it.
    block_bytes : int
        Read at once at most this much, or `factor` x `factor` pixels if that is more.
    read : callable, optional
        Instead of ``slide.read_scanned``.

    Returns
    -------
    rgb : (ceil(height / factor), ceil(width / factor), 3) uint8
        Means, rounded half to even.
    scanned : (ceil(height / factor), ceil(width / factor)) bool
        Whether any of the pixels was scanned.

    Raises
    ------
    SlideReadError
        If a part of the box cannot be read.

    Notes
    -----
    Memory bound: the result, and one block with its sums, about 5 x `block_bytes`.
    """
    top, left, height, width = box or (0, 0, *slide.levels[level].shape)
    shape = -(-height // factor), -(-width // factor)
    rgb, scanned = np.empty((*shape, 3), np.uint8), np.empty(shape, bool)
    side = max(1, math.isqrt(block_bytes // 4) // factor) * factor
    for y, x, h, w in blocks(height, width, side):
        block = (read or slide.read_scanned)(level, top + y, left + x, h, w)
        at = np.s_[y // factor :, x // factor :]
        small, part = _shrink(*block, factor)
        rgb[at][: small.shape[0], : small.shape[1]] = small
        scanned[at][: part.shape[0], : part.shape[1]] = part
    return rgb, scanned


class LenientRead:
    """Reads like ``slide.read_scanned``; what is damaged comes out in one colour, not scanned.

    Parameters
    ----------
    slide : Slide
    colour : (int, int, int)

    Attributes
    ----------
    unread : list of (level, y, x, height, width)
        Boxes that could not be read, none much larger than the damage.
    """

    def __init__(self, slide: Slide, colour: tuple[int, int, int]) -> None:
        self._slide, self._colour = slide, colour
        self.unread: list[tuple[int, int, int, int, int]] = []

    def __call__(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask]:
        """Read a box of a level; see ``Slide.read_scanned``."""
        try:
            return self._slide.read_scanned(level, y, x, height, width)
        except SlideReadError:
            return self._in_parts(level, y, x, height, width)

    def _in_parts(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask]:
        rgb = np.empty((height, width, 3), np.uint8)
        rgb[:] = self._colour
        scanned = np.zeros((height, width), bool)
        half = -(-max(height, width) // 2)
        if half < SMALLEST_READ:
            self.unread.append((level, y, x, height, width))
            return rgb, scanned
        for top, left, h, w in blocks(height, width, half):
            at = np.s_[top : top + h, left : left + w]
            rgb[at], scanned[at] = self(level, y + top, x + left, h, w)
        return rgb, scanned


def blocks(height: int, width: int, side: int) -> Iterator[Box]:
    """Yield (y, x, height, width) of blocks of at most `side` px that make up an area."""
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield y, x, min(side, height - y), min(side, width - x)


def _shrink(rgb: Rgb, scanned: Mask, factor: int) -> tuple[Rgb, Mask]:
    """Block means; a block at the border is the mean of what there is."""
    if factor == 1:
        return rgb, scanned
    edges = [np.arange(0, side, factor) for side in rgb.shape[:2]]
    sums = np.add.reduceat(np.add.reduceat(rgb, edges[0], 0, dtype=np.uint32), edges[1], 1)
    sizes = [np.diff(np.append(e, side)) for e, side in zip(edges, rgb.shape[:2], strict=True)]
    means = sums / (sizes[0][:, None] * sizes[1][None, :])[..., None]
    part = np.logical_or.reduceat(np.logical_or.reduceat(scanned, edges[0], 0), edges[1], 1)
    return np.rint(means).astype(np.uint8), part
