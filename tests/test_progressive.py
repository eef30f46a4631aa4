import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import numpy as np
import pytest

from gated import Gated, position
from napari_wsi_heatmap.progressive import ProgressiveLevels
from napari_wsi_heatmap.pyramid import layer_data, slide_pyramid
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tilecache import TileCache
from recording import Recorder, levels_of, noise, wait_until

SHAPES = levels_of(4096, 4096, 1, 4)
BOX = np.s_[600:2100, 700:2600]


def pyramid_of(gated, **options):
    return slide_pyramid(gated.slide, TileCache(), **options)


def settled(progressive):
    wait_until(lambda: progressive.settled)


def coarser(pixels, y, x, height, width, ratio):
    """What a level `ratio` times finer shows of `pixels` meanwhile."""
    rows = ((np.arange(y, y + height) + 0.5) / ratio).astype(int)
    columns = ((np.arange(x, x + width) + 0.5) / ratio).astype(int)
    return pixels[np.ix_(rows, columns)]


def test_arrays_look_like_those_of_dask():
    pyramid = pyramid_of(Gated(SHAPES))
    for array, exact in zip(pyramid.progressive.levels, pyramid.levels, strict=True):
        assert (array.shape, array.dtype, array.ndim) == (exact.shape, exact.dtype, exact.ndim)
        assert array.size == exact.size
        assert array.chunks == tuple(sizes[0] for sizes in exact.chunks)


def test_a_slice_returns_while_tiles_are_held_up_with_coarser_pixels_then_the_exact_ones():
    gated = Gated(SHAPES)
    pyramid = pyramid_of(gated)
    small = pyramid.levels[2].compute()
    arrived = threading.Semaphore(0)
    pyramid.progressive.on_arrival(arrived.release)
    level = pyramid.progressive.levels[0]
    np.testing.assert_array_equal(level[BOX], coarser(small, 600, 700, 1500, 1900, 4))
    gated.gate.set()
    settled(pyramid.progressive)
    assert arrived.acquire(timeout=10)
    got = level[BOX]
    np.testing.assert_array_equal(got, position(600, 700, 1500, 1900))
    np.testing.assert_array_equal(got, pyramid.levels[0][BOX].compute())
    assert len(gated.begun()) == len(set(gated.begun())), "no tile twice"


def test_halved_levels_fill_in_as_well():
    gated = Gated(SHAPES)
    pyramid = pyramid_of(gated)
    small = pyramid.levels[2].compute()
    level = pyramid.progressive.levels[1]
    np.testing.assert_array_equal(level[300:500, 0:700], coarser(small, 300, 0, 200, 700, 2))
    gated.gate.set()
    settled(pyramid.progressive)
    np.testing.assert_array_equal(level[300:500, 0:700], pyramid.levels[1][300:500, 0:700])


def test_the_first_coarser_level_that_has_the_pixels_fills_in():
    shapes = levels_of(8192, 8192, 1, 2, 4, 8)
    arrays = [np.full((*shape, 3), 10 * index, np.uint8) for index, shape in enumerate(shapes)]
    held_up = threading.Event()

    def read(level, y, x, height, width):
        if level == 0:
            held_up.wait(20)
        return arrays[level][y : y + height, x : x + width]

    pyramid = slide_pyramid(ArraySlide.from_callable(read, shapes), TileCache())
    pyramid.levels[3].compute()
    pyramid.levels[1][:1024, :1024].compute()
    got = pyramid.progressive.levels[0][1536:2560, 1536:2560]
    assert set(np.unique(got[:512, :512])) == {10}
    assert set(np.unique(got[512:])) == {30}
    held_up.set()


def test_with_nothing_there_it_is_the_background():
    gated = Gated([(2500, 2500)])
    gated.slide.background = (250, 240, 230)
    progressive = pyramid_of(gated).progressive
    got = progressive.levels[0][:512, :512]
    assert np.unique(got.reshape(-1, 3), axis=0).tolist() == [[250, 240, 230]]
    progressive.cancel()
    gated.gate.set()


