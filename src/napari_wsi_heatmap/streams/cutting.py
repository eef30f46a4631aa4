"""Windows of a stream in their final order: of a region row by row, or mixed over several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.streams.failures import may_be_left_out, unreadable
from napari_wsi_heatmap.streams.regions import ReadRegion, Trouble, corners_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.loader import LoadedRegion
    from napari_wsi_heatmap.streams.failures import Failures
    from napari_wsi_heatmap.streams.regions import StreamRegion
    from napari_wsi_heatmap.streams.settings import StreamSettings

    Index = NDArray[np.int64]
    LetGo = Callable[[StreamRegion], None]


class CutRegion:
    """A region, and the windows that are cut from it.

    Attributes
    ----------
    region : StreamRegion
    corners : (n, 2) int64
        Top-left (y, x) of windows, pixels of the region.
    places : (n, 2) int64
        The same in whole level-0 pixels of the slide.
    """

    def __init__(self, loaded: LoadedRegion, region: StreamRegion, corners: Index) -> None:
        self._pixels: Any = loaded.pixels
        self.region = region
        self.corners = corners - np.asarray(region.box[:2])
        down = np.asarray(region.slide.spec.downsample)
        self.places = np.rint(corners * down).astype(np.int64)
        self._left = len(corners)

    @property
    def done(self) -> bool:
        """Whether all its windows are cut; it has no pixels any more."""
        return self._left == 0

    def cut(self, row: int, room: NDArray[np.uint8]) -> None:
        """Copy the pixels of a window; each once."""
        y, x = self.corners[row].tolist()
        room[...] = self._pixels[y : y + room.shape[0], x : x + room.shape[1]]
        self._left -= 1
        if self.done:
            self._pixels = None


class Cutter:
    """Finds the windows of regions, and brings them into their order.

    Parameters
    ----------
    settings : StreamSettings
    failures : Failures
    epoch : int
    let_go : callable
        Called with each region whose windows are cut.
    """

    def __init__(
        self, settings: StreamSettings, failures: Failures, epoch: int, let_go: LetGo
    ) -> None:
        self._settings, self._failures, self._epoch = settings, failures, epoch
        self._let_go = let_go
        self.failed = 0
        """Windows that could not be read."""

    def windows(self, regions: Iterator[LoadedRegion]) -> Iterator[tuple[CutRegion, int]]:
        """Windows in their order, each as its region and a row of that region's `corners`.

        Raises
        ------
        Exception
            What stands in line, or a hook raises.
        """
        mixture: list[CutRegion] = []
        for loaded in regions:
            region: Any = loaded.region
            if isinstance(region, Trouble):
                raise region.error
            mixture.append(self._cut_of(loaded, region))
            if region.last:
                yield from self._mixed(mixture)
                mixture = []
        yield from self._mixed(mixture)

    def _mixed(self, mixture: list[CutRegion]) -> Iterator[tuple[CutRegion, int]]:
        if not mixture:
            return
        which = np.repeat(np.arange(len(mixture)), [len(cut.corners) for cut in mixture])
        rows = np.concatenate([np.arange(len(cut.corners)) for cut in mixture])
        if self._settings.random:
            seed = [self._settings.seed, self._epoch, mixture[0].region.key, 1]
            order = np.random.default_rng(seed).permutation(len(rows))
            which, rows = which[order], rows[order]
        for cut in [cut for cut in mixture if cut.done]:
            self._let_go(cut.region)
        for number, row in zip(which.tolist(), rows.tolist(), strict=True):
            cut = mixture[number]
            yield cut, row
            if cut.done:
                self._let_go(cut.region)

    def _cut_of(self, loaded: LoadedRegion, region: StreamRegion) -> CutRegion:
        for index, why in loaded.failed.items():
            place = region.windows.positions(np.array([index], np.int64))[0]
            self._fail(region, (round(place[0]), round(place[1])), why)
        readable = loaded.readable
        if not region.undecided or not len(readable):
            return CutRegion(loaded, region, region.windows.origins(readable))
        return CutRegion(loaded, region, self._given(loaded, region))

    def _given(self, loaded: LoadedRegion, region: StreamRegion) -> Index:
        """Windows that the hook cuts from a region."""
        assert self._settings.cut is not None
        pixels = loaded.pixels.view()
        pixels.flags.writeable = False
        read = ReadRegion(region.slide, *region.box[:2], pixels)
        rng = np.random.default_rng([self._settings.seed, self._epoch, region.key, 2])
        return corners_of(self._settings.cut(read, rng), read)[: region.most]

    def _fail(self, region: StreamRegion, place: tuple[int, int], why: str) -> None:
        self.failed += 1
        error = unreadable(region.slide.id, place, why)
        if not may_be_left_out(error, self._settings):
            raise error
        self._failures.window(region.slide.id, place, why)
