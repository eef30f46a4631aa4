"""The plan of random windows: regions drawn now and then, many windows cut from each.

Each region is drawn by a generator of its own, seeded by the stream's seed, the pass and the
region's number. So what is drawn depends neither on how many threads read nor on how many
processes share the stream.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.order import region_of
from napari_wsi_heatmap.streams.failures import may_be_left_out
from napari_wsi_heatmap.streams.regions import StreamRegion, box_of, trouble, whole_box
from napari_wsi_heatmap.streams.settings import weight

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.streams.failures import Failures
    from napari_wsi_heatmap.streams.laid import OpenSlides, StreamSlide
    from napari_wsi_heatmap.streams.regions import Box, Trouble
    from napari_wsi_heatmap.streams.settings import StreamSettings
    from napari_wsi_heatmap.streams.sources import Source


class Sampler:
    """Draws regions, and windows in them.

    Parameters
    ----------
    sources : sequence of Source
    slides : OpenSlides
    settings : StreamSettings
    failures : Failures
    epoch : int
        Number of the pass.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        slides: OpenSlides,
        settings: StreamSettings,
        failures: Failures,
        epoch: int,
    ) -> None:
        self._sources, self._slides, self._settings = sources, slides, settings
        self._failures, self._epoch = failures, epoch
        self._failed: set[int] = set()

    def regions(self) -> Iterator[StreamRegion | Trouble]:
        """Regions of this part of the stream, in order; without end if there is no epoch_size."""
        try:
            yield from self._mixed()
        except Exception as error:  # noqa: BLE001 - raised in its turn
            yield trouble(error)

    def _mixed(self) -> Iterator[StreamRegion]:
        """Say of each region whether it is the last of those that are mixed.

        That is so when the next one would be too many, or too much for its half of the room: what
        is mixed must all be there at once.
        """
        room, shares = self._settings.reading.memory_bytes // 4, self._shares()
        waiting, count, nbytes = None, 0, 0
        for key in self._keys():
            region = self._drawn(key, shares)
            if waiting is not None:
                full = count == self._settings.mix or nbytes + region.nbytes > room
                yield replace(waiting, last=full)
                count, nbytes = (0, 0) if full else (count, nbytes)
            waiting, count, nbytes = region, count + 1, nbytes + region.nbytes
        if waiting is not None:
            yield waiting

    def _keys(self) -> Iterator[int]:
        """Numbers of the regions of this part."""
        part, parts = self._settings.shard
        size = self._settings.epoch_size
        if size is None:
            return itertools.count(part, parts)
        return iter(range(part, -(-size // self._settings.windows_per_region), parts))

    def _windows_of(self, key: int) -> int:
        """How many windows are cut from a region: the last one of a pass completes it."""
        each, size = self._settings.windows_per_region, self._settings.epoch_size
        return each if size is None else min(each, size - key * each)

    def _drawn(self, key: int, shares: NDArray[np.float64]) -> StreamRegion:
        rng = np.random.default_rng([self._settings.seed, self._epoch, key])
        slide, n = self._slide(shares, rng), self._windows_of(key)
        if self._settings.regions is None and self._settings.cut is None:
            assert slide.layout.positions is not None
            corners = slide.layout.positions.draw(n, rng)
        else:
            box = self._box(slide, rng)
            if self._settings.cut is not None:
                whole, one = whole_box(slide.spec, box), np.zeros(1, np.int64)
                return StreamRegion(one, box, slide, whole, key, most=n, undecided=True)
            corners = _inside(box, slide, n, rng)
        windows = WindowList(slide.spec, corners)
        around = region_of(np.arange(n), windows)
        return StreamRegion(around.index, around.box, slide, windows, key, most=n)

    def _box(self, slide: StreamSlide, rng: np.random.Generator) -> Box:
        if self._settings.regions is not None:
            return box_of(self._settings.regions(slide, rng), slide)
        assert slide.layout.positions is not None
        return _square(slide, self._settings.region_size, rng)

    def _slide(self, shares: NDArray[np.float64], rng: np.random.Generator) -> StreamSlide:
        """Draw a slide; one that cannot be opened is as if its turn had never come."""
        wanted = np.count_nonzero(shares)
        for i in rng.choice(len(shares), wanted, replace=False, p=shares).tolist():
            if i in self._failed:
                continue
            try:
                return self._slides.lend(self._sources[i])
            except Exception as error:
                if len(self._failed) + 1 == wanted or not may_be_left_out(error, self._settings):
                    raise
                self._failed.add(i)
                self._failures.slide(self._sources[i].id, error)
        raise AssertionError("the last slide that fails raises")

    def _shares(self) -> NDArray[np.float64]:
        """How likely each slide is, 0…1."""
        weights = self._settings.weights
        if weights == "equal":
            values = [1.0] * len(self._sources)
        elif weights == "area":
            values = [self._area(source) for source in self._sources]
        else:
            values = [
                weight(w, s.id) for w, s in zip(self._given(weights), self._sources, strict=True)
            ]
        total = np.array(values, np.float64)
        if not total.sum() > 0:
            raise GridError("no slide has a weight", do="give one of them more than 0")
        return total / total.sum()

    def _given(self, weights: Any) -> list[Any]:
        ids = [source.id for source in self._sources]
        if callable(weights):
            return [weights(name) for name in ids]
        if isinstance(weights, Mapping):
            missing = [name for name in ids if name not in weights]
            if missing:
                raise GridError(f"there is no weight for {missing[0]!r}", do="give one for each")
            return [weights[name] for name in ids]
        if len(weights) != len(ids):
            raise GridError(f"{len(weights)} weights for {len(ids)} slides", do="give one for each")
        return list(weights)

    def _area(self, source: Source) -> float:
        """Number of places where windows may begin; 0 for a slide that cannot be opened."""
        try:
            slide = self._slides.lend(source)
        except Exception as error:
            if not may_be_left_out(error, self._settings):
                raise
            self._failures.slide(source.id, error)
            return 0.0
        self._slides.give_back(slide)
        return float(slide.layout.count)


def _square(slide: StreamSlide, side: int, rng: np.random.Generator) -> Box:
    """A square around a place where a window may begin, inside the level."""
    assert slide.layout.positions is not None
    (corner,) = slide.layout.positions.draw(1, rng).tolist()
    sizes = [max(k, min(side, n)) for k, n in zip(slide.window, slide.level_shape, strict=True)]
    y, x = (
        max(0, min(at + k // 2 - size // 2, n - size))
        for at, k, size, n in zip(corner, slide.window, sizes, slide.level_shape, strict=True)
    )
    return y, x, sizes[0], sizes[1]


def _inside(box: Box, slide: StreamSlide, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of `n` windows inside a box, each equally likely."""
    room = np.subtract(box[2:], slide.window)
    if (room < 0).any():
        raise GridError(
            f"no window of {slide.window[0]} x {slide.window[1]} px fits a region of "
            f"{box[2]} x {box[3]} px",
            f"slide {slide.id}",
            "give larger regions",
        )
    return box[:2] + rng.integers(0, room + 1, size=(n, 2))
