import gc
import threading
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gated import Gated
from napari_wsi_heatmap.prefetch import SHARE, Glance, Motion, Prefetcher, boxes_ahead
from napari_wsi_heatmap.pyramid import slide_pyramid
from napari_wsi_heatmap.tilecache import TileCache
from recording import Recorder, levels_of, wait_until


class View:
    """All that `boxes_ahead` asks of a level."""

    shape, chunk = (10_000, 12_000), (512, 512)


BOX = (2_100, 3_100, 1_000, 1_500)
sides = st.integers(1, 6_000)
places = st.integers(-4_000, 12_000)
speeds = st.floats(-1e5, 1e5)


@given(st.tuples(places, places, sides, sides), st.builds(Motion, speeds, speeds))
def test_boxes_ahead_are_chunks_off_the_view_each_once_and_inside(box, motion):
    boxes = boxes_ahead(View, box, motion)
    assert len(boxes) == len(set(boxes))
    for y, x, height, width in boxes:
        assert y % 512 == x % 512 == 0
        assert 0 < height <= 512
        assert 0 < width <= 512
        assert y + height <= 10_000
        assert x + width <= 12_000
        apart = y >= box[0] + box[2] or box[0] >= y + height
        assert apart or x >= box[1] + box[3] or box[1] >= x + width


