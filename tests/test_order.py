"""Every window exactly once, whatever the order; what is looked at first."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_wsi_heatmap.blocks import region_side
from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.listorder import ListOrder
from napari_wsi_heatmap.order import BLOCK_SIDE, GridOrder
from napari_wsi_heatmap.sparse import (
    one_of_each_square,
    sparse_step,
    tiles_touched,
    tiles_under,
)


def grid_of(height, width, window=64, stride=64, edge="pad", down=1.0):
    spec = WindowSpec(0, (down, down), (window, window), (window, window), (stride, stride))
    return lay_grid(spec, (height, width), edge)


def taken(order):
    return [region.index for region in iter(order.take, None)]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.sampled_from([100, 224, 3000]),
    st.sampled_from([90, 224, 500]),
    st.sampled_from(["raster", "viewport"]),
    st.integers(0, 2**32 - 1),
)
def test_every_pending_window_once(height, width, window, stride, order, seed):
    grid = grid_of(height, width, window, stride)
    pending = np.random.default_rng(seed).random(grid.shape) < 0.6
    index = taken(GridOrder(grid, pending, order=order, viewport=(0, 0, 500, 700)))
    assert sorted(np.concatenate(index or [[]]).tolist()) == np.flatnonzero(pending).tolist()


def test_moving_the_viewport_neither_loses_nor_doubles():
    grid = grid_of(20_000, 20_000, 224, 200)
    pending = np.ones(grid.shape, bool)
    order = GridOrder(grid, pending, order="viewport", viewport=(0, 0, 2000, 2000))
    got = []
    for corner in (0, 15_000, 8_000, 15_000):
        order.look_at((corner, corner, corner + 3000, corner + 3000))
        got += [order.take().index for _ in range(3)]
    got += taken(order)
    assert sorted(np.concatenate(got).tolist()) == list(range(grid.size))


def test_the_sparse_pass_goes_on_after_a_look_elsewhere():
    grid = grid_of(30_000, 26_000, 256, 256)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport")
    assert len(order.take().index) == 1
    order.look_at((20_000, 10_000, 22_000, 13_000))
    regions = [order.take() for _ in range(40)]
    singles = [len(region.index) == 1 for region in regions]
    assert not singles[0]
    assert singles.index(True) < 10
    assert all(singles[singles.index(True) :])


@pytest.mark.parametrize("most", [1, 7, 32, 500])
def test_regions_of_a_slow_model_are_small(most):
    grid = grid_of(5000, 7000, 100, 50)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport", most=most)
    index = taken(order)
    assert max(map(len, index)) <= most
    assert sorted(np.concatenate(index).tolist()) == list(range(grid.size))


def test_threads_share_an_order():
    grid = grid_of(8000, 8000)
    order, got, lock = GridOrder(grid, np.ones(grid.shape, bool)), [], threading.Lock()

    def work():
        for index in taken(order):
            with lock:
                got.append(index)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(np.concatenate(got).tolist()) == list(range(grid.size))


def test_what_is_looked_at_comes_first():
    grid = grid_of(30_000, 30_000, 256, 256)
    view = (20_000, 10_000, 22_000, 13_000)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport", viewport=view)
    first = order.take()
    centre = grid.positions(first.index) + 128
    assert ((centre >= view[:2]) & (centre < view[2:])).all()


def test_a_view_wider_than_a_block_gets_a_rough_map_first():
    grid = grid_of(60_000, 60_000, 256, 256)
    pending = np.ones(grid.shape, bool)
    view = (20_000, 30_000, 50_000, 60_000)
    order = GridOrder(grid, pending, order="viewport", viewport=view)
    step = sparse_step(grid, pending, (256, 256))
    sparse = [order.take().index for _ in range(len(pending[::step, ::step].ravel()))]
    assert {len(index) for index in sparse} == {1}
    centres = grid.positions(np.concatenate(sparse)) + 128
    seen = ((centres >= view[:2]) & (centres < view[2:])).all(1)
    assert seen.any()
    assert not seen[int(seen.sum()) :].any()
    block = grid.positions(order.take().index)
    middle = np.array([35_000, 45_000])
    assert np.abs(block - middle).max() < BLOCK_SIDE


def test_a_regions_box_holds_its_windows():
    grid = grid_of(5000, 7000, 200, 150)
    for region in iter(GridOrder(grid, np.ones(grid.shape, bool)).take, None):
        y, x, height, width = region.box
        origins = grid.origins(region.index)
        assert (origins >= (y, x)).all()
        assert (origins + 200 <= (y + height, x + width)).all()
        assert max(height, width) <= 2048


@pytest.mark.parametrize(("window", "stride"), [(224, 224), (224, 56), (64, 64)])
def test_the_sparse_pass_touches_few_tiles_and_the_whole_slide(window, stride):
    grid = grid_of(30_000, 26_000, window, stride)
    pending = np.ones(grid.shape, bool)
    order = GridOrder(grid, pending, order="viewport")
    step = sparse_step(grid, pending, (256, 256))
    sparse = len(pending[::step, ::step].ravel())
    boxes = [order.take().box for _ in range(sparse)]
    tiles = {
        (ty, tx)
        for y, x, h, w in boxes
        for ty in range(y // 256, (y + h - 1) // 256 + 1)
        for tx in range(x // 256, (x + w - 1) // 256 + 1)
    }
    every = -(-30_000 // 256) * -(-26_000 // 256)
    assert len(tiles) <= 0.05 * every + 1
    assert max(y for y, *_ in boxes) > 25_000
    assert len(boxes) >= 40


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["pad", "flush", "centre"]),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_tiles_touched_are_counted_as_if_painted(shape, window, stride, edge, tile, step, seed):
    grid = grid_of(*shape, window, max(stride, 9), edge)
    pending = np.random.default_rng(seed).random(grid.shape) < 0.3
    painted = np.zeros((1300, 1300), bool)
    sparse = np.zeros_like(pending)
    sparse[::step, ::step] = pending[::step, ::step]
    for y, x in grid.origins(np.flatnonzero(sparse)).tolist():
        painted[y // tile[0] : (y + window - 1) // tile[0] + 1,
                x // tile[1] : (x + window - 1) // tile[1] + 1] = True  # fmt: skip
    assert tiles_touched(grid, sparse, tile) == painted.sum()
    assert tiles_under(grid, np.flatnonzero(sparse), tile) == painted.sum()


def test_stride_56_on_tiles_of_256_takes_every_32nd_window():
    grid = grid_of(30_000, 26_000, 224, 56)
    assert sparse_step(grid, np.ones(grid.shape, bool), (256, 256)) == 32


def test_listed_windows_each_once_and_neighbours_together():
    spec = WindowSpec(0, (1.0, 1.0), (64, 64), (64, 64), (64, 64))
    corners = np.random.default_rng(0).integers(-50, 20_000, (3000, 2))
    order = ListOrder(WindowList(spec, corners), np.ones(3000, bool))
    regions = list(iter(order.take, None))
    assert sorted(np.concatenate([r.index for r in regions]).tolist()) == list(range(3000))
    assert max(max(r.box[2:]) for r in regions) <= 2048 + 64


def centres_of(grid, index):
    return grid.positions(index) + np.asarray(grid.spec.footprint_level0) / 2


def test_the_sparse_pass_is_not_done_again_by_a_later_session():
    grid = grid_of(30_000, 30_000, 224, 224)
    planned = np.ones(grid.shape, bool)
    sparse = one_of_each_square(grid, planned, (256, 256), sparse_step(grid, planned, (256, 256)))
    computed = np.zeros(grid.shape, bool)
    computed.ravel()[sparse] = True
    order = GridOrder(grid, planned & ~computed, order="viewport", computed=computed)
    assert len(order.take().index) > 1
    index = np.concatenate(taken(order))
    assert not np.isin(sparse, index).any()


def test_windows_that_were_looked_at_need_no_sparse_window_beside_them():
    grid = grid_of(30_000, 30_000, 224, 224)
    view = (10_000, 10_000, 16_000, 16_000)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport", viewport=view)
    while len(order.take().index) > 1:
        pass
    sparse = [order.take() for _ in range(200)]
    assert {len(region.index) for region in sparse} == {1}
    centres = centres_of(grid, np.concatenate([region.index for region in sparse]))
    assert not ((centres > 10_300) & (centres < 15_700)).all(1).any()


def passes(order):
    """Lengths of the runs of single windows, and of larger regions, as they come."""
    singles = [len(index) == 1 for index in taken(order)]
    return [len(list(run)) for _, run in itertools.groupby(singles)]


def test_a_slow_model_gets_finer_passes_before_the_blocks():
    grid = grid_of(30_000, 30_000, 224, 224)
    pending = np.ones(grid.shape, bool)
    coarse = passes(GridOrder(grid, pending, order="viewport"))
    fine = passes(GridOrder(grid, pending, order="viewport", costs=lambda: (1.0, 1e-3)))
    asked = []
    fast = GridOrder(grid, pending, order="viewport", costs=lambda: asked.append(1) or (1e-6, 1e-3))
    assert passes(fast)[0] == coarse[0] == 17 * 17
    assert asked == [1]
    assert fine[0] > 10 * coarse[0]


def test_finer_passes_hand_out_every_window_once():
    grid = grid_of(20_000, 15_000, 224, 150)
    pending = np.random.default_rng(3).random(grid.shape) < 0.4
    order = GridOrder(grid, pending, order="viewport", costs=lambda: (1.0, 1e-3))
    index = np.concatenate(taken(order))
    assert sorted(index.tolist()) == np.flatnonzero(pending).tolist()


def test_panning_wide_views_puts_first_what_the_sparse_pass_has_left_there():
    grid = grid_of(60_000, 60_000, 256, 256)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport")
    index = [order.take().index for _ in range(20)]
    for view in [(30_000, 30_000, 50_000, 50_000), (0, 40_000, 10_000, 60_000)]:
        order.look_at(view)
        index += (seen := [order.take().index for _ in range(30)])
        centres = centres_of(grid, np.concatenate(seen))
        assert ((centres >= view[:2]) & (centres < view[2:])).all()
        assert {len(one) for one in seen} == {1}
    index += taken(order)
    assert sorted(np.concatenate(index).tolist()) == list(range(grid.size))


def test_regions_hold_two_tiles_at_least_and_fit_into_the_memory_they_may_take():
    assert region_side((256, 256), 48 << 20) == 2048
    assert region_side((256, 1536), 48 << 20) == 3072
    assert region_side((256, 256), 3 * 500**2) == 500
    assert region_side((4096, 4096), 3 * 5000**2) == 5000
    grid = grid_of(9000, 9000, 100, 50)
    pending = np.ones(grid.shape, bool)
    for nbytes in (3 * 300**2, 3 * 1000**2):
        regions = list(GridOrder(grid, pending, region_bytes=nbytes))
        assert max(3 * r.box[2] * r.box[3] for r in regions) <= nbytes
        assert sum(len(r.index) for r in regions) == grid.size
    alone = GridOrder(grid, pending, region_bytes=1)
    assert {len(region.index) for region in alone} == {1}
