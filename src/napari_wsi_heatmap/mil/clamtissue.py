"""Tissue of a slide by a `Segmentation`: saturation, pieces and holes, by their areas.

Written from the description of CLAM's rule, and its borders to the pixel, but for two things. Areas
count pixels; CLAM measures polygons through their centres, which are smaller by half a border. And
closing by an even square leaves the tissue where it is; OpenCV moves it a pixel to the lower right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.mil.segmentation import REFERENCE
from napari_wsi_heatmap.shrink import LenientRead, level_and_factor, read_shrunk
from napari_wsi_heatmap.tissuerules.otsu import otsu_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.segmentation import Segmentation
    from napari_wsi_heatmap.slides.base import Rgb, Slide

    Mask = NDArray[np.bool_]
    Labels = NDArray[np.int32]
    Pair = tuple[float, float]

FAR = 32.0
"""Level-0 pixels per pixel of what is looked at, unless a level is named."""
MOST_PIXELS = 1 << 27
"""Pixels of a level that may be looked at."""


@dataclass(frozen=True)
class Tissue:
    """Where the tissue of a slide lies, and the holes in it.

    Attributes
    ----------
    filled, holes : (h, w) bool
        Pieces of tissue with their holes, and these holes.
    downsample : (float, float)
        (y, x) level-0 pixels per pixel.
    notice : str or None
        Why all of the slide counts as tissue, if so.
    """

    filled: Mask
    holes: Mask
    downsample: Pair
    notice: str | None = None

    @property
    def mask(self) -> Mask:
        """(h, w): True where tissue lies."""
        found: Mask = self.filled & ~self.holes
        return found

    def at(self, what: Mask, y: NDArray[np.float64], x: NDArray[np.float64]) -> Mask:
        """Look up `filled` or `holes` at level-0 positions; False beyond the slide."""
        rows, cols = (
            np.floor(v / d).astype(int) for v, d in zip((y, x), self.downsample, strict=True)
        )
        inside = (rows >= 0) & (cols >= 0) & (rows < what.shape[0]) & (cols < what.shape[1])
        found: Mask = inside & what[np.where(inside, rows, 0), np.where(inside, cols, 0)]
        return found


def find_tissue(slide: Slide, how: Segmentation) -> Tissue:
    """Find the tissue of a slide.

    Raises
    ------
    GridError
        If there is no such level, or it is too large to be looked at.
    """
    level, factor = chosen_level(slide, how.seg_level)
    rgb, _ = read_shrunk(slide, level, factor, read=LenientRead(slide, slide.background))
    down = slide.levels[level].downsample
    downsample = down[0] * factor, down[1] * factor
    above = _above(saturation(rgb), how)
    filled, holes = _pieces(_closed(above, how.close), how, downsample)
    if filled.any():
        return Tissue(filled, holes, downsample)
    small = f": no piece is as large as a_t, {how.a_t:g} x 512 x 512 px" if above.any() else ""
    notice = f"no tissue was found by its saturation{small}; the whole slide counts"
    return Tissue(np.ones_like(filled), np.zeros_like(filled), downsample, notice)


def chosen_level(slide: Slide, level: int) -> tuple[int, int]:
    """Level that a number means, and by which factor it is shrunk; -1: about 32 times smaller."""
    if level < 0:
        return level_and_factor(slide, FAR)
    if level >= len(slide.levels):
        what = f"there is no level {level}"
        raise GridError(what, slide.name, f"choose 0 to {len(slide.levels) - 1}, or -1")
    height, width = slide.levels[level].shape
    if height * width > MOST_PIXELS:
        raise GridError(
            f"level {level} has {height} x {width} px", slide.name, "choose a coarser one"
        )
    return level, 1


def saturation(rgb: Rgb) -> NDArray[np.uint8]:
    """Saturation of HSV, 255 · (max − min) / max, in 12-bit fixed point as OpenCV rounds it."""
    high, low = rgb.max(-1).astype(np.int64), rgb.min(-1).astype(np.int64)
    scale = np.rint((255 << 12) / np.maximum(np.arange(256), 1)).astype(np.int64)
    return ((high - low) * scale[high] + (1 << 11) >> 12).astype(np.uint8)


def _above(values: NDArray[np.uint8], how: Segmentation) -> Mask:
    """Whether the median about each pixel is above the threshold."""
    from scipy import ndimage

    if how.use_otsu:
        smooth = ndimage.median_filter(values, how.mthresh, mode="nearest")
        threshold = otsu_threshold(np.bincount(smooth.ravel(), minlength=256))
        found: Mask = smooth > threshold
        return found
    # The median is above it where most are: no sorting.
    most = (values > how.sthresh).astype(np.int32)
    for axis in (0, 1):
        most = ndimage.correlate1d(most, np.ones(how.mthresh), axis, mode="nearest")
    return most > how.mthresh**2 // 2


def _closed(mask: Mask, side: int) -> Mask:
    from scipy import ndimage

    if side < 2:
        return mask
    wide = ndimage.binary_closing(np.pad(mask, side), np.ones((side, side)))
    return wide[side:-side, side:-side]


def _pieces(mask: Mask, how: Segmentation, downsample: Pair) -> tuple[Mask, Mask]:
    """Pieces that are large enough, filled, and the holes that are kept."""
    from scipy import ndimage

    unit = int(REFERENCE / (downsample[0] * downsample[1]))
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    large = [piece for piece in range(count, 0, -1) if areas[piece] > how.a_t * unit]
    kept = _chosen(large, how)
    holes, owners = _holes(mask, pieces)
    sizes = np.bincount(holes.ravel(), minlength=len(owners))
    left = _largest_holes(kept, owners, sizes, how, how.a_h * unit)
    filled = np.isin(pieces, kept) | np.isin(holes, np.flatnonzero(np.isin(owners, kept)))
    return filled, np.isin(holes, left)


def _chosen(large: list[int], how: Segmentation) -> list[int]:
    """Pieces by their number; they are numbered from the lower border upwards."""
    return [
        piece
        for number, piece in enumerate(large)
        if (not how.keep_ids or number in how.keep_ids) and number not in how.exclude_ids
    ]


def _holes(mask: Mask, pieces: Labels) -> tuple[Labels, NDArray[np.int64]]:
    """Number the holes from 1 (h, w), and say in which piece each lies; 0 is no hole."""
    from scipy import ndimage

    gaps, count = ndimage.label(~mask)
    border = np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))
    gaps[np.isin(gaps, border)] = 0
    found, first = np.unique(gaps, return_index=True)
    owners = np.zeros(count + 1, np.int64)
    inner = found > 0
    # What lies left of the first pixel of a hole, row by row, is the piece around it.
    owners[found[inner]] = pieces.ravel()[first[inner] - 1]
    return gaps, owners


def _largest_holes(
    kept: list[int],
    owners: NDArray[np.int64],
    sizes: NDArray[np.int64],
    how: Segmentation,
    least: float,
) -> list[int]:
    left: list[int] = []
    for piece in kept:
        inside = sorted(np.flatnonzero(owners == piece).tolist(), key=lambda hole: -sizes[hole])
        left += [hole for hole in inside[: how.max_n_holes] if sizes[hole] > least]
    return left
