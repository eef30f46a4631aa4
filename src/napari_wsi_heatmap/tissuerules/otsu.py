"""Otsu's threshold on colour saturation, seen from afar (at most 8 µm per pixel).

It refuses itself where it means nothing (Otsu always splits, also a slide that is all tissue or
all glass): then every window is computed and a notice says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.control import stop_if
from napari_wsi_heatmap.shrink import LenientRead, level_and_factor, read_shrunk
from napari_wsi_heatmap.tissue import strips
from napari_wsi_heatmap.tissuerules.values import AFTER, BEFORE, TissueValues

if TYPE_CHECKING:
    from threading import Event

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Rgb, Slide
    from napari_wsi_heatmap.tissue import TissueMask

    Mask = NDArray[np.bool_]

FINEST_MASK_UM = 8.0
"""µm: saturation is measured no coarser than this, so that thin strands of tissue remain."""
UNCALIBRATED_SIDE = 2048
"""px: longer side of the mask of a slide that does not state its pixel size."""
STRIP_BYTES = 32 << 20
"""A level is read for the mask in blocks of at most this size, whatever the slide's size."""
WEAK_SEPARATION = 20.0
"""Grey levels of saturation by which tissue and glass must differ in the mean."""
NEARLY_ALL = 0.97
NEARLY_NONE = 0.0005


def otsu_mask(
    slide: Slide, threshold: float | None = None, cancelled: Event | None = None
) -> TissueMask:
    """Mask of a slide by Otsu's threshold; no mask and a notice where that means nothing.

    A threshold that is given is taken, whatever it means.
    """
    return otsu_values(slide, threshold, cancelled).tissue()


def otsu_values(
    slide: Slide, threshold: float | None = None, cancelled: Event | None = None
) -> TissueValues:
    """Saturation of a slide seen from afar, and Otsu's threshold unless another is given."""
    view = coarse_view(slide, cancelled)
    histogram = _histogram(view)
    found = otsu_threshold(histogram)
    why = _meaningless(histogram, found)
    unasked = threshold is None
    return TissueValues(
        "otsu",
        _values(view),
        found if threshold is None else threshold,
        downsample=view.downsample,
        notice=f"{why}: all windows are computed" if unasked and why else None,
        automatic=found if why is None else None,
    )


def _values(view: CoarseView) -> NDArray[np.int16]:
    values = view.saturation.astype(np.int16)
    values[~view.scanned] = BEFORE
    # What is damaged counts as tissue: the run itself finds out which windows cannot be read.
    values[view.unread] = AFTER
    return values


def _histogram(view: CoarseView) -> NDArray[np.int64]:
    """How many scanned pixels there are of each saturation, (256,)."""
    histogram = np.zeros(256, np.int64)
    for rows in strips(len(view.saturation)):
        scanned = view.saturation[rows][view.scanned[rows]]
        histogram += np.bincount(scanned, minlength=256)
    return histogram


def _meaningless(histogram: NDArray[np.int64], threshold: int) -> str | None:
    total = histogram.sum()
    if total == 0:
        return "nothing of the slide could be seen from afar"
    grey = np.arange(256)
    below, above = histogram[: threshold + 1], histogram[threshold + 1 :]
    share = above.sum() / total
    if not NEARLY_NONE <= share <= NEARLY_ALL:
        return f"Otsu's threshold calls {share:.1%} of the slide tissue"
    means = [
        (h * g).sum() / h.sum()
        for h, g in ((below, grey[: len(below)]), (above, grey[threshold + 1 :]))
    ]
    if means[1] - means[0] < WEAK_SEPARATION:
        return "tissue and background hardly differ in saturation"
    return None


