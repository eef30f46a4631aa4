import copy
import threading

import dask
import numpy as np
import pytest

from napari_wsi_heatmap.levels import halve
from napari_wsi_heatmap.pyramid import default_cache, layer_data, slide_pyramid
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tilecache import TileCache
from recording import Recorder, filled, levels_of, naive_half, noise


def test_levels_of_the_file_have_the_pixels_of_the_slide():
    arrays = [noise(2300, 1700), noise(575, 425)]
    pyramid = slide_pyramid(ArraySlide(arrays), TileCache())
    for level, array in zip(pyramid.plan, pyramid.levels, strict=True):
        if level.stored is not None:
            np.testing.assert_array_equal(array.compute(), arrays[level.stored])
    assert sum(level.stored is not None for level in pyramid.plan) == 2


@pytest.mark.parametrize(
    "name",
    [
        "aperio/CMU-1-Small-Region.svs",
        "ndpi/test3-TRITC 2 (560).ndpi",
        "tiff/large_image-yb10kx5k.zstd.tiff",
    ],
)
def test_levels_of_real_slides_have_the_pixels_of_the_slide(data_dir, name):
    slide = open_slide(data_dir / "slides" / name)
    pyramid = slide_pyramid(slide, TileCache())
    height, width = slide.levels[0].shape
    for array, planned in zip(pyramid.levels, pyramid.plan, strict=True):
        if planned.stored is not None:
            factor_y, factor_x = slide.levels[planned.stored].downsample
            y, x = int(height / 3 / factor_y), int(width / 3 / factor_x)
            box = (y, x, min(700, planned.shape[0] - y), min(600, planned.shape[1] - x))
            expected = slide.read_region(planned.stored, *box)
            got = array[y : y + box[2], x : x + box[3]].compute()
            np.testing.assert_array_equal(got, expected)


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


def test_a_duplicate_of_the_levels_reads_the_same_slide():
    rgb = noise(300, 200)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    np.testing.assert_array_equal(copy.deepcopy(pyramid.levels)[0].compute(), rgb)


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
    assert slide_pyramid(Recorder([(10, 10)]).slide).tiles.cache is default_cache
    assert default_cache.max_bytes == 512 << 20


def test_small_levels_stay_in_memory_when_the_cache_lost_them():
    recorder, cache = Recorder(levels_of(8000, 8000, 1, 4, 16)), TileCache()
    small = slide_pyramid(recorder.slide, cache).levels[-1]
    small.compute()
    before = recorder.total
    cache.clear()
    small.compute()
    assert recorder.total == before


def test_a_small_slide_is_right_at_once():
    rgb = noise(1220, 2967)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    assert pyramid.overview_ready.is_set()
    heard = []
    pyramid.on_overview(lambda: heard.append(1))
    assert heard == [1]
    assert pyramid.layer_levels == pyramid.levels
    np.testing.assert_array_equal(pyramid.levels[-1].compute(), halve(halve(rgb)))


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


def test_a_view_of_a_halved_level_stays_although_what_it_is_made_of_does_not_fit():
    recorder, cache = Recorder([(20_000, 20_000)]), TileCache(20 << 20)
    pyramid = slide_pyramid(recorder.slide, cache)
    view = pyramid.levels[1][:2048, :2048]
    view.compute()
    before = recorder.total
    assert before == 4096 * 4096, "48 MB"
    view.compute()
    assert recorder.total == before


def test_a_small_level_is_read_by_several_threads_each_tile_once():
    recorder = Recorder([(2000, 2600)])
    pyramid = slide_pyramid(recorder.slide, TileCache())
    both = threading.Barrier(2, timeout=20)
    inner, seen = recorder.slide._pixels, set()

    def read(*box):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait()
        return inner(*box)

    recorder.slide._pixels = read
    with dask.config.set(num_workers=2):
        assert pyramid.levels[1].compute().min() == 200
    assert recorder.total == 2000 * 2600


def test_every_level_gives_what_it_has_without_reading():
    rgb = noise(3000, 2100)
    for slide in (ArraySlide([rgb]), ArraySlide([rgb[:2000, :1900]])):
        pyramid = slide_pyramid(slide, TileCache())
        filled(pyramid)
        for view, array in zip(pyramid.views, pyramid.levels, strict=True):
            height, width = view.shape
            box = (height // 3, width // 4, height // 2, width // 2)
            out = np.zeros((*box[2:], 3), np.uint8)
            assert view.peek(*box[:2], out) == view.holds(*box) == (view.cost == 0)
            exact = array.compute()
            assert view.holds(*box)
            assert view.peek(*box[:2], out)
            y, x, h, w = box
            np.testing.assert_array_equal(out, exact[y : y + h, x : x + w])


def test_levels_know_what_a_pixel_costs():
    pyramid = slide_pyramid(Recorder(levels_of(60_000, 60_000, 1, 4)).slide, TileCache())
    # 32 Mpx and less are filled in the background.
    assert [view.cost for view in pyramid.views] == [1, 4, 1, 4, 0, 0, 0]
