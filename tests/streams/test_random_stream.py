"""Random windows: the same ones for a seed, whoever reads; each place as likely as any other."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import FaultySlide, noise_slide, pyramid_slide
from napari_wsi_heatmap.errors import GridError, SlideOpenError
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.streams.positions import Positions
from streams.stream_made import order_of, slides

SMALL = {"window": 32, "sampling": "random", "windows_per_region": 5, "region_size": 100, "mix": 3}


@pytest.mark.parametrize("readers", [2, 4])
def test_the_same_windows_in_the_same_order_however_many_read(readers):
    one, many = (
        order_of(wh.stream(slides(5), **SMALL, epoch_size=203, seed=7, readers=r, memory=m))
        for r, m in ((1, 64), (readers, 1))
    )
    assert one == many
    assert len(one) == 203
    other = order_of(wh.stream(slides(5), **SMALL, epoch_size=203, seed=8))
    assert other != one


def test_patches_are_the_pixels_at_their_places():
    made = slides(4)
    for x, names, windows in wh.stream(made, **SMALL, epoch_size=60):
        for patch, name, (top, left) in zip(x, names, windows.tolist(), strict=True):
            pixels = made[name].read_region(0, top, left, 32, 32)
            assert torch.equal(patch, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def test_without_epoch_size_it_never_ends():
    stream = wh.stream(slides(2), **SMALL, batch_size=10)
    assert len(list(islice(stream, 30))) == 30


def test_passes_differ_and_can_be_repeated():
    stream = wh.stream(slides(3), **SMALL, epoch_size=40)
    first, second = order_of(stream), order_of(stream)
    assert first != second
    stream.set_epoch(1)
    assert order_of(stream) == second
    stream.set_epoch(0)
    assert [order_of(stream), order_of(stream)] == [first, second]


def test_windows_of_several_regions_are_mixed():
    names = [at[0] for at in order_of(wh.stream(slides(6), **SMALL, epoch_size=150))]
    changes = sum(a != b for a, b in pairwise(names))
    assert changes > 50  # region by region there would be 29
    alone = {**SMALL, "mix": 1}
    names = [at[0] for at in order_of(wh.stream(slides(6), **alone, epoch_size=150))]
    assert sum(a != b for a, b in pairwise(names)) <= 29


def test_regions_that_are_more_than_the_memory_are_mixed_as_far_as_it_goes():
    asked = {"sampling": "random", "window": 400, "epoch_size": 40, "windows_per_region": 2}
    made = {"a": noise_slide(900, 900), "b": noise_slide(500, 700)}
    found = [order_of(wh.stream(made, **asked, memory=m, readers=r)) for m, r in ((1, 3), (1, 1))]
    assert len(found[0]) == 40
    assert found[0] == found[1]


def test_each_place_is_as_likely_as_any_other():
    grid = lay_grid(resolve_window(noise_slide(45, 70), 16), (45, 70))
    wanted = np.ones(grid.shape, bool)
    wanted[0, 1] = False
    positions = Positions(grid, wanted, 32)
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(4000):
        counts.update(map(tuple, positions.draw(5, rng).tolist()))
    allowed = {
        (y, x)
        for y in range(45 - 16 + 1)
        for x in range(70 - 16 + 1)
        if wanted[(2 * y + 16) // 32, (2 * x + 16) // 32]
    }
    assert len(positions) == len(allowed)
    assert set(counts) <= allowed
    expected = 20_000 / len(allowed)
    chi2 = sum((counts[at] - expected) ** 2 / expected for at in allowed)
    # Five places at a time are of one region: their counts vary more than independent ones.
    assert chi2 / len(allowed) < 1.25


@pytest.mark.parametrize("shape", [(32, 32), (10, 200), (33, 31), (5, 5)])
def test_slides_as_large_as_a_window_or_smaller(shape):
    found = order_of(wh.stream({"a": noise_slide(*shape)}, **SMALL, epoch_size=20))
    assert len(found) == 20
    assert all(0 <= y <= max(0, shape[0] - 32) for _, y, _ in found)
    assert all(0 <= x <= max(0, shape[1] - 32) for _, _, x in found)


def test_centres_lie_on_tissue():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 5] = True
    found = order_of(wh.stream({"a": noise_slide(640, 640)}, **SMALL, tissue=mask, epoch_size=200))
    assert all(128 <= y + 16 < 256 and 320 <= x + 16 < 384 for _, y, x in found)
    assert len({(y, x) for _, y, x in found}) > 150


def test_a_level_of_the_pyramid():
    found = order_of(wh.stream({"a": pyramid_slide()}, **SMALL, level=1, epoch_size=50))
    assert all(y % 4 == x % 4 == 0 for _, y, x in found)
    assert max(y for _, y, _ in found) > 800


def shares(**settings):
    found = order_of(wh.stream(slides(3), **{**SMALL, **settings}, epoch_size=2000))
    counts = Counter(name for name, *_ in found)
    return {name: counts[name] / len(found) for name in ("s0", "s1", "s2")}


def test_weights_of_slides():
    assert all(abs(share - 1 / 3) < 0.06 for share in shares().values())
    given = {"s0": 3, "s1": 0, "s2": 1}
    for weights in (given, [3, 0, 1], np.array([3, 0, 1]), given.get):
        found = shares(weights=weights)
        assert found["s1"] == 0
        assert abs(found["s0"] - 0.75) < 0.06
    area = {"s0": 369 * 269, "s1": 69 * 869, "s2": 302 * 33}
    found = shares(weights="area")
    for name, places in area.items():
        assert abs(found[name] - places / sum(area.values())) < 0.06


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1, 2], "2 weights for 3"), ({"s0": 1}, "no weight for 's1'"), ([0, 0, 0], "no slide has"),
     ([1, -1, 1], "weight of 's1'"), ([1, None, 1], "weight of 's1'")],
)  # fmt: skip
def test_weights_that_cannot_be(weights, message):
    with pytest.raises(GridError, match=message):
        next(wh.stream(slides(3), **SMALL, weights=weights))


def test_an_unreadable_slide_is_as_if_it_were_not_there(tmp_path):
    (tmp_path / "broken.svs").write_bytes(b"no slide at all")
    given = {**slides(2), "broken": tmp_path / "broken.svs"}
    for weights in ("equal", "area"):
        stream = wh.stream(given, **SMALL, epoch_size=101, weights=weights)
        found = order_of(stream)
        assert len(found) == 101
        assert {name for name, *_ in found} == {"s0", "s1"}
        assert list(stream.failed) == ["broken"]
    with pytest.raises(SlideOpenError, match="broken"):
        list(wh.stream(given, **SMALL, epoch_size=101, on_error="raise"))
    with pytest.raises(SlideOpenError, match="broken"):
        next(wh.stream({"broken": tmp_path / "broken.svs"}, **SMALL))


def test_a_region_with_damage_loses_the_windows_on_it():
    slide = FaultySlide(noise_slide(300, 300), bad=[(150, 150)])
    stream = wh.stream({"a": slide}, **SMALL, epoch_size=300)
    found = order_of(stream)
    touching = [at for at in found if 118 < at[1] <= 150 and 118 < at[2] <= 150]
    assert touching == []
    assert 0 < len(stream.failed_windows) <= 300 - len(found)


def test_memory_is_flat_over_many_slides_and_passes():
    made = {
        f"s{i}": noise_slide(150 + i, 260 - i) for i in range(100)
    }  # one array each, made once: nothing of it is counted below
    memory = 1
    stream = wh.stream(made, **{**SMALL, "windows_per_region": 8}, epoch_size=600, memory=memory)
    stream.count_windows()
    held, traced = [], []
    gc.collect()
    gc.disable()  # what a pass has held must go without it
    tracemalloc.start()
    try:
        for _ in range(10):
            peak = 0
            for _ in stream:
                peak = max(peak, stream.held_bytes)
            held.append(peak)
            traced.append(tracemalloc.get_traced_memory()[0])
            assert not stream._sessions
    finally:
        tracemalloc.stop()
        gc.enable()
    assert 0 < max(held) <= memory << 20
    assert max(traced[5:]) - max(traced[:5]) < 50_000
