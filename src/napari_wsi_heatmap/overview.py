"""The overview of a slide that has no small levels, filled in by a thread.

Halving a level of gigapixels takes a minute; a viewer wants the result at once. So the coarse
levels are arrays in memory that show the file's thumbnail, or a hatch, until their pixels come.

Memory bound
------------
4/3 of `LARGEST_LEVEL` pixels of 3 bytes for each slide, and two blocks of `BLOCK` squared.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np

from napari_wsi_heatmap.levels import CHUNK, boxes_under, chunk_for, half_shape, halve
from napari_wsi_heatmap.placeholder import placeholder
from napari_wsi_heatmap.readqueue import stand_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.placeholder import Draw
    from napari_wsi_heatmap.slides.base import Rgb, Slide
    from napari_wsi_heatmap.viewtiles import SlideTiles

    Box = tuple[int, int, int, int]

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
        base, draw = slide.levels[source].shape, placeholder(slide)
        self.levels = {depth: FilledLevel(_halved(base, depth), draw) for depth in depths}
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
        self._tiles.traffic.wait_clear(timeout=1.0)
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
    stand_back()
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

    What to show before is drawn where somebody looks first, or pixels come first: drawing all
    of a large level takes longer than a viewer may wait.

    Parameters
    ----------
    shape : (int, int)
    draw : callable
        ``draw(shape, box) -> (h, w, 3) uint8``: what to show before, of a box of this level.
    """

    cost = 0.0

    def __init__(self, shape: tuple[int, int], draw: Draw) -> None:
        self.shape, self.chunk = shape, chunk_for((CHUNK, CHUNK), shape)
        self._draw = draw
        self._array: Rgb = np.empty((*shape, 3), np.uint8)
        self._begun: set[Box] = set()
        self._lock = threading.Lock()

    @property
    def pixels(self) -> Rgb:
        """(H, W, 3) uint8: the level itself, written to by the filling thread."""
        self._begin(0, 0, *self.shape)
        return self._array

    def read(self, y: int, x: int, height: int, width: int, *, spare: bool = False) -> Rgb:
        """Return a copy of what is there now."""
        self._begin(y, x, height, width)
        return self._array[y : y + height, x : x + width].copy()

    def peek(self, y: int, x: int, out: Rgb) -> bool:
        """Give what is there now."""
        out[:] = self.read(y, x, *out.shape[:2])
        return True

    def holds(self, y: int, x: int, height: int, width: int) -> bool:
        """There is always something."""
        return True

    def write(self, rgb: Rgb, y: int, x: int) -> None:
        """Put pixels in their place."""
        self._begin(y, x, *rgb.shape[:2])
        self._array[y : y + rgb.shape[0], x : x + rgb.shape[1]] = rgb

    def _begin(self, *box: int) -> None:
        y, x, height, width = box
        with self._lock:
            for chunk in boxes_under(self.chunk, self.shape, (y, x, height, width)):
                if chunk not in self._begun:
                    top, left, h, w = chunk
                    self._array[top : top + h, left : left + w] = self._draw(self.shape, chunk)
                    self._begun.add(chunk)


def _halved(shape: tuple[int, int], depth: int) -> tuple[int, int]:
    for _ in range(depth):
        shape = half_shape(shape)
    return shape


def _quarters(box: Box, smallest: int) -> Iterator[Box]:
    """Cut a box into up to 4 of half the side; into itself if it is the smallest already."""
    y, x, height, width = box
    side = max(smallest, 1 << max(0, (max(height, width) - 1).bit_length() - 1))
    for top in range(y, y + height, side):
        for left in range(x, x + width, side):
            yield top, left, min(side, y + height - top), min(side, x + width - left)
