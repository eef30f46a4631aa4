"""Regions read ahead: each once, bounded, failing exactly where the damage is, stoppable."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from made import FaultySlide, noise_slide
from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.cut import BatchCutter, _gathered
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.loader import Loader
from napari_wsi_heatmap.order import GridOrder
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tilecache import TileCache


def loader_of(slide, window=64, stride=48, cancel=None, **options):
    grid = lay_grid(resolve_window(slide, window, stride), slide.levels[0].shape)
    order = GridOrder(grid, np.ones(grid.shape, bool))
    cached = CachedSlide(slide, TileCache(64 << 20))
    return grid, Loader(cached, grid, order, cancel or threading.Event(), **options)


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_every_window_in_one_region(readers):
    grid, loader = loader_of(noise_slide(3000, 5000), readers=readers)
    index = np.concatenate([loaded.region.index for loaded in loader])
    assert sorted(index.tolist()) == list(range(grid.size))


def test_windows_cut_from_regions_equal_windows_read_alone():
    slide = noise_slide(2500, 2300)
    grid, loader = loader_of(slide, window=100, stride=77)
    cutter = BatchCutter(grid, 16, torch.device("cpu"))

    def batches():
        for loaded in loader:
            yield from cutter.cut(loaded)
        yield from cutter.tail()

    seen = 0
    for batch in batches():
        assert batch.patches.shape == (16, 3, 100, 100)
        assert not batch.patches[len(batch.index) :].any()
        for patch, (y, x) in zip(batch.patches, grid.origins(batch.index).tolist(), strict=False):
            assert np.array_equal(patch.permute(1, 2, 0), slide.read_region(0, y, x, 100, 100))
        seen += len(batch.index)
    assert seen == grid.size
    assert grid.size % 16  # the last batch has a tail


def test_regions_in_flight_are_bounded():
    limit = 3 * 3 * 2048 * 2048
    in_flight, most, lock = {}, 0, threading.Lock()
    slide = ArraySlide.from_callable(
        lambda level, y, x, h, w: np.zeros((h, w, 3), np.uint8), [(30_000, 9_000)]
    )
    _, loader = loader_of(slide, 256, 256, readers=4, memory=limit)
    original = loader._load

    def counting(region):
        nonlocal most
        with lock:
            in_flight[region.box] = 3 * region.box[2] * region.box[3]
            most = max(most, sum(in_flight.values()))
        return original(region)

    loader._load = counting
    for loaded in loader:
        with lock:  # its room is given back only when the next one is asked for
            del in_flight[loaded.region.box]
    assert limit / 2 < most <= limit


def test_a_region_larger_than_the_budget_is_still_read():
    grid, loader = loader_of(noise_slide(), memory=1)
    assert sum(len(loaded.region.index) for loaded in loader) == grid.size


def test_exactly_the_windows_over_the_damage_fail():
    slide = FaultySlide(noise_slide(1000, 1000), bad=[(500, 500), (30, 990)])
    grid, loader = loader_of(slide, 64, 40)
    failed, readable = {}, []
    for loaded in loader:
        failed |= loaded.failed
        readable += loaded.readable.tolist()
    for index, (y, x) in enumerate(grid.origins(np.arange(grid.size)).tolist()):
        touches = any(y <= by < y + 64 and x <= bx < x + 64 for by, bx in slide.bad)
        assert (index in failed) == touches
    assert sorted(readable + list(failed)) == list(range(grid.size))
    assert set(failed.values()) == {"a tile is damaged"}


def test_a_stalled_read_does_not_hold_up_a_cancel():
    slide, cancel = FaultySlide(noise_slide()), threading.Event()
    slide.gate.clear()
    _, loader = loader_of(slide, cancel=cancel)
    threading.Timer(0.2, cancel.set).start()
    assert list(loader) == []
    slide.gate.set()


def test_other_readers_go_on_beside_a_stalled_one():
    slide = FaultySlide(noise_slide(6000, 6000))
    stalled, original = threading.Event(), slide._read
    release = threading.Event()

    def read(level, y, x, height, width):
        if (y, x) == (0, 0) and not stalled.is_set():
            stalled.set()
            release.wait(60)
        return original(level, y, x, height, width)

    slide._read = read
    grid, loader = loader_of(slide, 256, 256, readers=2)
    regions = iter(loader)
    got = [next(regions).region.index for _ in range(5)]
    assert stalled.is_set()
    release.set()
    got += [loaded.region.index for loaded in regions]
    assert sorted(np.concatenate(got).tolist()) == list(range(grid.size))


def test_an_unexpected_error_of_a_reader_reaches_the_consumer():
    def read(level, y, x, height, width):
        raise ZeroDivisionError("a bug")

    _, loader = loader_of(ArraySlide.from_callable(read, [(500, 500)]))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(loader)


def test_a_closed_loader_lets_its_threads_go():
    slide = FaultySlide(noise_slide(6000, 6000))
    _, loader = loader_of(slide, 256, 256)
    next(iter(loader))
    loader.close()
    names = [t for t in threading.enumerate() if t.name.startswith("wsi-reader")]
    for thread in names:
        thread.join(10)
    assert not any(t.is_alive() for t in names)


def test_windows_gathered_as_on_a_gpu_are_those_copied_one_by_one():
    pixels = torch.from_numpy(noise_slide().read_region(0, 0, 0, 90, 130))
    corners = np.array([[0, 0], [3, 7], [58, 66], [3, 7]])
    gathered = _gathered(pixels, corners, 32, 64)
    one_by_one = [pixels[y : y + 32, x : x + 64] for y, x in corners.tolist()]
    assert torch.equal(gathered, torch.stack(one_by_one))