def test_missing_tiles_are_read_nearest_to_the_middle_first():
    gated = Gated(SHAPES)
    progressive = ProgressiveLevels(pyramid_of(gated).views, pyramid_of(gated).tiles, threads=1)
    progressive.levels[0][512:3584, 0:2560]
    gated.gate.set()
    settled(progressive)
    chunks = list(dict.fromkeys((y // 512, x // 512) for y, x in gated.begun()))
    assert len(chunks) == 30
    away = [np.hypot(256 + 512 * y - 2048, 256 + 512 * x - 1280) for y, x in chunks]
    assert away == sorted(away)


def test_the_newest_view_wins_and_tiles_of_the_last_are_never_decoded():
    gated = Gated(SHAPES)
    pyramid = pyramid_of(gated)
    progressive = ProgressiveLevels(pyramid.views, pyramid.tiles, threads=1)
    level = progressive.levels[0]
    level[0:2048, 0:2048]
    wait_until(lambda: len(gated.begun()) == 1)
    level[2048:4096, 2048:4096]
    gated.gate.set()
    settled(progressive)
    of_last = {(y // 512, x // 512) for y, x in gated.begun() if y < 2048}
    assert len(of_last) == 1, "only the chunk at work"
    np.testing.assert_array_equal(level[2048:4096, 2048:4096], position(2048, 2048, 2048, 2048))


def test_a_view_that_is_complete_asks_for_nothing():
    gated = Gated(SHAPES)
    gated.gate.set()
    pyramid = pyramid_of(gated)
    pyramid.levels[0][BOX].compute()
    before = len(gated.reads)
    np.testing.assert_array_equal(
        pyramid.progressive.levels[0][BOX], position(600, 700, 1500, 1900)
    )
    assert pyramid.progressive.settled
    assert len(gated.reads) == before


def test_other_threads_and_asarray_get_exact_pixels():
    gated = Gated(SHAPES)
    pyramid = pyramid_of(gated)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: pyramid.progressive.levels[0][:300, :300])
        gated.gate.set()
        np.testing.assert_array_equal(waiting.result(20), position(0, 0, 300, 300))
    np.testing.assert_array_equal(np.asarray(pyramid.progressive.levels[0]), pyramid.levels[0])


def test_unreadable_tiles_become_the_grey_checker_and_are_not_asked_for_again_and_again(caplog):
    gated = Gated(SHAPES, broken=lambda y, x: (y, x) == (256, 512))
    gated.gate.set()
    pyramid = pyramid_of(gated)
    arrivals = []
    pyramid.progressive.on_arrival(lambda: arrivals.append(1))
    level = pyramid.progressive.levels[0]
    level[:1024, :1024]
    settled(pyramid.progressive)
    count = len(arrivals)
    got = level[:1024, :1024]
    settled(pyramid.progressive)
    assert sorted(np.unique(got[256:512, 512:768])) == [144, 176]
    expected = position(0, 0, 1024, 1024)
    expected[256:512, 512:768] = got[256:512, 512:768]
    np.testing.assert_array_equal(got, expected)
    assert count == len(arrivals) == 4, "one for each chunk"


def test_a_cache_too_small_for_a_view_does_not_make_it_read_for_ever():
    recorder = Recorder(levels_of(4096, 4096, 1, 4))
    pyramid = slide_pyramid(recorder.slide, TileCache(1 << 20))
    level = pyramid.progressive.levels[0]
    for _ in range(3):
        level[:2048, :2048]
        settled(pyramid.progressive)
    assert recorder.pixels[0] == 2048 * 2048
    assert (level[:2048, :2048] == 200).all()
    level[2048:2560, :512]
    assert len(pyramid.progressive._arrived) == 0, "only what is on view is held"
    settled(pyramid.progressive)


def test_two_tiles_are_decoded_at_the_same_time():
    gated = Gated(SHAPES)
    pyramid = pyramid_of(gated)
    pyramid.progressive.levels[0][:1024, :1024]
    wait_until(lambda: gated.now >= 2)
    gated.gate.set()
    settled(pyramid.progressive)


def test_nothing_is_kept_alive_by_what_is_missing():
    gated = Gated(SHAPES)
    pyramid = pyramid_of(gated)
    pyramid.progressive.levels[0][:2048, :2048]
    wait_until(lambda: gated.now > 0)
    gone = ref(pyramid), ref(pyramid.progressive)
    del pyramid
    gated.gate.set()

    def collected():
        gc.collect()
        return gone[0]() is None and gone[1]() is None

    wait_until(collected)
    wait_until(lambda: all(t.name != "wsi-fill-in" for t in threading.enumerate()))
    assert len(gated.begun()) < 64


def test_a_layer_gets_them_on_request_and_the_exact_ones_in_its_metadata():
    rgb = noise(3000, 2000)
    levels, kwargs, _ = layer_data(ArraySlide([rgb]), progressive=True)
    pyramid = kwargs["metadata"]["pyramid"]
    assert pyramid.overview_ready.wait(20)
    assert levels[0] is pyramid.progressive.levels[0]
    assert levels[-1] is pyramid.views[-1].pixels, "the array being filled"
    np.testing.assert_array_equal(pyramid.levels[0].compute(), rgb)


@pytest.mark.parametrize(
    "key", [np.s_[5:9, 3], np.s_[-1], np.s_[:, :, 0], np.s_[90:10:-3, ::7, 1], np.s_[5:5]]
)
def test_slices_of_every_kind_mean_what_they_mean_in_numpy(key):
    rgb = noise(300, 200)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    pyramid.levels[0].compute()
    np.testing.assert_array_equal(pyramid.progressive.levels[0][key], rgb[key])
