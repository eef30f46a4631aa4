"""Slides of a stream: opened when they are wanted, a few at a time, their windows laid out."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.errors import GridError, HeatmapError, SlideChangedError
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.selection import choose_windows, windows_wanted
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import Slide
from napari_wsi_heatmap.states import PENDING, state_of
from napari_wsi_heatmap.streams.positions import Positions
from napari_wsi_heatmap.tissue import find_tissue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid, WindowSpec
    from napari_wsi_heatmap.streams.settings import StreamSettings
    from napari_wsi_heatmap.streams.sources import Source
    from napari_wsi_heatmap.tilecache import TileCache

    Mask = NDArray[np.bool_]
    Done = Mapping[Any, NDArray[np.int64]]

MOST_OPEN: Final = 16
"""Slides that are open at the same time, those being read aside."""


@dataclass(frozen=True)
class Layout:
    """The windows of a slide; kept while the slide itself is closed.

    Memory bound: a byte a window of the lattice.
    """

    grid: WindowGrid
    wanted: Mask
    """(Y, X): windows to be seen; at random sampling: cells in which their centres may lie."""
    sides: tuple[tuple[int, int], ...]
    """Shapes of the slide's levels."""
    positions: Positions | None = None
    """At random sampling, where windows may begin."""

    @property
    def count(self) -> int:
        """Number of windows to be seen, or of places where they may begin."""
        return int(np.count_nonzero(self.wanted)) if self.positions is None else len(self.positions)


@dataclass(frozen=True, eq=False)
class StreamSlide:
    """An open slide of a stream, as hooks get it."""

    id: Any
    """What batches call it."""
    slide: Slide
    layout: Layout = field(repr=False)
    cached: OwnedSlide = field(repr=False)

    @property
    def spec(self) -> WindowSpec:
        """How windows are read from it."""
        return self.layout.grid.spec

    @property
    def level(self) -> int:
        """Level that is read."""
        return self.spec.level

    @property
    def level_shape(self) -> tuple[int, int]:
        """(height, width) of that level."""
        return self.layout.grid.level_shape

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of a window, pixels of that level."""
        return self.spec.footprint

    @property
    def stride(self) -> tuple[int, int]:
        """(y, x) from window to window, pixels of that level."""
        return self.spec.stride


class OpenSlides:
    """Lends the slides of a stream to whoever reads them.

    Parameters
    ----------
    settings : StreamSettings
    tiles : TileCache
        Decoded tiles of all of them.
    done : mapping, optional
        Slide -> (n, 2) whole level-0 pixels: windows that are not wanted any more.
    layouts : dict, optional
        Slide -> its layout, where it is known; others are added.

    Notes
    -----
    Memory bound: `MOST_OPEN` handles, and a byte a window of each slide.
    """

    def __init__(
        self,
        settings: StreamSettings,
        tiles: TileCache,
        done: Done | None = None,
        layouts: dict[Any, Layout] | None = None,
    ) -> None:
        self._settings, self._tiles, self._done = settings, tiles, done or {}
        self._layouts = {} if layouts is None else layouts
        self._open: OrderedDict[Any, StreamSlide] = OrderedDict()
        self._readers: dict[Any, int] = {}
        self._lock, self._closed = threading.Lock(), False

    def __len__(self) -> int:
        return len(self._open)

    def lend(self, source: Source) -> StreamSlide:
        """Open a slide, if it is not; `give_back` when done with it.

        Raises
        ------
        HeatmapError
            If it cannot be opened, or no window fits it.
        """
        with self._lock:
            found = self._open.get(source.id)
            if found is not None:
                return self._lent(found)
        opened = self._opened(source)
        with self._lock:
            self._open[source.id] = opened
            if self._closed:
                self._close_now(source.id)
                raise HeatmapError("the stream is closed", source.place)
            return self._lent(opened)

    def _lent(self, slide: StreamSlide) -> StreamSlide:
        self._open.move_to_end(slide.id)
        self._readers[slide.id] = self._readers.get(slide.id, 0) + 1
        self._close_idle(MOST_OPEN)
        return slide

    def give_back(self, slide: StreamSlide, *, for_good: bool = False) -> None:
        """Say that one reader is done with a slide; `for_good`: nobody will want it again."""
        with self._lock:
            self._readers[slide.id] -= 1
            if for_good or self._closed:
                self._close_if_idle(slide.id)

    def close(self) -> None:
        """Close all that nobody reads, and the others when they are given back."""
        with self._lock:
            self._closed = True
            for name in tuple(self._open):
                self._close_now(name)

    def _close_idle(self, most: int) -> None:
        for name in tuple(self._open):
            if len(self._open) <= most:
                return
            self._close_if_idle(name)

    def _close_if_idle(self, name: Any) -> None:
        if not self._readers.get(name):
            self._close_now(name)

    def _close_now(self, name: Any) -> None:
        found = self._open.pop(name, None)
        if found is not None and found.cached.ours:
            found.slide.close()

    def _opened(self, source: Source) -> StreamSlide:
        ours = not isinstance(source.place, Slide)
        slide = open_slide(source.place, icc=self._settings.reading.icc)
        try:
            layout = self._laid(source, slide)
        except BaseException:
            if ours:
                slide.close()
            raise
        return StreamSlide(source.id, slide, layout, OwnedSlide(slide, self._tiles, ours=ours))

    def _laid(self, source: Source, slide: Slide) -> Layout:
        sides = tuple(level.shape for level in slide.levels)
        known = self._layouts.get(source.id)
        if known is None:
            known = self._layouts[source.id] = lay_out(
                slide, self._settings, self._done.get(source.id)
            )
        if known.sides != sides:
            raise SlideChangedError(
                "the slide is another one than it was", source.place, "begin the stream anew"
            )
        return known


class OwnedSlide(CachedSlide):
    """A slide read through the cache, and whether it is the stream's to close."""

    def __init__(self, slide: Slide, tiles: TileCache, *, ours: bool) -> None:
        super().__init__(slide, tiles)
        self.ours = ours


