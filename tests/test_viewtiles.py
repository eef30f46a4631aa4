import logging
import threading
import time
from collections import Counter

import numpy as np

from napari_wsi_heatmap import viewtiles
from napari_wsi_heatmap.pyramid import slide_pyramid
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tilecache import TileCache
from recording import Recorder, damaged


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
    monkeypatch.setattr(viewtiles, "RETRY_SECONDS", 0.0)
    pyramid.levels[0].compute()
    assert recorder.pixels[0] == 2 * 256 * 256


def test_nothing_wrong_is_kept_when_the_file_comes_back(monkeypatch):
    monkeypatch.setattr(viewtiles, "RETRY_SECONDS", 0.0)
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


def test_the_missing_data_files_of_a_real_slide_are_a_checker(data_dir):
    slide = open_slide(data_dir / "slides" / "mrxs" / "Mirax2-Fluorescence-2.mrxs")
    pyramid = slide_pyramid(slide, TileCache())
    missing = pyramid.levels[0][105_211:105_911, 12_632:13_232].compute()
    assert {144, 176} <= set(np.unique(missing))
    assert "Data0005.dat" in pyramid.problem
    y, x, height, width = (side // 16 for side in slide.bounds)
    expected = slide.read_region(4, y, x, height, width)
    got = pyramid.levels[4][y : y + height, x : x + width].compute()
    np.testing.assert_array_equal(got, expected)
