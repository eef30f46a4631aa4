"""What people use: a stream of batches, as an iterator and as a dataset of torch.

>>> stream = wh.stream(["a.svs", "b.svs"], window=224, batch_size=32)
>>> x, slides, windows = next(stream)
>>> for x, slides, windows in stream:                 # from the beginning, to the end
...     ...
>>> DataLoader(stream, batch_size=None, num_workers=4)   # each worker has a part of the windows
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch.utils.data import IterableDataset, get_worker_info

from napari_wsi_heatmap.errors import GridError, SlideOpenError
from napari_wsi_heatmap.slides.base import Slide
from napari_wsi_heatmap.streams.batches import PatchBatch
from napari_wsi_heatmap.streams.failures import Failures, may_be_left_out
from napari_wsi_heatmap.streams.laid import OpenSlides
from napari_wsi_heatmap.streams.session import Session
from napari_wsi_heatmap.streams.settings import StreamSettings
from napari_wsi_heatmap.streams.sources import sources_of
from napari_wsi_heatmap.tilecache import TileCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.streams.laid import Done, Layout
    from napari_wsi_heatmap.streams.sources import Source


def stream(slides: Any, *, path_of: Callable[[Any], Any] | None = None, **settings: Any) -> Stream:
    """Go over slides in batches of patches.

    Parameters
    ----------
    slides : path, Slide, iterable or mapping of these
        A slide, a folder, a csv or txt file that lists slides, several slides, or names and
        slides. With `path_of` whatever that function finds a slide by.
    path_of : callable, optional
        ``path_of(case)``: path or Slide of each of `slides`.
    window : int or (h, w)
        Pixels of a patch, 224 by default.
    stride : int or (y, x)
        From window to window; the window by default. Random windows have none.
    mpp, level : float; int or callable
        µm per pixel at which windows are seen, or the level that is read (or a function of the
        slide that gives it); level 0 by default.
    edge, tissue, tissue_min, roi, resize, icc
        As for `napari_wsi_heatmap.run`, but that `tissue` is "none" by default.
    batch_size : int
        Patches of a batch, 32 by default. The last one may be shorter.
    sampling : {"sliding", "random"}
        Every window of every slide exactly once, slide by slide; or windows at random places:
        large regions are read now and then, and many windows cut from each.
    seed, epoch_size : int
        Of random windows: what they are drawn by, and how many a pass has; None: it never ends.
        A second pass draws others; `Stream.set_epoch` says which pass is next.
    windows_per_region, region_size, mix : int
        Random windows cut from a region (64), its side in pixels of the level read (2048), and
        how many regions are in memory for their windows to be mixed (8).
    weights : "equal", "area", mapping, sequence or callable
        How often random regions are of each slide: as often as of others, by the places that
        windows have in it, or by a number for each slide (a function is given what it is called).
    transform : callable, optional
        Of a batch: (N, 3, H, W) float32 in 0…1 -> anything.
    patch_transform : callable, optional
        Of each patch, before it: (3, H, W) float32 in 0…1 -> tensor.
    regions : callable, optional
        ``regions(slide, rng)`` says what is read at once: of a sliding window an iterable of boxes
        (y, x, height, width), pixels of the level read, each giving the windows that begin in it;
        of random windows one box each time. `slide` is a `StreamSlide`.
    cut : callable, optional
        ``cut(region, rng)`` says which windows are cut from a `ReadRegion` whose pixels are there:
        (n, 2) top-left (y, x), pixels of the level read, counted from the slide's corner.
    read : callable, optional
        ``read(slide, y, x, height, width)`` reads instead of the slide: (height, width, 3) uint8.
        Called by several threads; a `SlideReadError` fails the windows of that region.
    on_error : {"report", "raise"}
        Leave out slides and windows that cannot be read, with one line of log for each slide and
        all of them in `Stream.failed` and `Stream.failed_windows`; or end with the error. If no
        slide can be opened, its error is raised in any case.
    readers, memory : int
        Threads that read; MB for regions and decoded tiles.
    device : str
        Where patches are cast and resized, "cpu" by default.
    shard : (int, int)
        (i, n): only the i-th of n parts, for several processes.

    Returns
    -------
    Stream

    Raises
    ------
    HeatmapError
        If a setting cannot be, or there are no slides.

    Notes
    -----
    The order, and what is drawn, does not depend on `readers`, nor what is drawn on the workers of
    a DataLoader. (Little `memory` makes regions smaller, which changes both.) Transforms are
    called in the thread that iterates, so that what they draw from torch's or NumPy's generators
    can be repeated, too.
    """
    return Stream(sources_of(slides, path_of), StreamSettings.of(settings))


class Stream(IterableDataset[PatchBatch]):
    """Batches of patches of many slides; made by `stream`.

    Iterating it begins a new pass; ``next(stream)`` goes on with one of its own. Each pass opens
    slides and threads for itself, and closes them when it ends, is closed or is forgotten.

    Attributes
    ----------
    settings : StreamSettings
    sources : tuple of Source
    """

    def __init__(
        self, sources: Sequence[Source], settings: StreamSettings, done: Done | None = None
    ) -> None:
        self.sources, self.settings = tuple(sources), settings
        self._done = dict(done or {})
        self._failures = Failures()
        # Shared, so that workers of a DataLoader that are kept learn of it.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._begin()

    def _begin(self) -> None:
        self._own: Iterator[PatchBatch] | None = None
        self._sessions: WeakSet[Session] = WeakSet()
        self._layouts: dict[Any, Layout] = {}
        self._passes = (-1, 0)  # the epoch that was set, and passes begun since

    @property
    def failed(self) -> dict[Any, str]:
        """Slides that could not be opened, and why; of passes in this process."""
        return dict(self._failures.slides)

    @property
    def failed_windows(self) -> dict[tuple[Any, int, int], str]:
        """(slide, y, x) of windows that could not be read, level-0 pixels, and why."""
        return dict(self._failures.windows)

    @property
    def held_bytes(self) -> int:
        """Bytes of regions and decoded tiles that all passes hold now, in this process."""
        return sum(session.held_bytes for session in self._sessions)

    def __iter__(self) -> Iterator[PatchBatch]:
        session = self._new_session()
        self._sessions.add(session)
        return session.batches()

    def __next__(self) -> PatchBatch:
        if self._own is None:
            self._own = iter(self)
        return next(self._own)

    def close(self) -> None:
        """End the pass that ``next(stream)`` has begun; the next call begins another."""
        own: Any = self._own
        self._own = None
        if own is not None:
            own.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def set_epoch(self, epoch: int) -> None:
        """Say which pass the next one is: random windows of a pass are always the same.

        Without it passes are counted from 0. Workers of a DataLoader that are not kept
        (``persistent_workers=False``) cannot count: call it before each pass.
        """
        self._epoch[0] = epoch

    def without(self, done: Mapping[Any, NDArray[np.int64] | None]) -> Stream:
        """Return the same stream, without windows that are not wanted any more.

        Parameters
        ----------
        done : mapping
            What a slide is called -> (n, 2) top-left (y, x), whole level-0 pixels; None: all.
        """
        if self.settings.random or self.settings.cut is not None:
            raise GridError("only windows of a lattice can be left out", do="begin anew")
        left = [s for s in self.sources if s.id not in done or done[s.id] is not None]
        some = {name: windows for name, windows in done.items() if windows is not None}
        rest = Stream(left, self.settings, {**self._done, **some})
        rest._failures.others_read = self._failures.others_read or len(left) < len(self.sources)
        return rest

    def layout(self, name: Any) -> Layout:
        """How the windows of a slide lie; it is opened if no pass has done so.

        Raises
        ------
        HeatmapError
            If it cannot be opened.
        """
        if name not in self._layouts:
            source = next(source for source in self.sources if source.id == name)
            slides = OpenSlides(self.settings, TileCache(0), self._done, self._layouts)
            slides.give_back(slides.lend(source), for_good=True)
        return self._layouts[name]

    def count_windows(self) -> dict[Any, int]:
        """Count the windows of each slide, or the places of random ones; opens all of them.

        Slides that cannot be opened are left out, and reported.
        """
        counts = {}
        for source in self.sources:
            try:
                counts[source.id] = self.layout(source.id).count
            except Exception as error:
                if not may_be_left_out(error, self.settings):
                    raise
                self._failures.slide(source.id, error)
        return counts

    def _new_session(self) -> Session:
        settings, worker = self.settings, get_worker_info()
        if worker is not None:
            part, parts = settings.shard
            share = part * worker.num_workers + worker.id, parts * worker.num_workers
            settings = replace(settings, shard=share)
        return Session(
            self.sources, settings, self._failures, self._next_epoch(), self._done, self._layouts
        )

    def _next_epoch(self) -> int:
        base = int(self._epoch[0])
        known, passes = self._passes
        passes = passes if known == base else 0
        self._passes = base, passes + 1
        return base + passes

    def __getstate__(self) -> dict[str, Any]:
        for source in self.sources:
            if isinstance(source.place, Slide):
                _refuse_unsendable(source.place)
        own = ("_own", "_sessions", "_layouts", "_passes")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"<Stream of {len(self.sources)} slides, {self.settings.sampling} windows>"


def _refuse_unsendable(slide: Slide) -> None:
    try:
        pickle.dumps(slide)
    except Exception as error:
        raise SlideOpenError(
            "an open slide cannot be sent to another process", slide.path, "give its path"
        ) from error