def otsu_threshold(histogram: NDArray[np.int64]) -> int:
    """Grey level that splits a histogram best: values above it are the upper class.

    Maximises the variance between the two classes (Otsu 1979, doi:10.1109/TSMC.1979.4310076).

    Parameters
    ----------
    histogram : (256,) int
    """
    counts = histogram.astype(np.float64)
    weight = np.cumsum(counts)
    moment = np.cumsum(counts * np.arange(len(counts)))
    total, mean = weight[-1], moment[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean * weight - moment * total) ** 2 / (weight * (total - weight))
    return int(np.argmax(np.nan_to_num(between, nan=0.0, posinf=0.0)))


@dataclass(frozen=True)
class CoarseView:
    """A slide at no more than 8 µm per pixel."""

    saturation: NDArray[np.uint8]
    """(h, w): 255 · (max − min) / max of R, G, B of block means."""
    scanned: Mask
    """(h, w)"""
    unread: Mask
    """(h, w): damaged; nobody knows what is there."""
    downsample: tuple[float, float]
    """(y, x) level-0 pixels per pixel of it."""


def coarse_view(slide: Slide, cancelled: Event | None = None) -> CoarseView:
    """Look at the scanned part of a slide from afar.

    Parameters
    ----------
    slide : Slide
    cancelled : threading.Event, optional
        Looked at before each block: a slide without a pyramid is read as a whole.

    Notes
    -----
    Memory bound: one block of the level read, `STRIP_BYTES`, and the result.
    """
    level, factor = level_and_factor(slide, _wanted_downsample(slide))
    down = slide.levels[level].downsample[0] * factor, slide.levels[level].downsample[1] * factor
    shape = tuple(-(-n // factor) for n in slide.levels[level].shape)
    y, x, height, width = _scanned_box(slide, down, (shape[0], shape[1]))
    at = np.s_[y : y + height, x : x + width]
    limit = slide.levels[level].shape
    size = min(height * factor, limit[0] - y * factor), min(width * factor, limit[1] - x * factor)
    box = (y * factor, x * factor, *size)
    read = LenientRead(slide, slide.background)

    def wanted(*place: int) -> tuple[Rgb, Mask]:
        stop_if(cancelled, "tissue was looked for", slide.name)
        return read(*place)

    rgb, part = read_shrunk(slide, level, factor, box, block_bytes=STRIP_BYTES, read=wanted)
    saturation, scanned = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    saturation[at], scanned[at] = _saturation(rgb), part
    return CoarseView(saturation, scanned, _unread(read, shape, factor), down)


def _scanned_box(
    slide: Slide, down: tuple[float, float], shape: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The slide's bounds as (y, x, height, width) in pixels of the view, whole ones outwards."""
    sides = []
    for axis in (0, 1):
        low, high = slide.bounds[axis], slide.bounds[axis] + slide.bounds[axis + 2]
        first = min(max(0, int(low / down[axis])), shape[axis] - 1)
        last = min(max(first + 1, math.ceil(high / down[axis])), shape[axis])
        sides.append((first, last - first))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _unread(read: LenientRead, shape: tuple[int, ...], factor: int) -> Mask:
    unread = np.zeros(shape, bool)
    for _, y, x, height, width in read.unread:
        rows = slice(y // factor, -(-(y + height) // factor))
        unread[rows, x // factor : -(-(x + width) // factor)] = True
    return unread


def _wanted_downsample(slide: Slide) -> float:
    """Level-0 pixels per pixel of the mask at most."""
    if slide.mpp is None:
        return max(1.0, max(slide.levels[0].shape) / UNCALIBRATED_SIDE)
    return max(1.0, FINEST_MASK_UM / max(slide.mpp))


def _saturation(rgb: Rgb) -> NDArray[np.uint8]:
    saturation = np.empty(rgb.shape[:2], np.uint8)
    for rows in strips(len(rgb)):
        high = rgb[rows].max(-1).astype(np.float32)
        low = rgb[rows].min(-1).astype(np.float32)
        saturation[rows] = np.rint(255 * (high - low) / np.maximum(high, 1))
    return saturation
