import gc
import logging
import threading
from weakref import ref

import numpy as np
import pytest

from napari_wsi_heatmap import overview
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.levels import halve
from napari_wsi_heatmap.overview import FilledLevel
from napari_wsi_heatmap.placeholder import placeholder
from napari_wsi_heatmap.pyramid import slide_pyramid
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.base import Level, Slide
from napari_wsi_heatmap.tilecache import TileCache
from recording import Recorder, damaged, filled, noise, wait_until


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
    pyramid = slide_pyramid(Recorder([(4 * overview.BLOCK, 4096)]).slide, TileCache())
    heard = []
    pyramid.on_overview(lambda: heard.append(pyramid.overview_ready.is_set()))
    filled(pyramid)
    blocks = 4 * (4096 // overview.BLOCK)
    wait_until(lambda: len(heard) > blocks)
    assert heard == [False] * blocks + [True]


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


@pytest.mark.parametrize("thumbnail", [None, noise(90, 135)])
def test_what_is_shown_before_has_no_seams_between_the_parts_that_are_drawn(thumbnail):
    pyramid = slide_pyramid(WithThumbnail(thumbnail), TileCache())
    level = pyramid.views[2]
    draw = placeholder(WithThumbnail(thumbnail))
    whole = draw(level.shape, (0, 0, *level.shape))
    assert len(np.unique(whole)) > 1
    differences = np.abs(whole.astype(int) - level.read(0, 0, *level.shape))
    assert differences.max() <= 2


def test_it_is_drawn_only_where_somebody_looks():
    drawn = []

    def draw(shape, box):
        drawn.append(box)
        return np.full((box[2], box[3], 3), 9, np.uint8)

    level = FilledLevel((5000, 5000), draw)
    assert drawn == []
    assert level.read(600, 600, 10, 10).max() == 9
    level.write(np.full((4, 4, 3), 200, np.uint8), 1000, 1000)
    assert drawn == [(512, 512, 512, 512)], "once"
    assert level.read(990, 990, 20, 20).max() == 200
    assert level.pixels.min() == 9
    assert len(drawn) == len(set(drawn)) == 100