def test_a_camera_at_rest_gets_one_ring_nearest_to_the_middle_first():
    boxes = boxes_ahead(View, BOX, Motion())
    # Chunks on view: rows 4 to 6, columns 6 to 8.
    rows = {y // 512 for y, *_ in boxes}
    columns = {x // 512 for _, x, *_ in boxes}
    assert (rows, columns) == ({3, 4, 5, 6, 7}, {5, 6, 7, 8, 9})
    assert len(boxes) == 5 * 5 - 3 * 3 - 0
    away = [np.hypot(y + 256 - 2_600, x + 256 - 3_850) for y, x, *_ in boxes]
    assert away == sorted(away)


def test_what_lies_ahead_comes_before_what_lies_around():
    boxes = boxes_ahead(View, BOX, Motion(x=1_600.0))
    ahead = [box for box in boxes if box[1] >= 4_608 and 2_048 <= box[0] < 3_200]
    assert boxes[: len(ahead)] == ahead
    assert {x for _, x, *_ in ahead} == {4_608, 5_120, 5_632}, "as far as a view's length"
    assert [x for _, x, *_ in ahead] == sorted(x for _, x, *_ in ahead)
    assert any(x < 3_072 for _, x, *_ in boxes), "behind comes last, but comes"


@pytest.mark.parametrize(("motion", "first"), [(Motion(y=-900.0), 1_536), (Motion(y=900.0), 3_584)])
def test_it_looks_the_way_the_camera_goes(motion, first):
    assert boxes_ahead(View, BOX, motion)[0][0] == first


def test_a_view_beside_the_slide_has_nothing_ahead():
    assert boxes_ahead(View, (20_000, 0, 100, 100), Motion(5.0, 5.0)) == []


def test_a_pan_then_decodes_nothing():
    recorder = Recorder(levels_of(20_000, 20_000, 1, 4, 16))
    pyramid = slide_pyramid(recorder.slide, TileCache())
    pyramid.levels[0][4096:5632, 4096:6144].compute()
    prefetcher = Prefetcher(pyramid)
    prefetcher.look(Glance(0, (4096, 4096, 1536, 2048), Motion(x=2_000.0)))
    wait_until(lambda: prefetcher.idle)
    before = recorder.pixels[0]
    pyramid.levels[0][4096:5632, 5000:7048].compute()
    assert recorder.pixels[0] == before
    assert not {"MainThread"} & recorder.threads


def test_it_also_reads_ahead_for_halved_levels():
    recorder = Recorder(levels_of(20_000, 20_000, 1, 4, 16))
    pyramid = slide_pyramid(recorder.slide, TileCache())
    prefetcher = Prefetcher(pyramid)
    prefetcher.look(Glance(1, (4096, 4096, 512, 512), Motion()))
    wait_until(lambda: prefetcher.idle)
    before = recorder.total
    pyramid.levels[1][3584:5120, 3584:4096].compute()
    assert recorder.total == before > 0


@pytest.mark.parametrize(("zoom", "level"), [(1, 0), (-1, 2)])
def test_a_zoom_reads_the_level_that_comes_next(zoom, level):
    recorder = Recorder(levels_of(16_384, 16_384, 1, 2, 4, 8, 16))
    pyramid = slide_pyramid(recorder.slide, TileCache())
    prefetcher = Prefetcher(pyramid)
    prefetcher.look(Glance(1, (2048, 2048, 1024, 1024), Motion(zoom=zoom)))
    wait_until(lambda: prefetcher.idle)
    assert recorder.pixels[level] >= 1024 * 1024
    assert set(recorder.pixels) == {1, level}


def test_one_view_takes_a_bounded_share_of_the_cache():
    recorder, cache = Recorder([(60_000, 60_000)]), TileCache(64 << 20)
    pyramid = slide_pyramid(recorder.slide, cache)
    prefetcher = Prefetcher(pyramid)
    prefetcher.look(Glance(0, (9_000, 9_000, 9_000, 9_000), Motion(5e4, 5e4)))
    wait_until(lambda: prefetcher.idle)
    assert 0 < 3 * recorder.total <= cache.max_bytes * SHARE
    assert cache.bytes <= cache.max_bytes * SHARE


def test_levels_that_cost_too_much_are_left_alone():
    recorder = Recorder([(60_000, 60_000)])
    pyramid = slide_pyramid(recorder.slide, TileCache())
    for level, view in enumerate(pyramid.views):
        if view.cost > 16 or view.cost == 0:
            prefetcher = Prefetcher(pyramid)
            prefetcher.look(Glance(level, (512, 512, 512, 512)))
            wait_until(lambda p=prefetcher: p.idle)
    assert recorder.total == 0


def test_the_newest_view_wins():
    gated = Gated([(20_000, 20_000)])
    pyramid = slide_pyramid(gated.slide, TileCache())
    prefetcher = Prefetcher(pyramid, threads=1)
    prefetcher.look(Glance(0, (1024, 1024, 512, 512)))
    wait_until(lambda: len(gated.begun()) == 1)
    prefetcher.look(Glance(0, (10_240, 10_240, 512, 512)))
    gated.gate.set()
    wait_until(lambda: prefetcher.idle)
    stale = {(y // 512, x // 512) for y, x in gated.begun() if y < 5_000}
    assert len(stale) == 1, "only the chunk at work"
    assert len({(y // 512, x // 512) for y, x in gated.begun()} - stale) == 8


def test_it_waits_while_somebody_reads_what_is_on_view():
    recorder = Recorder([(20_000, 20_000)])
    pyramid = slide_pyramid(recorder.slide, TileCache())
    prefetcher = Prefetcher(pyramid)
    with pyramid.tiles.traffic.visible_read():
        prefetcher.look(Glance(0, (1024, 1024, 512, 512)))
        assert not pyramid.tiles.traffic.wait_clear(0.1)
        assert recorder.total == 0
    wait_until(lambda: prefetcher.idle)
    assert recorder.total == 8 * 512 * 512


def test_a_view_that_waits_forgets_the_last():
    recorder = Recorder([(20_000, 20_000)])
    pyramid = slide_pyramid(recorder.slide, TileCache())
    prefetcher = Prefetcher(pyramid)
    with pyramid.tiles.traffic.visible_read():
        prefetcher.look(Glance(0, (1024, 1024, 512, 512)))
        prefetcher.stop()
        wait_until(lambda: prefetcher.idle)
    assert recorder.total == 0


def test_it_stops_at_what_cannot_be_read():
    recorder = Recorder([(20_000, 20_000)], broken=lambda *box: True)
    pyramid = slide_pyramid(recorder.slide, TileCache())
    prefetcher = Prefetcher(pyramid, threads=1)
    prefetcher.look(Glance(0, (1024, 1024, 512, 512)))
    wait_until(lambda: prefetcher.idle)
    assert recorder.total == 512 * 512, "one chunk of eight"


def test_it_keeps_no_pyramid_alive_and_ends_with_it():
    gated = Gated([(20_000, 20_000)])
    pyramid = slide_pyramid(gated.slide, TileCache())
    prefetcher, gone = Prefetcher(pyramid), ref(pyramid)
    prefetcher.look(Glance(0, (1024, 1024, 2048, 2048)))
    wait_until(lambda: gated.now > 0)
    del pyramid
    gated.gate.set()
    wait_until(lambda: prefetcher.idle)
    gc.collect()
    assert gone() is None
    assert len({(y // 512, x // 512) for y, x in gated.begun()}) <= 2, "those at work"
    prefetcher.look(Glance(0, (0, 0, 512, 512)))
    assert prefetcher.idle
    wait_until(lambda: all(t.name != "wsi-prefetch" for t in threading.enumerate()))
