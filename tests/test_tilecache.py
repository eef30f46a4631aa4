import gc
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tilecache import TileCache

PIXELS = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)


class CountingSlide:
    """Pixels that say how often, and by how many at once, they were asked for."""

    def __init__(self, pixels=PIXELS):
        self.reads = Counter()
        self._lock = threading.Lock()
        self._pixels = pixels
        self.slide = ArraySlide.from_callable(self._read, [pixels.shape[:2]])

    def _read(self, level, y, x, height, width):
        with self._lock:
            self.reads[level, y, x] += 1
        return self._pixels[y : y + height, x : x + width]


@given(
    y=st.integers(-300, 800),
    x=st.integers(-300, 1000),
    height=st.integers(0, 600),
    width=st.integers(0, 600),
)
def test_a_box_through_the_cache_is_the_box_of_the_slide(y, x, height, width):
    slide = ArraySlide([PIXELS], background=(1, 2, 3))
    cached = CachedSlide(slide, TileCache())
    expected = slide.read_region(0, y, x, height, width)
    np.testing.assert_array_equal(cached.read_region(0, y, x, height, width), expected)


def test_each_tile_is_decoded_once_however_often_it_is_read():
    counting = CountingSlide()
    cached = CachedSlide(counting.slide, TileCache())
    for _ in range(3):
        for y in range(0, 600, 100):
            cached.read_region(0, y, 50, 100, 800)
    assert set(counting.reads.values()) == {1}
    assert len(counting.reads) == 3 * 4


def test_the_cache_never_holds_more_than_its_bound_and_drops_the_oldest():
    tile_bytes = 256 * 256 * 3
    cache = TileCache(3 * tile_bytes)
    counting = CountingSlide(np.zeros((256, 256 * 6, 3), np.uint8))
    cached = CachedSlide(counting.slide, cache)
    for x in (0, 256, 512, 0, 768, 1024):
        cached.read_region(0, 0, x, 256, 256)
        assert cache.bytes <= cache.max_bytes
    cached.read_region(0, 0, 0, 256, 256)
    assert counting.reads[0, 0, 0] == 1, "used again, so not the oldest"
    cached.read_region(0, 0, 256, 256, 256)
    assert counting.reads[0, 0, 256] == 2, "the oldest made room"
    assert cache.bytes == 3 * tile_bytes


def test_a_tile_larger_than_the_cache_is_read_but_not_kept():
    cache = TileCache(1000)
    cached = CachedSlide(ArraySlide([PIXELS]), cache)
    np.testing.assert_array_equal(cached.read_region(0, 0, 0, 300, 300), PIXELS[:300, :300])
    assert cache.bytes == 0


def test_threads_get_the_right_pixels_from_a_cache_too_small_for_them():
    cache = TileCache(2 * 256 * 256 * 3)
    cached = CachedSlide(ArraySlide([PIXELS]), cache)
    boxes = np.random.default_rng(1).integers(0, 500, (200, 2))

    def read(box):
        y, x = (int(v) for v in box)
        return np.array_equal(cached.read_region(0, y, x, 150, 150), PIXELS[y:, x:][:150, :150])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, boxes))
    assert cache.bytes <= cache.max_bytes
    assert cache.bytes == sum(tile.nbytes for tile in cache._tiles.values())


def test_two_slides_in_one_cache_are_kept_apart_even_after_one_is_gone():
    cache = TileCache()
    for value in range(20):
        cached = CachedSlide(ArraySlide([np.full((10, 10, 3), value, np.uint8)]), cache)
        assert cached.read_region(0, 0, 0, 10, 10).max() == value
        del cached
        gc.collect()


def test_two_readers_of_one_slide_share_its_tiles():
    counting, cache = CountingSlide(), TileCache()
    for _ in range(2):
        CachedSlide(counting.slide, cache).read_region(0, 0, 0, 700, 900)
    assert set(counting.reads.values()) == {1}


def test_clear_forgets_all():
    counting, cache = CountingSlide(), TileCache()
    cached = CachedSlide(counting.slide, cache)
    cached.read_region(0, 0, 0, 10, 10)
    cache.clear()
    assert cache.bytes == 0
    cached.read_region(0, 0, 0, 10, 10)
    assert counting.reads[0, 0, 0] == 2


def test_a_read_error_is_raised_and_nothing_is_kept():
    def read(level, y, x, height, width):
        raise OSError("not a JPEG")

    cache = TileCache()
    cached = CachedSlide(ArraySlide.from_callable(read, [(300, 300)]), cache)
    with pytest.raises((SlideReadError, OSError), match="not a JPEG"):
        cached.read_region(0, 0, 0, 10, 10)
    assert cache.bytes == 0


