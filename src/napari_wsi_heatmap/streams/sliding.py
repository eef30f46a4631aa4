"""The plan of a sliding window: every window of every slide, once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.blocks import REGION_BYTES
from napari_wsi_heatmap.order import GridOrder, region_of
from napari_wsi_heatmap.streams.failures import may_be_left_out
from napari_wsi_heatmap.streams.regions import StreamRegion, box_of, trouble, whole_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.streams.failures import Failures
    from napari_wsi_heatmap.streams.laid import OpenSlides, StreamSlide
    from napari_wsi_heatmap.streams.regions import Box, Trouble
    from napari_wsi_heatmap.streams.settings import StreamSettings
    from napari_wsi_heatmap.streams.sources import Source

    Index = NDArray[np.int64]


def sliding_regions(
    sources: Sequence[Source], slides: OpenSlides, settings: StreamSettings, failures: Failures
) -> Iterator[StreamRegion | Trouble]:
    """Lay out slide after slide; the regions of this part of the stream, in order.

    A slide that cannot be opened is reported, and the others go on; if none can, or the settings
    say so, its error comes in line.
    """
    key, part, parts, opened = 0, *settings.shard, 0
    for source in sources:
        try:
            slide = slides.lend(source)
        except Exception as error:  # noqa: BLE001 - raised in its turn
            only = not (opened or failures.others_read) and source is sources[-1]
            if only or not may_be_left_out(error, settings):
                yield trouble(error)
                return
            failures.slide(source.id, error)
            continue
        opened += 1
        try:
            for index, box in _boxes(slide, settings):
                if key % parts == part:
                    slides.lend(source)  # each region is given back when its windows are cut
                    yield _region(slide, index, box, key, settings)
                key += 1
        except Exception as error:  # noqa: BLE001 - of a hook, raised in its turn
            yield trouble(error)
            return
        finally:
            slides.give_back(slide, for_good=True)


def _region(
    slide: StreamSlide, index: Index, box: Box, key: int, settings: StreamSettings
) -> StreamRegion:
    if settings.cut is None:
        return StreamRegion(index, box, slide, slide.layout.grid, key)
    windows = whole_box(slide.spec, box)
    return StreamRegion(np.zeros(1, np.int64), box, slide, windows, key, undecided=True)


def _boxes(slide: StreamSlide, settings: StreamSettings) -> Iterator[tuple[Index, Box]]:
    """Windows that are read at once, and the box to read."""
    if settings.regions is not None:
        yield from _given_boxes(slide, settings)
        return
    nbytes = min(REGION_BYTES, settings.reading.memory_bytes // 8)
    tile = slide.cached.tile_shape(slide.level)
    order = GridOrder(slide.layout.grid, slide.layout.wanted, tile, region_bytes=nbytes)
    for region in order:
        yield region.index, region.box


def _given_boxes(slide: StreamSlide, settings: StreamSettings) -> Iterator[tuple[Index, Box]]:
    """Windows of the lattice that begin in the boxes of a hook; a second box gets none again."""
    assert settings.regions is not None
    left, grid = slide.layout.wanted.copy(), slide.layout.grid
    rng = np.random.default_rng([settings.seed, 0])
    for given in settings.regions(slide, rng):
        box = box_of(given, slide)
        if settings.cut is not None:
            yield np.zeros(0, np.int64), box
            continue
        rows, cols = (
            slice(*np.searchsorted(starts, [first, first + side]))
            for starts, first, side in zip(grid.starts, box[:2], box[2:], strict=True)
        )
        down, across = np.nonzero(left[rows, cols])
        left[rows, cols] = False
        if len(down):
            index = (down + rows.start) * grid.shape[1] + across + cols.start
            yield index, region_of(index, grid).box
    _tell_rest(slide, int(np.count_nonzero(left)), settings)


def _tell_rest(slide: StreamSlide, left: int, settings: Any) -> None:
    if left and settings.cut is None:
        logging.getLogger(__name__).warning(
            "%s: %d windows begin in none of the given regions and are not seen", slide.id, left
        )
