"""Few windows for the whole slide: how many tiles they take, and when more passes are worth it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.loader import Loader
from napari_wsi_heatmap.order import GridOrder
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.sparse import (
    AGAIN_SHARE,
    SPARSE_SHARE,
    any_in_squares,
    nested_steps,
    one_of_each_square,
    sparse_step,
    tiles_touched,
    tiles_under,
)
from napari_wsi_heatmap.tilecache import TileCache

SIDE = 30_000
TILE = (256, 256)


def grid_of(height=SIDE, width=SIDE, window=224, stride=224, edge="pad"):
    spec = WindowSpec(0, (1.0, 1.0), (window, window), (window, window), (stride, stride))
    return lay_grid(spec, (height, width), edge)


def discs(grid, count, radius, seed=0):
    """(Y, X) bool: tissue in round pieces, radius in px."""
    rng = np.random.default_rng(seed)
    rows, cols = (span.mean(1) for span in grid.spans_level0)
    mask = np.zeros(grid.shape, bool)
    for y, x in rng.uniform(0, SIDE, (count, 2)):
        mask |= np.add.outer((rows - y) ** 2, (cols - x) ** 2) < radius**2
    return mask


TISSUES = {
    "all": lambda grid: np.ones(grid.shape, bool),
    "one piece": lambda grid: discs(grid, 1, 9000),
    "cores of an array": lambda grid: discs(grid, 60, 900),
    "scattered": lambda grid: discs(grid, 400, 300),
    "specks": lambda grid: np.random.default_rng(1).random(grid.shape) < 0.01,
}


class CountingSlide(ArraySlide):
    """Counts the tiles that are decoded; reads nothing."""

    @classmethod
    def make(cls):
        def read(level, y, x, height, width):
            assert height <= TILE[0]
            assert width <= TILE[1]
            assert y % TILE[0] == x % TILE[1] == 0
            counted.append((y, x))
            return np.zeros((height, width, 3), np.uint8)

        counted = []
        slide = ArraySlide.from_callable(read, [(SIDE, SIDE)], mpp=0.5)
        return slide, counted


@pytest.mark.parametrize("tissue", TISSUES)
@pytest.mark.parametrize(("window", "stride"), [(224, 224), (224, 56), (64, 64), (512, 300)])
def test_the_sparse_pass_decodes_few_of_the_planned_tiles(window, stride, tissue):
    grid = grid_of(window=window, stride=stride)
    pending = TISSUES[tissue](grid)
    step = sparse_step(grid, pending, TILE)
    slide, decoded = CountingSlide.make()
    order = GridOrder(grid, pending, TILE, "viewport")
    sparse = one_of_each_square(grid, pending, TILE, step)

    class OnlySparse:
        left = len(sparse)

        def take(self):
            self.left -= 1
            return order.take() if self.left >= 0 else None

    cached = CachedSlide(slide, TileCache(64 << 20))
    seen = [
        loaded.region.index
        for loaded in Loader(cached, grid, OnlySparse(), threading.Event(), readers=1)
    ]
    assert sorted(np.concatenate(seen).tolist()) == sorted(sparse.tolist())
    planned = tiles_touched(grid, pending, TILE)
    assert len(decoded) == len(set(decoded))
    assert len(set(decoded)) <= max(SPARSE_SHARE * planned, 4)


def test_stride_56_on_tiles_of_256_takes_every_32nd_window_and_one_tile_each():
    grid = grid_of(stride=56)
    pending = np.ones(grid.shape, bool)
    assert sparse_step(grid, pending, TILE) == 32
    sparse = one_of_each_square(grid, pending, TILE, 32)
    assert len(sparse) == 17 * 17
    assert tiles_under(grid, sparse, TILE) <= 1.2 * len(sparse)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.sampled_from([1, 2, 4, 8, 64]),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_one_pending_window_of_each_square_that_has_any(shape, step, share, seed):
    rng = np.random.default_rng(seed)
    grid = grid_of(shape[0] * 224, shape[1] * 224)
    pending, known = rng.random(shape) < share, rng.random(shape) < 0.01
    chosen = one_of_each_square(grid, pending, TILE, step, known)
    rows, cols = np.divmod(chosen, shape[1])
    assert pending[rows, cols].all()
    squares = list(zip((rows // step).tolist(), (cols // step).tolist(), strict=True))
    wanted = any_in_squares(pending, step) & ~any_in_squares(known, step)
    assert squares == list(zip(*map(np.ndarray.tolist, np.nonzero(wanted)), strict=True))


def test_of_windows_that_take_as_many_tiles_the_one_in_the_middle_stands_for_the_square():
    grid = grid_of(256 * 16, 256 * 16, 256, 256)
    chosen = one_of_each_square(grid, np.ones(grid.shape, bool), TILE, 8)
    rows, cols = np.divmod(chosen, 16)
    assert set((rows % 8).tolist()) | set((cols % 8).tolist()) <= {3, 4}


def test_a_window_within_one_tile_is_preferred():
    grid = grid_of(window=224, stride=56)
    chosen = one_of_each_square(grid, np.ones(grid.shape, bool), TILE, 32)
    starts = grid.origins(chosen)
    whole = (starts % 256 + 224 <= 256).all(1)
    assert whole.mean() > 0.9


def sparse_done(grid):
    pending = np.ones(grid.shape, bool)
    step = sparse_step(grid, pending, TILE)
    pending.ravel()[one_of_each_square(grid, pending, TILE, step)] = False
    return pending, step


def test_a_model_as_fast_as_reading_gets_no_further_pass():
    grid = grid_of()
    pending, step = sparse_done(grid)
    per_window = tiles_touched(grid, pending, TILE) / pending.sum() * 1e-3
    assert nested_steps(grid, pending, TILE, step, per_window, 1e-3) == ()
    assert nested_steps(grid, pending, TILE, step, 0, 1e-3) == ()


@pytest.mark.parametrize(("times", "steps"), [(1, ()), (4, (4,)), (1000, (4, 2))])
def test_the_slower_the_model_the_more_passes(times, steps):
    grid = grid_of()
    pending, step = sparse_done(grid)
    assert step == 8
    assert nested_steps(grid, pending, TILE, step, times * 1e-3, 1e-3) == steps


@pytest.mark.parametrize("per_window", [1e-4, 1e-3, 1e-2, 0.1, 1])
@pytest.mark.parametrize("stride", [56, 224, 500])
def test_reading_again_costs_less_than_its_share(stride, per_window):
    grid = grid_of(stride=stride)
    pending, step = sparse_done(grid)
    per_tile, again = 1e-3, 0.0
    for finer in nested_steps(grid, pending, TILE, step, per_window, per_tile):
        chosen = one_of_each_square(grid, pending, TILE, finer)
        again += tiles_under(grid, chosen, TILE) * per_tile
    run = max(pending.sum() * per_window, tiles_touched(grid, pending, TILE) * per_tile)
    assert again <= AGAIN_SHARE * run


def test_steps_are_halves_down_to_every_second_window():
    grid = grid_of(stride=56)
    pending, step = sparse_done(grid)
    assert nested_steps(grid, pending, TILE, step, 10.0, 1e-3) == (16, 8, 4, 2)
