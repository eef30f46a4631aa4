"""A slide as a lazy multiscale image: dask arrays over one bounded cache of decoded tiles.

>>> pyramid = slide_pyramid(slide)
>>> pyramid.levels[0][:1000, :1000].compute()       # reads the tiles under that box, no others

Between the levels of the file, and below them, there are halved ones: a viewer reads a level
that fits its canvas, and napari reads the coarsest one whole. Their pixels are exact: means of
2 x 2 of the finer level, rounded half up.

Only where the coarsest level of the file is itself large do the small ones come later, from a
thread (`Pyramid.start_overview`); before that they show the file's thumbnail or a hatch.

Where reading is too slow for a viewer to wait, `Pyramid.progressive` has the same levels as arrays
that answer at once.

Memory bound
------------
The cache, 512 MB for all slides together; for each slide the small levels, at most 16 MB, or
128 MB where they must be filled in the background; one view where it is shown progressively.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from napari_wsi_heatmap.lazyarray import LazyArray
from napari_wsi_heatmap.levels import FileLevel, HalvedLevel, KeptLevel, plan_levels
from napari_wsi_heatmap.overview import LARGEST_LEVEL, FilledLevel, Overview
from napari_wsi_heatmap.progressive import ProgressiveLevels
from napari_wsi_heatmap.tilecache import TileCache
from napari_wsi_heatmap.viewtiles import SlideTiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_wsi_heatmap.levels import PlannedLevel, ViewLevel
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.traffic import Traffic

SMALL_LEVEL = 2048
"""px: levels with a longer side up to this are kept in memory once they were read."""

SMALL_SOURCE = 8 << 20
"""px: levels below a stored one up to this size are computed when first looked at."""

SMALL_SLOW_SOURCE = 1 << 20
"""px: the same, where reading is slow."""

default_cache = TileCache(512 << 20)
"""Tiles of all slides on view in this process."""


class Pyramid:
    """A slide's levels as a viewer wants them.

    Made by `slide_pyramid`.

    Attributes
    ----------
    slide : Slide
    levels : list of dask.array.Array
        Each (H, W, 3) uint8, finest first, areas strictly decreasing, the last at most 1024 px
        on its longer side. Where pixels cannot be read they hold a grey checker; a script that
        wants an error instead asks ``slide.read_region``.
    plan : list of PlannedLevel
        For each level whether the file holds it.
    views : list of ViewLevel
        What `levels` read.
    tiles : SlideTiles
        Stored tiles, through the cache; `tiles.traffic` knows who reads what is on view.
    overview_ready : threading.Event
        Set when the small levels hold the slide's pixels. At once where they are computed when
        read.
    """

    def __init__(
        self, slide: Slide, cache: TileCache | None = None, *, small_source: int = SMALL_SOURCE
    ) -> None:
        self.slide = slide
        self.plan = plan_levels([level.shape for level in slide.levels])
        self.tiles = SlideTiles(slide, default_cache if cache is None else cache)
        self._overview = _overview(slide, self.plan, self.tiles, small_source)
        self.views = self._view_levels()
        self.levels = [_dask_array(view, self.tiles.traffic) for view in self.views]
        self.overview_ready = threading.Event() if self._overview is None else self._overview.ready
        if self._overview is None:
            self.overview_ready.set()

    def _view_levels(self) -> list[ViewLevel]:
        views: list[ViewLevel] = []
        filled = {} if self._overview is None else self._overview.levels
        stored = _coarsest_stored(self.plan)
        for position, planned in enumerate(self.plan):
            if position - stored in filled:
                views.append(filled[position - stored])
            else:
                views.append(self._view_level(planned, views))
        return views

    def _view_level(self, planned: PlannedLevel, finer: list[ViewLevel]) -> ViewLevel:
        view: ViewLevel
        if planned.stored is None:
            view = HalvedLevel(finer[-1], self.tiles)
        else:
            view = FileLevel(self.tiles, planned.stored)
        return KeptLevel(view, self.tiles) if max(view.shape) <= SMALL_LEVEL else view

    @property
    def layer_levels(self) -> list[Any]:
        """`levels` for a layer: the coarsest as the array being filled, if it is.

        napari keeps the coarsest level as an array; only if that is the array being filled does
        a refresh of the layer show what came.
        """
        return self._with_filled(self.levels)

    @cached_property
    def progressive(self) -> ProgressiveLevels:
        """The same levels as arrays that answer at once."""
        return ProgressiveLevels(self.views, self.tiles)

    @property
    def progressive_layer_levels(self) -> list[Any]:
        """`progressive.levels` for a layer; the coarsest, which napari reads whole, is exact."""
        return self._with_filled([*self.progressive.levels[:-1], self.levels[-1]])

    def _with_filled(self, arrays: Sequence[Any]) -> list[Any]:
        last = self.views[-1]
        coarsest = last.pixels if isinstance(last, FilledLevel) else arrays[-1]
        return [*arrays[:-1], coarsest]

    @property
    def problem(self) -> str | None:
        """The first thing that could not be read, one line; None while all went well."""
        return self.tiles.problem

    def start_overview(self) -> None:
        """Let a thread fill the small levels, where that is needed; again: no effect."""
        if self._overview is not None:
            self._overview.start()

    def stop_overview(self) -> None:
        """Let the thread end after the block it reads."""
        if self._overview is not None:
            self._overview.stop()

    def stop_reading(self) -> None:
        """Forget what a view still waits for; a new one asks anew."""
        if "progressive" in self.__dict__:
            self.progressive.cancel()

    def on_overview(self, listener: Callable[[], None]) -> None:
        """Call ``listener()`` when the small levels got pixels, and at the end.

        At most once a second, from the thread that fills them; now if they are all there.
        """
        if self._overview is None:
            listener()
        else:
            self._overview.on_change(listener)

    def on_problem(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(message)`` once, when the first pixels cannot be read.

        It is called from the thread that reads.
        """
        self.tiles.on_problem(listener)

    def layer_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for ``viewer.add_image(pyramid.layer_levels, ...)``.

        In µm if the slide is calibrated, else in pixels of level 0.
        """
        slide = self.slide
        kwargs: dict[str, Any] = {
            "name": slide.name,
            "rgb": True,
            "multiscale": True,
            "contrast_limits": (0, 255),
            "axis_labels": ("y", "x"),
            # napari's own dask cache would hold every intermediate a second time.
            "cache": False,
            "metadata": {
                "slide": slide,
                "pyramid": self,
                "path": slide.path,
                "warnings": tuple(slide.warnings),
            },
        }
        if slide.mpp is not None:
            kwargs |= {"scale": slide.mpp, "units": ("um", "um")}
        return kwargs

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{h} x {w}{'' if stored is not None else '*'}" for (h, w), stored in self.plan
        )
        return f"<Pyramid {self.slide.name!r}: {sizes} (*: made by halving)>"


def slide_pyramid(
    slide: Slide, cache: TileCache | None = None, *, small_source: int = SMALL_SOURCE
) -> Pyramid:
    """Make the lazy pyramid of a slide; reads no pixels, except perhaps the file's thumbnail.

    Parameters
    ----------
    slide : Slide
    cache : TileCache, optional
        Default: one of 512 MB that all slides of the process share.
    small_source : int
        px: levels below a stored one up to this size are computed when first looked at, below a
        larger one in the background.

    Returns
    -------
    Pyramid
        ``.levels``: dask arrays (H, W, 3) uint8, finest first.
    """
    return Pyramid(slide, cache, small_source=small_source)


def layer_data(slide: Slide, *, progressive: bool = False) -> tuple[list[Any], dict[str, Any], str]:
    """Return what napari makes a layer of: (levels, keyword arguments, "image").

    Starts filling the overview where the slide has no small levels.

    Parameters
    ----------
    slide : Slide
    progressive : bool
        Give the layer levels that answer at once with what is there. The exact ones stand in
        its metadata either way: ``layer.metadata["pyramid"].levels``.
    """
    pyramid = slide_pyramid(slide, small_source=SMALL_SLOW_SOURCE if progressive else SMALL_SOURCE)
    pyramid.start_overview()
    levels = pyramid.progressive_layer_levels if progressive else pyramid.layer_levels
    return levels, pyramid.layer_kwargs(), "image"


def _coarsest_stored(plan: list[PlannedLevel]) -> int:
    return max(i for i, planned in enumerate(plan) if planned.stored is not None)


def _overview(
    slide: Slide, plan: list[PlannedLevel], tiles: SlideTiles, small_source: int
) -> Overview | None:
    """Return levels to be filled in the background, if the last stored one is too large."""
    position = _coarsest_stored(plan)
    height, width = plan[position].shape
    source = plan[position].stored
    if source is None or height * width <= small_source:
        return None
    depths = [
        depth
        for depth, planned in enumerate(plan[position:])
        if depth and planned.shape[0] * planned.shape[1] <= LARGEST_LEVEL
    ]
    return Overview(slide, source, depths, tiles) if depths else None


def _dask_array(view: ViewLevel, traffic: Traffic) -> da.Array:
    # Inlined and taken as it is, a chunk costs a millisecond even among 40,000; the default
    # way of wrapping an array costs thirty.
    return da.from_array(
        LazyArray(view, traffic),
        chunks=(*view.chunk, 3),
        name=False,
        asarray=False,
        fancy=False,
        inline_array=True,
        meta=np.zeros((0, 0, 0), np.uint8),
    )
