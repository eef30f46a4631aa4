"""What users may put in: regions, windows cut from them, reading."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import FaultySlide, noise_slide, pyramid_slide
from napari_wsi_heatmap.errors import GridError, SlideReadError
from streams.stream_made import by_window, naive, order_of, slides


def strips(slide, rng):
    """Full-width strips a window high, as PyDmed reads them."""
    del rng
    height, width = slide.level_shape
    for y in range(0, height, slide.window[0]):
        yield y, 0, slide.window[0], width


def halves(slide, rng):
    """Two boxes that overlap and cover the slide, from the bottom up."""
    del rng
    height, width = slide.level_shape
    yield height // 2 - 10, 0, height, width
    yield 0, 0, height // 2 + 100, width


@pytest.mark.parametrize("regions", [strips, halves])
@pytest.mark.parametrize("edge", ["pad", "flush"])
def test_given_regions_change_the_order_and_nothing_else(regions, edge):
    made = slides(6)
    asked = {"window": 64, "stride": 48, "edge": edge}
    plain = by_window(wh.stream(made, **asked))
    found = by_window(wh.stream(made, **asked, regions=regions))
    assert plain.keys() == found.keys()
    assert all(torch.equal(found[key], patch) for key, patch in plain.items())


def test_windows_that_begin_in_no_region_are_told(caplog):
    def top(slide, rng):
        yield 0, 0, 100, slide.level_shape[1]

    slide = noise_slide(640, 640)
    found = by_window(wh.stream({"a": slide}, window=64, regions=top))
    assert {y for _, y, _ in found} == {0, 64}
    assert "80 windows begin in none" in caplog.text


def darkest(region, rng):
    """The two darkest windows of a region, found by looking at its pixels."""
    del rng
    h, w = region.slide.window
    corners = [
        (region.pixels[y : y + h, x : x + w].mean(), region.y + y, region.x + x)
        for y in range(0, region.height - h + 1, h)
        for x in range(0, region.width - w + 1, w)
    ]
    return np.array(sorted(corners)[:2])[:, 1:]


def test_windows_are_cut_by_what_a_region_shows():
    slide = noise_slide(640, 640)
    found = by_window(wh.stream({"a": slide}, window=64, cut=darkest, memory=1))
    means = {at: patch.mean().item() for at, patch in naive(slide).items()}
    assert 2 <= len(found) < 100
    whole = by_window(wh.stream({"a": slide}, window=64, cut=darkest))
    assert set(min(means.items(), key=lambda item: item[1])[0]) == set(
        min(whole.items(), key=lambda item: item[1].mean())[0][1:]
    )


def anywhere(slide, rng):
    height, width = slide.level_shape
    return int(rng.integers(height - 99)), int(rng.integers(width - 119)), 100, 120


def corner_windows(region, rng):
    return [(region.y, region.x), (region.y + rng.integers(30), region.x)]


def test_random_regions_and_windows_of_the_user():
    slide = noise_slide(400, 500)
    asked = {"window": 32, "sampling": "random", "epoch_size": 64, "windows_per_region": 4}
    inside = order_of(wh.stream({"a": slide}, **asked, regions=anywhere))
    again = order_of(wh.stream({"a": slide}, **asked, regions=anywhere, readers=5))
    assert inside == again
    assert len(inside) == 64
    cut = order_of(wh.stream({"a": slide}, **asked, regions=anywhere, cut=corner_windows))
    assert len(cut) == 32  # two of each of the 16 regions
    alone = order_of(wh.stream({"a": slide}, **asked, cut=corner_windows, region_size=64))
    assert len(alone) == 32
    assert alone == order_of(wh.stream({"a": slide}, **asked, cut=corner_windows, region_size=64))


def test_a_reader_of_the_user():
    slide, threads, lock = pyramid_slide(), set(), threading.Lock()

    def inverted(given, y, x, height, width):
        with lock:
            threads.add(threading.current_thread().name)
        return 255 - given.slide.read_region(given.level, y, x, height, width)

    found = by_window(wh.stream({"a": slide}, window=50, level=1, read=inverted))
    wanted = naive(slide, 50, level=1)
    assert {key[1:] for key in found} == set(wanted)
    for (_, *at), patch in found.items():
        assert torch.allclose(patch, 1 - wanted[tuple(at)], atol=1e-6)
    assert all(name.startswith("wsi-reader") for name in threads)


def test_what_the_users_reader_cannot_read_fails():
    def read(slide, y, x, height, width):
        if y == 0:
            raise SlideReadError("not today")
        return slide.slide.read_region(0, y, x, height, width)

    stream = wh.stream({"a": noise_slide(640, 640)}, window=64, read=read, regions=strips)
    assert len(by_window(stream)) == 90
    assert len(stream.failed_windows) == 10
    assert set(stream.failed_windows.values()) == {"not today"}


def wrong(result):
    return lambda *_: result


@pytest.mark.parametrize(
    ("hooks", "error", "message"),
    [
        ({"regions": wrong([(0, 0, 5)])}, GridError, r"regions\(\) gave"),
        ({"regions": wrong([(0, 0, 0, 5)])}, GridError, r"regions\(\) gave"),
        ({"cut": wrong([[0, 0, 0]])}, GridError, r"cut\(\) gave"),
        ({"cut": wrong([[10**6, 0]])}, GridError, "reach out of the region"),
        ({"cut": wrong([[0.5, 0]])}, GridError, "reach out of the region"),
        ({"read": wrong(np.zeros((5, 5, 3), np.uint8))}, SlideReadError, r"read\(\) returned"),
        ({"transform": lambda x: x / None}, TypeError, "unsupported"),
        ({"regions": lambda s, r: 1 / 0}, ZeroDivisionError, "division"),
        ({"level": lambda s: 1 / 0}, ZeroDivisionError, "division"),
        ({"read": lambda *_: 1 / 0}, ZeroDivisionError, "division"),
        ({"cut": lambda *_: 1 / 0}, ZeroDivisionError, "division"),
    ],
)
def test_an_error_of_a_hook_ends_the_stream_and_its_threads(hooks, error, message):
    with pytest.raises(error, match=message):
        list(wh.stream(noise_slide(), window=64, **hooks))


def test_no_windows_of_a_region_is_fine():
    assert list(wh.stream(noise_slide(), window=64, cut=wrong([]))) == []
    asked = {"sampling": "random", "epoch_size": 32, "windows_per_region": 4, "window": 64}
    assert list(wh.stream(noise_slide(), cut=wrong([]), **asked)) == []


def test_a_region_too_small_for_a_window_is_told():
    with pytest.raises(GridError, match="no window of 64"):
        next(wh.stream(noise_slide(), window=64, sampling="random", regions=wrong((0, 0, 9, 99))))


def test_a_region_that_is_more_than_the_memory_is_read_alone():
    slide = FaultySlide(noise_slide(1200, 1200))
    whole = lambda given, rng: [(0, 0, 1200, 1200), (0, 0, 1200, 1200)]  # noqa: E731
    assert len(by_window(wh.stream({"a": slide}, window=64, memory=1, regions=whole))) == 19 * 19