def lay_out(
    slide: Slide, settings: StreamSettings, done: NDArray[np.int64] | None = None
) -> Layout:
    """Find the windows of a slide.

    Raises
    ------
    GridError, MissingMppError
        If none fits, or it has no calibration where one is needed.
    """
    asked = settings.reading
    assert asked.window is not None
    # Random windows lie anywhere; what is tissue is decided for cells of their size.
    stride, edge = (None, "pad") if settings.random else (asked.stride, asked.edge)
    spec = resolve_window(slide, asked.window, stride, mpp=asked.mpp, level=asked.level)
    grid = lay_grid(spec, slide.levels[spec.level].shape, edge)
    tissue = find_tissue(slide, asked.tissue, grid, windows_wanted(slide, grid, asked.roi))
    chosen = choose_windows(slide, grid, tissue, tissue_min=asked.tissue_min, roi=asked.roi)
    for notice in (*grid.notices, *filter(None, [tissue.notice])):
        logging.getLogger(__name__).warning("%s: %s", slide.name, notice)
    wanted = state_of(chosen.state) == PENDING
    if done is not None:
        wanted &= ~_among(grid, done)
    sides = tuple(level.shape for level in slide.levels)
    if not settings.random:
        return Layout(grid, wanted, sides)
    positions = Positions(grid, wanted, _cells_side(settings))
    if not len(positions):
        raise GridError("no random window has its centre where it should", slide.name, ROI)
    return Layout(grid, wanted, sides, positions)


ROI: Final = "check roi and tissue"


def _cells_side(settings: StreamSettings) -> int:
    """Side of a region, so that those which are mixed take a quarter of the memory."""
    room = settings.reading.memory_bytes // 4 // settings.mix
    return min(settings.region_size, max(1, int((room / 3) ** 0.5)))


def whole_positions(grid: WindowGrid, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Top-left (y, x) of windows (n, 2), whole level-0 pixels: they tell the windows apart."""
    return np.rint(grid.positions(index)).astype(np.int64)


def _among(grid: WindowGrid, done: NDArray[np.int64]) -> Mask:
    """(Y, X): windows that are at one of the places (n, 2)."""
    rows, cols = (
        {round(start * down): i for i, start in enumerate(starts.tolist())}
        for starts, down in zip(grid.starts, grid.spec.downsample, strict=True)
    )
    found = np.zeros(grid.shape, bool)
    for y, x in done.tolist():
        if y in rows and x in cols:
            found[rows[y], cols[x]] = True
    return found
