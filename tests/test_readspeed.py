import math
import threading
import time

import numpy as np
import pytest

from gated import Gated
from napari_wsi_heatmap import readspeed
from napari_wsi_heatmap.levels import plan_levels
from napari_wsi_heatmap.pyramid import slide_pyramid
from napari_wsi_heatmap.readspeed import VIEW, heaviest_view, is_slow, view_seconds
from napari_wsi_heatmap.slides.array import ArraySlide
from recording import Recorder, levels_of, wait_until


@pytest.mark.parametrize(
    ("factors", "views"),
    [((1, 2, 4, 8, 16), 1), ((1, 4, 16, 64), 4), ((1, 3, 9, 27), 4), ((1, 8), 16), ((1,), 64)],
)
def test_the_heaviest_view_is_that_of_the_level_halved_most_often(factors, views):
    plan = plan_levels(levels_of(80_000, 100_000, *factors))
    assert heaviest_view(plan) == views * VIEW


def test_a_small_slide_has_no_heavy_view():
    assert heaviest_view(plan_levels([(1000, 800)])) == 1000 * 800
    # The second level is all of the first, halved.
    assert heaviest_view(plan_levels([(1600, 1200)])) == 1600 * 1200


def test_the_costs_are_those_of_the_pyramid():
    for factors in ((1, 4, 16), (1, 2, 4, 8), (1, 16)):
        slide = Recorder(levels_of(50_000, 40_000, *factors)).slide
        costs = [
            view.cost * min(VIEW, view.shape[0] * view.shape[1])
            for view in slide_pyramid(slide).views
        ]
        assert heaviest_view(slide_pyramid(slide).plan) == max(costs)


def test_a_few_tiles_near_the_middle_of_what_was_scanned_are_read():
    recorder = Recorder([(50_000, 50_000)])
    recorder.slide.bounds = (10_000, 20_000, 2_000, 4_000)
    asked = []
    inner = recorder.slide._pixels
    recorder.slide._pixels = lambda *box: (asked.append(box), inner(*box))[1]
    assert 0 < view_seconds(recorder.slide) < math.inf
    assert len(asked) <= readspeed.TILES
    for _, y, x, height, width in asked:
        assert (height, width) == (256, 256)
        assert abs(y - 11_000) <= 256
        assert abs(x - 22_000) <= 256 * readspeed.TILES
    assert recorder.threads == {"wsi-measure"}


def test_time_for_a_tile_makes_a_slide_slow():
    def read(level, y, x, height, width):
        time.sleep(0.02)
        return np.zeros((height, width, 3), np.uint8)

    shapes = levels_of(80_000, 100_000, 1, 2, 4, 8, 16, 32, 64)
    assert view_seconds(ArraySlide.from_callable(read, shapes)) >= 0.02 * VIEW / 256**2 / 8
    assert is_slow(ArraySlide.from_callable(read, shapes))


def test_a_slide_that_does_not_answer_is_slow_and_is_not_waited_for():
    gated = Gated([(20_000, 20_000)])
    assert view_seconds(gated.slide) == math.inf
    assert len(gated.begun()) == 1
    gated.gate.set()
    wait_until(lambda: all(t.name != "wsi-measure" for t in threading.enumerate()))
    assert len(gated.begun()) == 1, "nobody waits for the others"


def test_a_slide_that_cannot_be_read_is_not_slow():
    assert not is_slow(Recorder([(20_000, 20_000)], broken=lambda *box: True).slide)