def test_what_is_kept_can_be_had_without_decoding_and_the_rest_not():
    counting, cache = CountingSlide(), TileCache()
    cached = CachedSlide(counting.slide, cache)
    cached.read_region(0, 0, 0, 400, 500)
    before, misses = counting.reads.total(), cache.misses
    out = np.empty((300, 400, 3), np.uint8)
    assert cached.holds_region(0, 90, 80, 300, 400)
    assert cached.peek_region(0, 90, 80, out)
    np.testing.assert_array_equal(out, PIXELS[90:390, 80:480])
    out[:] = 7
    assert not cached.holds_region(0, 90, 200, 300, 400)
    assert not cached.peek_region(0, 90, 200, out)
    assert (out == 7).all(), "untouched"
    assert (counting.reads.total(), cache.misses) == (before, misses)


def test_spare_tiles_never_drive_out_others_and_are_the_first_to_go():
    cache = TileCache(3 * 256 * 256 * 3)
    counting = CountingSlide(np.zeros((256, 256 * 8, 3), np.uint8))
    cached = CachedSlide(counting.slide, cache)
    cached.read_region(0, 0, 0, 256, 512)
    for x in (512, 768, 1024):
        cached.read_region(0, 0, x, 256, 256, spare=True)
    assert cached.holds_region(0, 0, 0, 256, 512)
    assert cached.holds_region(0, 0, 512, 256, 256), "while there is room"
    cached.read_region(0, 0, 1280, 256, 256)
    assert cached.holds_region(0, 0, 0, 256, 512)
    assert not cached.holds_region(0, 0, 512, 256, 256)
    assert cache.bytes <= cache.max_bytes


def test_a_smaller_bound_drops_the_oldest():
    cache = TileCache()
    cached = CachedSlide(ArraySlide([PIXELS]), cache)
    cached.read_region(0, 0, 0, 700, 900)
    cache.resize(2 * 256 * 256 * 3)
    assert cache.bytes <= cache.max_bytes == 2 * 256 * 256 * 3
    cache.resize(1 << 30)
    np.testing.assert_array_equal(cached.read_region(0, 0, 0, 700, 900), PIXELS)


def test_threads_that_want_one_tile_decode_it_once():
    counting = CountingSlide()
    cached = CachedSlide(counting.slide, TileCache())
    together = threading.Barrier(6)

    def read(_):
        together.wait(10)
        return [cached.read_region(0, y, 0, 200, 900).sum() for y in range(0, 500, 50)]

    with ThreadPoolExecutor(6) as pool:
        sums = list(pool.map(read, range(6)))
    assert all(s == sums[0] for s in sums)
    assert set(counting.reads.values()) == {1}


def test_a_tile_that_fails_fails_for_all_who_wait_for_it_and_can_be_tried_again():
    broken, together = threading.Event(), threading.Barrier(4)
    broken.set()

    def read(level, y, x, height, width):
        if broken.is_set():
            raise SlideReadError("a tile is damaged")
        return PIXELS[y : y + height, x : x + width]

    cached = CachedSlide(ArraySlide.from_callable(read, [PIXELS.shape[:2]]), TileCache())

    def fails(_):
        together.wait(10)
        with pytest.raises(SlideReadError):
            cached.read_region(0, 0, 0, 100, 100)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fails, range(4)))
    broken.clear()
    assert np.array_equal(cached.read_region(0, 0, 0, 100, 100), PIXELS[:100, :100])


@given(
    boxes=st.lists(st.tuples(st.integers(-40, 640), st.integers(-40, 840)), min_size=1, max_size=9),
    footprint=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_only_tiles_under_windows_are_decoded_and_the_windows_are_whole(boxes, footprint):
    counting, origins = CountingSlide(), np.array(boxes)
    cached = CachedSlide(counting.slide, TileCache())
    y, x = origins.min(0).tolist()
    height, width = (origins.max(0) + footprint - (y, x)).tolist()
    box = (y, x, height, width)
    wanted = cached.tiles_touched(0, box, origins, footprint)
    found = cached.read_region(0, *box, wanted=wanted)
    touched = set()
    for top, left in origins.tolist():
        expected = counting.slide.read_region(0, top, left, *footprint)
        inside = found[top - y : top - y + footprint[0], left - x : left - x + footprint[1]]
        np.testing.assert_array_equal(inside, expected)
        (r0, c0), (r1, c1) = cached.tiles_under(0, top, left, *footprint)
        touched |= {(r, c) for r in range(r0, r1) for c in range(c0, c1)}
    assert int(wanted.sum()) == len(touched)


@pytest.mark.parametrize(
    "box", [(-300, -400, 2000, 2500), (0, 0, 1500, 1700), (200, 100, 1200, 900)]
)
@pytest.mark.parametrize("margin", [0, 5, 300])
def test_a_box_with_much_inside_it_is_the_box_of_the_slide(box, margin):
    pixels = np.random.default_rng(1).integers(0, 256, (1400, 1500, 3), np.uint8)
    slide = ArraySlide([pixels], background=(1, 2, 3))
    cached = CachedSlide(slide, TileCache())
    wanted = cached.tiles_touched(0, box, np.array([box[:2]]), box[2:])
    found = cached.read_region(0, *box, wanted=wanted, inner=margin)
    np.testing.assert_array_equal(found, slide.read_region(0, *box))
    np.testing.assert_array_equal(cached.read_region(0, *box, wanted=wanted, inner=margin), found)
