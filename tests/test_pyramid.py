import copy
import gc
import logging
import threading
import time
from collections import Counter
from itertools import pairwise
from weakref import ref

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_wsi_heatmap import levels, overview
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.levels import LazyArray, chunk_for, halve, plan_levels
from napari_wsi_heatmap.pyramid import default_cache, layer_data, slide_pyramid
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.base import Level, Slide
from napari_wsi_heatmap.tilecache import TileCache

RNG = np.random.default_rng(7)


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def naive_half(rgb):
    """Mean of the pixels that exist under each 2 x 2 square, rounded half up, one by one."""
    height, width = -(-rgb.shape[0] // 2), -(-rgb.shape[1] // 2)
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            square = rgb[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, 3).astype(int)
            out[y, x] = (2 * square.sum(0) + len(square)) // (2 * len(square))
    return out


class Recorder:
    """A slide of any size made by a function, that knows what was read of it."""

    def __init__(self, shapes, value=200, broken=lambda level, y, x, height, width: False):
        self.pixels = Counter()
        self.threads = set()
        self._value, self._broken, self._lock = value, broken, threading.Lock()
        self.slide = ArraySlide.from_callable(self._read, shapes, mpp=0.25)

    def _read(self, level, y, x, height, width):
        with self._lock:
            self.pixels[level] += height * width
            self.threads.add(threading.current_thread().name)
        if self._broken(level, y, x, height, width):
            raise SlideReadError("not a JPEG", f"{y}, {x}")
        return np.full((height, width, 3), self._value, np.uint8)

    @property
    def total(self):
        return sum(self.pixels.values())


def levels_of(height, width, *factors):
    return [(-(-height // f), -(-width // f)) for f in factors]


def filled(pyramid):
    pyramid.start_overview()
    assert pyramid.overview_ready.wait(30)
    return pyramid


# the plan


@pytest.mark.parametrize(
    ("shapes", "factors"),
    [
        (levels_of(80_000, 100_000, 1, 4, 16, 64), [1, 2, 4, 8, 16, 32, 64, 128]),
        (levels_of(80_000, 100_000, 1), [1, 2, 4, 8, 16, 32, 64, 128]),
        (levels_of(9_001, 12_003, 1, 2, 4, 8, 16), [1, 2, 4, 8, 16]),
        (levels_of(3_000, 2_000, 1), [1, 2, 4]),
        (levels_of(500, 600, 1), [1]),
        (levels_of(30_000, 20_000, 1, 32), [1, 2, 4, 8, 16, 32]),
    ],
)
def test_levels_are_a_factor_2_apart_and_end_small(shapes, factors):
    plan = plan_levels(shapes)
    assert [level.shape for level in plan] == levels_of(*shapes[0], *factors)
    assert [level.shape for level in plan if level.stored is not None] == shapes
    assert max(plan[-1].shape) <= 1024


def test_levels_of_other_factors_stay_as_they_are():
    shapes = levels_of(30_000, 30_000, 1, 3, 10)
    plan = plan_levels(shapes)
    assert [level.shape for level in plan if level.stored is not None] == shapes
    assert [level.shape[0] for level in plan] == [30_000, 15_000, 10_000, 5_000, 3_000, 1_500, 750]


@given(
    st.lists(
        st.tuples(st.integers(1, 300_000), st.integers(1, 300_000)), min_size=1, max_size=6
    ).map(lambda shapes: sorted(shapes, key=lambda s: -s[0] * s[1]))
)
def test_areas_always_decrease_whatever_the_file_says(shapes):
    plan = plan_levels(shapes)
    areas = [level.shape[0] * level.shape[1] for level in plan]
    assert all(coarser < finer for finer, coarser in pairwise(areas))
    assert max(plan[-1].shape) <= 1024
    assert plan[0] == (shapes[0], 0)


# pixels


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_halving_is_the_mean_rounded_half_up_also_at_odd_borders(height, width, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(halve(rgb), naive_half(rgb))


def test_halving_keeps_the_extremes():
    assert halve(np.full((4, 4, 3), 255, np.uint8)).min() == 255
    assert halve(np.zeros((3, 3, 3), np.uint8)).max() == 0


def test_levels_of_the_file_have_the_pixels_of_the_slide():
    arrays = [noise(2300, 1700), noise(575, 425)]
    pyramid = slide_pyramid(ArraySlide(arrays), TileCache())
    for level, array in zip(pyramid.plan, pyramid.levels, strict=True):
        if level.stored is not None:
            np.testing.assert_array_equal(array.compute(), arrays[level.stored])
    assert sum(level.stored is not None for level in pyramid.plan) == 2


@pytest.mark.parametrize("shape", [(2301, 130), (300, 1101), (1025, 31)])
def test_halved_levels_are_exact_up_to_the_borders(shape):
    pyramid = slide_pyramid(ArraySlide([noise(*shape)]), TileCache())
    finer = pyramid.levels[0].compute()
    assert len(pyramid.levels) > 1
    for array in pyramid.levels[1:]:
        finer = naive_half(finer)
        np.testing.assert_array_equal(array.compute(), finer)


def test_a_level_between_two_of_the_file_is_made_of_the_finer_one():
    arrays = [noise(5000, 2600), np.zeros((1250, 650, 3), np.uint8)]
    pyramid = slide_pyramid(ArraySlide(arrays), TileCache())
    box = pyramid.levels[1][700:900, 1000:1300].compute()
    np.testing.assert_array_equal(box, naive_half(arrays[0][1400:1800, 2000:2600]))
    assert pyramid.levels[2].compute().max() == 0


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), slice(None), slice(None)),
        (slice(3, 90, 7), slice(80, 10, -3), 1),
        (5, slice(10, 20)),
        (slice(20, 20), slice(0, 5)),
        (-1, -2, slice(0, 2)),
        slice(40, 60),
    ],
)
def test_slices_of_every_kind_mean_what_they_mean_in_numpy(key):
    rgb = noise(1100, 120)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    np.testing.assert_array_equal(pyramid.levels[0][key].compute(), rgb[key])
    np.testing.assert_array_equal(LazyArray(pyramid._views[0])[key], rgb[key])


def test_arrays_are_lazy_uint8_rgb():
    recorder = Recorder(levels_of(80_000, 100_000, 1, 4, 16, 64))
    pyramid = slide_pyramid(recorder.slide, TileCache())
    assert recorder.total == 0
    for array, level in zip(pyramid.levels, pyramid.plan, strict=True):
        assert isinstance(array, dask.array.Array)
        assert array.shape == (*level.shape, 3)
        assert array.dtype == np.uint8
    pyramid.levels[0][50_000:50_100, 70_000:70_100].compute()
    assert recorder.total <= 4 * 256 * 256


def test_a_header_that_lies_about_its_size_costs_a_bounded_number_of_chunks():
    pyramid = slide_pyramid(Recorder([(1_000_000, 900_000)]).slide, TileCache())
    assert all(array.npartitions <= 40_000 for array in pyramid.levels)


def test_chunks_are_whole_tiles_where_tiles_are_ordinary():
    assert chunk_for((256, 256), (9000, 9000)) == (512, 512)
    assert chunk_for((480, 480), (9000, 9000)) == (480, 480)
    assert chunk_for((1024, 1024), (9000, 9000)) == (1024, 1024)
    assert chunk_for((256, 3840), (9000, 9000)) == (512, 512)


def test_a_duplicate_of_the_levels_reads_the_same_slide():
    rgb = noise(300, 200)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    np.testing.assert_array_equal(copy.deepcopy(pyramid.levels)[0].compute(), rgb)


# the cache under it


def test_a_tile_is_decoded_once_under_several_threads():
    counts, lock = Counter(), threading.Lock()

    def read(level, y, x, height, width):
        with lock:
            counts[y, x] += 1
        time.sleep(0.002)  # long enough for another thread to want the same tile
        return np.zeros((height, width, 3), np.uint8)

    slide = ArraySlide.from_callable(read, [(2000, 2000)])
    pyramid = slide_pyramid(slide, TileCache())
    threads = [threading.Thread(target=pyramid.levels[1].compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 64
    assert set(counts.values()) == {1}


def test_a_pan_reads_only_the_new_strip():
    recorder = Recorder([(50_000, 50_000)])
    array = slide_pyramid(recorder.slide, TileCache()).levels[0]
    array[8192:9728, 8192:10240].compute()
    before = recorder.total
    array[8192:9728, 8448:10496].compute()
    assert recorder.total - before == 1536 * 512, "one column of chunks"


def test_halved_tiles_are_kept_as_well():
    recorder, cache = Recorder(levels_of(40_000, 40_000, 1, 4, 16)), TileCache()
    array = slide_pyramid(recorder.slide, cache).levels[1]
    array[1000:3000, 1000:3000].compute()
    before, misses = recorder.total, cache.misses
    array[1000:3000, 1000:3000].compute()
    assert (recorder.total, cache.misses) == (before, misses)


def test_the_bound_of_the_cache_holds_while_reading_more_than_fits():
    cache = TileCache(8 << 20)
    recorder = Recorder([(4000, 4000)])
    slide_pyramid(recorder.slide, cache).levels[0].compute()
    assert cache.bytes <= 8 << 20
    assert recorder.total == 4000 * 4000


def test_all_slides_share_one_cache_unless_told():
    assert slide_pyramid(Recorder([(10, 10)]).slide)._tiles.cache is default_cache
    assert default_cache.max_bytes == 512 << 20


def test_small_levels_stay_in_memory_when_the_cache_lost_them():
    recorder, cache = Recorder(levels_of(8000, 8000, 1, 4, 16)), TileCache()
    small = slide_pyramid(recorder.slide, cache).levels[-1]
    small.compute()
    before = recorder.total
    cache.clear()
    small.compute()
    assert recorder.total == before


# a damaged file


def damaged(level, y, x, height, width):
    """The tile at (256, 512) of level 0 cannot be read."""
    return level == 0 and y < 512 and y + height > 256 and x < 768 and x + width > 512


def test_an_unreadable_tile_is_a_grey_checker_and_the_rest_is_right(caplog):
    pyramid = slide_pyramid(Recorder([(1000, 1000)], broken=damaged).slide, TileCache())
    told = []
    pyramid.on_problem(told.append)
    with caplog.at_level(logging.WARNING):
        picture = pyramid.levels[0].compute()
    bad = picture[256:512, 512:768]
    assert sorted(np.unique(bad)) == [144, 176]
    assert (picture == 200).sum() == 3 * (1000 * 1000 - 256 * 256)
    assert len(caplog.records) == 1
    assert told == [pyramid.problem] == [caplog.messages[0]]
    assert "not a JPEG" in pyramid.problem


def test_a_slide_with_many_bad_tiles_is_reported_once_and_late_listeners_hear_it(caplog):
    recorder = Recorder([(3000, 3000)], broken=lambda *box: True)
    pyramid = slide_pyramid(recorder.slide, TileCache())
    with caplog.at_level(logging.WARNING):
        for array in pyramid.levels:
            array.compute()
    assert len(caplog.records) == 1
    told = []
    pyramid.on_problem(told.append)
    assert told == [pyramid.problem]


def test_a_bad_tile_is_not_asked_for_at_every_pan_but_again_later(monkeypatch):
    recorder = Recorder([(256, 256)], broken=lambda *box: True)
    pyramid = slide_pyramid(recorder.slide, TileCache())
    pyramid.levels[0].compute()
    pyramid.levels[0].compute()
    assert recorder.pixels[0] == 256 * 256
    monkeypatch.setattr(levels, "RETRY_SECONDS", 0.0)
    pyramid.levels[0].compute()
    assert recorder.pixels[0] == 2 * 256 * 256


def test_nothing_wrong_is_kept_when_the_file_comes_back(monkeypatch):
    monkeypatch.setattr(levels, "RETRY_SECONDS", 0.0)
    away = threading.Event()
    away.set()
    recorder = Recorder([(2500, 2500)], broken=lambda *box: away.is_set())
    cache = TileCache()
    pyramid = slide_pyramid(recorder.slide, cache)
    assert pyramid.levels[-1].compute().max() <= 176
    assert cache.bytes == 0
    away.clear()
    for array in pyramid.levels:
        assert array.compute().min() == 200


def test_whatever_a_function_raises_the_viewer_goes_on():
    def read(level, y, x, height, width):
        raise ZeroDivisionError

    pyramid = slide_pyramid(ArraySlide.from_callable(read, [(100, 100)]), TileCache())
    assert set(np.unique(pyramid.levels[0].compute())) == {144, 176}


# the overview of a slide without small levels


def test_a_small_slide_is_right_at_once():
    rgb = noise(1220, 2967)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    assert pyramid.overview_ready.is_set()
    heard = []
    pyramid.on_overview(lambda: heard.append(1))
    assert heard == [1]
    assert pyramid.layer_levels == pyramid.levels
    np.testing.assert_array_equal(pyramid.levels[-1].compute(), halve(halve(rgb)))


def test_a_large_slide_without_pyramid_is_filled_by_a_thread_exactly():
    rgb = noise(3100, 4301)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    assert not pyramid.overview_ready.is_set()
    filled(pyramid)
    finer = rgb
    for array, layer_level in zip(pyramid.levels[1:], pyramid.layer_levels[1:], strict=True):
        finer = halve(finer)
        np.testing.assert_array_equal(array.compute(), finer)
        np.testing.assert_array_equal(layer_level, finer)


def test_before_that_it_shows_a_light_hatch_and_reads_nothing():
    recorder = Recorder([(40_000, 30_000)])
    recorder.slide.background = (240, 230, 220)
    pyramid = slide_pyramid(recorder.slide, TileCache())
    picture = pyramid.levels[-1].compute()
    assert recorder.total == 0
    assert np.median(picture.reshape(-1, 3), axis=0).tolist() == [240, 230, 220]
    assert picture.min() > 180
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 2


class WithThumbnail(Slide):
    """A large white slide whose file holds a picture of it."""

    path, name, backend, mpp, bounds = "<big>", "big", "test", None, (0, 0, 8000, 12_000)
    levels = (Level((8000, 12_000), (1.0, 1.0)),)
    fingerprint = "0"

    def __init__(self, thumbnail):
        self._thumbnail = thumbnail

    @property
    def associated_images(self):
        if self._thumbnail is None:
            raise SlideReadError("broken thumbnail")
        return {"thumbnail": self._thumbnail}

    def _read(self, level, y, x, height, width):
        return np.full((height, width, 3), 255, np.uint8), None

    def close(self):
        pass


def test_before_that_it_shows_the_thumbnail_of_the_file():
    red = np.full((80, 120, 3), (200, 10, 20), np.uint8)
    picture = slide_pyramid(WithThumbnail(red), TileCache()).levels[-1].compute()
    assert np.unique(picture.reshape(-1, 3), axis=0).tolist() == [[200, 10, 20]]


def test_a_broken_thumbnail_is_no_obstacle():
    assert slide_pyramid(WithThumbnail(None), TileCache()).levels[-1].compute().min() > 200


def test_a_thumbnail_of_another_field_is_not_shown():
    square = np.full((100, 100, 3), (200, 10, 20), np.uint8)
    picture = slide_pyramid(WithThumbnail(square), TileCache()).levels[-1].compute()
    assert (200, 10, 20) not in set(map(tuple, picture.reshape(-1, 3)))


def test_the_thread_reads_each_pixel_once_in_blocks_of_bounded_size():
    sizes = []
    recorder = Recorder([(9000, 7000)])
    inner = recorder._read
    recorder.slide._pixels = lambda *box: (sizes.append(box[3] * box[4]), inner(*box))[1]
    filled(slide_pyramid(recorder.slide, TileCache()))
    assert recorder.total == 9000 * 7000
    assert max(sizes) <= overview.BLOCK**2
    assert recorder.threads == {"overview"}


def test_starting_twice_is_starting_once():
    recorder = Recorder([(4000, 4000)])
    pyramid = slide_pyramid(recorder.slide, TileCache())
    for _ in range(3):
        pyramid.start_overview()
    filled(pyramid)
    assert recorder.total == 4000 * 4000


def test_listeners_hear_of_progress_and_of_the_end(monkeypatch):
    monkeypatch.setattr(overview, "NOTIFY_SECONDS", 0.0)
    pyramid = slide_pyramid(Recorder([(8192, 4096)]).slide, TileCache())
    heard = []
    pyramid.on_overview(lambda: heard.append(pyramid.overview_ready.is_set()))
    filled(pyramid)
    wait_until(lambda: len(heard) == 9)
    assert heard == [False] * 8 + [True]


def test_an_unreadable_part_keeps_the_hatch_and_the_rest_is_filled(caplog):
    recorder = Recorder([(8000, 4000)], broken=damaged)
    pyramid = slide_pyramid(recorder.slide, TileCache())
    with caplog.at_level(logging.WARNING):
        filled(pyramid)
    half = pyramid.levels[1].compute()
    missing = half[..., 0] != 200
    assert missing[128:256, 256:384].all()
    assert missing.sum() == 128 * 128
    assert len(caplog.records) == 1


def test_a_file_that_is_gone_is_given_up(caplog):
    recorder = Recorder([(60_000, 60_000)], broken=lambda *box: True)
    pyramid = slide_pyramid(recorder.slide, TileCache())
    filled(pyramid)
    assert recorder.total < 300 * overview.BLOCK**2


def test_the_thread_stops_when_told_and_what_is_there_stays():
    go_on = threading.Semaphore(2)

    def wait(*box):
        go_on.acquire()
        return False

    pyramid = slide_pyramid(Recorder([(16_000, 16_000)], broken=wait).slide, TileCache())
    pyramid.start_overview()
    wait_until(lambda: (pyramid.levels[-1].compute() == 200).any())
    pyramid.stop_overview()
    for _ in range(2):
        go_on.release()
    assert pyramid.overview_ready.wait(10)
    assert (pyramid.levels[-1].compute() != 200).any()


def test_the_thread_ends_when_nobody_holds_the_pyramid():
    gate = threading.Semaphore(1)
    recorder = Recorder([(30_000, 30_000)], broken=lambda *box: not gate.acquire())
    pyramid = slide_pyramid(recorder.slide, TileCache())
    pyramid.start_overview()
    thread, gone = pyramid._overview._thread, ref(pyramid._overview)
    wait_until(lambda: recorder.total > 0)
    del pyramid
    gc.collect()
    gate.release(300)
    thread.join(10)
    assert not thread.is_alive()
    gc.collect()
    assert gone() is None
    assert recorder.total < 30_000 * 30_000


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


# as a layer


def test_layer_data_of_a_calibrated_slide_is_in_micrometres():
    slide = ArraySlide([noise(300, 200)], mpp=(0.5, 0.25), name="a slide")
    data, kwargs, kind = layer_data(slide)
    assert kind == "image"
    assert [array.shape for array in data] == [(300, 200, 3)]
    assert kwargs["scale"] == (0.5, 0.25)
    assert kwargs["units"] == ("um", "um")
    assert kwargs["axis_labels"] == ("y", "x")
    assert kwargs["name"] == "a slide"
    assert kwargs["cache"] is False
    assert kwargs["rgb"] is kwargs["multiscale"] is True
    assert kwargs["contrast_limits"] == (0, 255)
    assert kwargs["metadata"]["slide"] is slide
    assert kwargs["metadata"]["pyramid"].slide is slide
    assert kwargs["metadata"]["path"] == "<a slide>"
    assert kwargs["metadata"]["warnings"] == ()


def test_layer_data_of_an_uncalibrated_slide_claims_no_unit():
    kwargs = layer_data(ArraySlide([noise(300, 200)]))[1]
    assert "scale" not in kwargs
    assert "units" not in kwargs


def test_layer_data_starts_the_overview():
    kwargs = layer_data(Recorder([(4000, 4000)]).slide)[1]
    assert kwargs["metadata"]["pyramid"].overview_ready.wait(10)


def test_repr_names_sizes_and_what_is_made():
    text = repr(slide_pyramid(ArraySlide([noise(1500, 200)]), TileCache()))
    assert text == "<Pyramid 'array': 1500 x 200, 750 x 100* (*: made by halving)>"
