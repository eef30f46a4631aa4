"""The overview of a slide that has no small levels, filled in by a thread.

Halving a level of gigapixels takes a minute; a viewer wants the result at once. So the coarse
levels are arrays in memory that show the file's thumbnail, or a hatch, until their pixels come.

Memory bound
------------
4/3 of `LARGEST_LEVEL` pixels of 3 bytes for each slide, and two blocks of `BLOCK` squared.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np

from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.levels import CHUNK, chunk_for, half_shape, halve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.slides.base import Rgb, Slide
    from napari_wsi_heatmap.viewtiles import SlideTiles

    Box = tuple[int, int, int, int]

logger = logging.getLogger(__name__)

LARGEST_LEVEL = 32 << 20
"""px: halved levels up to this size are held in memory."""

BLOCK = 1024
"""px: side of what is read at once, in the level below."""

NOTIFY_SECONDS = 1.0
"""s: listeners hear of new pixels no more often than this."""

GIVE_UP_AFTER = 256
"""Failed reads in a row: the file is gone, not damaged here and there."""


class Overview:
    """Coarse levels in memory, made of the level `source` in the background.

    Parameters
    ----------
    slide : Slide
    source : int
        Its coarsest stored level.
    depths : sequence of int
        Which halvings of `source` to hold, rising: 3 is an eighth.
    tiles : SlideTiles
        Hears of parts that cannot be read.

    Attributes
    ----------
    levels : dict of int to FilledLevel
        By depth.
    ready : threading.Event
        Set when nothing more will come: all is filled, it was stopped, or the file is gone.
    """

    def __init__(self, slide: Slide, source: int, depths: list[int], tiles: SlideTiles) -> None:
        self._slide, self._source, self._tiles = slide, source, tiles
        base, first = slide.levels[source].shape, placeholder(slide)
        self.levels = {depth: FilledLevel(first(_halved(base, depth))) for depth in depths}
        self.ready = threading.Event()
        self._stopped = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._said = 0.0
        self._failed_in_a_row = 0

    def start(self) -> None:
        """Begin to fill; does nothing if that was done before."""
        with self._lock:
            if self._thread is None:
                # The thread must not keep alive what nobody looks at any more.
                self._thread = threading.Thread(
                    target=_fill, args=(ref(self), self._blocks()), name="overview", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Fill no further; what is there stays."""
        self._stopped.set()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener()`` from the filling thread when pixels came, and when all did.

        If all are there already, it is called now.
        """
        with self._lock:
            self._listeners.append(listener)
        if self.ready.is_set():
            listener()

    def fill(self, box: Box) -> bool:
        """Read one block of the source and write it into all levels; False to end.

        Where the block cannot be read its quarters are tried, so that a damaged tile costs no
        more than its surroundings.
        """
        if self._stopped.is_set():
            return False
        try:
            rgb = self._slide.read_region(self._source, *box)
        # A slide may come from the user's own function, which may raise anything.
        except Exception as error:  # noqa: BLE001
            self._tiles.report(error)
            return self._fill_quarters(box)
        self._failed_in_a_row = 0
        self._write(rgb, box[0], box[1])
        return True

    def _fill_quarters(self, box: Box) -> bool:
        self._failed_in_a_row += 1
        if self._failed_in_a_row > GIVE_UP_AFTER:
            return False
        quarters = list(_quarters(box, 1 << max(8, *self.levels)))
        return len(quarters) == 1 or all(self.fill(quarter) for quarter in quarters)

    def _write(self, rgb: Rgb, y: int, x: int) -> None:
        for depth in range(1, max(self.levels) + 1):
            rgb = halve(rgb)
            if depth in self.levels:
                self.levels[depth].write(rgb, y >> depth, x >> depth)

    def _blocks(self) -> list[Box]:
        height, width = self._slide.levels[self._source].shape
        side = max(BLOCK, 1 << max(self.levels))
        return [
            (y, x, min(side, height - y), min(side, width - x))
            for y in range(0, height, side)
            for x in range(0, width, side)
        ]

    def tell(self, *, finished: bool = False) -> None:
        """Tell listeners of new pixels, now and then; `finished`: that these were the last."""
        with self._lock:
            if finished:
                self.ready.set()
            elif time.monotonic() - self._said < NOTIFY_SECONDS:
                return
            self._said = time.monotonic()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()


def _fill(overview_ref: ref[Overview], blocks: list[Box]) -> None:
    """Fill block by block for as long as somebody holds the overview."""
    for block in blocks:
        overview = overview_ref()
        if overview is None:
            return
        if not overview.fill(block):
            break
        overview.tell()
        del overview
    overview = overview_ref()
    if overview is not None:
        overview.tell(finished=True)


class FilledLevel:
    """A coarse level in memory whose pixels come bit by bit.

    Attributes
    ----------
    pixels : (H, W, 3) uint8
        The level itself, written to by the filling thread.
    """

    def __init__(self, pixels: Rgb) -> None:
        self.pixels = pixels
        self.shape = (pixels.shape[0], pixels.shape[1])
        self.chunk = chunk_for((CHUNK, CHUNK), self.shape)

    def read(self, y: int, x: int, height: int, width: int) -> Rgb:
        """Return a copy of what is there now."""
        return self.pixels[y : y + height, x : x + width].copy()

    def write(self, rgb: Rgb, y: int, x: int) -> None:
        """Put pixels in their place."""
        self.pixels[y : y + rgb.shape[0], x : x + rgb.shape[1]] = rgb


def placeholder(slide: Slide) -> Callable[[tuple[int, int]], Rgb]:
    """Return what draws a picture to show before pixels come, for a given (height, width).

    It is the file's thumbnail enlarged, else a light hatch on the slide's background.
    """
    thumbnail = _thumbnail(slide)
    if thumbnail is None:
        return partial(_hatch, slide.background)
    return partial(_resized, thumbnail)


def _halved(shape: tuple[int, int], depth: int) -> tuple[int, int]:
    for _ in range(depth):
        shape = half_shape(shape)
    return shape


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


def _resized(rgb: Rgb, shape: tuple[int, int]) -> Rgb:
    from PIL import Image

    picture = Image.fromarray(rgb).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.array(picture)


def _hatch(background: tuple[int, int, int], shape: tuple[int, int]) -> Rgb:
    height, width = shape
    strip = np.empty((32, width, 3), np.uint8)
    strip[:] = background
    lines = (np.arange(32)[:, None] + np.arange(width)) % 32 < 2
    strip[lines] = np.multiply(background, 0.88)
    hatch = np.empty((height, width, 3), np.uint8)
    for y in range(0, height, 32):
        hatch[y : y + 32] = strip[: height - y]
    return hatch


def _quarters(box: Box, smallest: int) -> Iterator[Box]:
    """Cut a box into up to 4 of half the side; into itself if it is the smallest already."""
    y, x, height, width = box
    side = max(smallest, 1 << max(0, (max(height, width) - 1).bit_length() - 1))
    for top in range(y, y + height, side):
        for left in range(x, x + width, side):
            yield top, left, min(side, y + height - top), min(side, x + width - left)
