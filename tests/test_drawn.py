"""A region that was drawn during a run comes next, whatever its size and shape."""

from __future__ import annotations

import numpy as np
import pytest

from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.order import BLOCK_SIDE, GridOrder


def grid_of(height, width, window, stride):
    spec = WindowSpec(0, (1.0, 1.0), (window, window), (window, window), (stride, stride))
    return lay_grid(spec, (height, width))


def taken(order):
    return [region.index for region in order]


def centres_of(grid, index):
    return grid.positions(index) + np.asarray(grid.spec.footprint_level0) / 2


RECTANGLE = np.array([(1000.0, 2000.0), (1000, 28_000), (21_000, 28_000), (21_000, 2000)])


def test_a_drawn_region_larger_than_a_block_comes_next_and_whole():
    grid = grid_of(60_000, 60_000, 256, 256)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport")
    begun = [order.take().index for _ in range(5)]
    order.look_at([RECTANGLE])
    inside = (centres_of(grid, np.arange(grid.size)) > RECTANGLE[0]).all(1)
    inside &= (centres_of(grid, np.arange(grid.size)) < RECTANGLE[2]).all(1)
    wanted = set(np.flatnonzero(inside).tolist()) - set(np.concatenate(begun).tolist())
    got = []
    while len(got) < len(wanted):
        got += order.take().index.tolist()
    assert set(got) == wanted
    rest = np.concatenate([order.take().index for _ in range(5)])
    assert len(rest) == 5  # the sparse pass goes on


def test_a_drawn_region_is_worked_off_from_where_somebody_looks():
    grid = grid_of(60_000, 60_000, 256, 256)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport")
    order.look_at([RECTANGLE])
    order.look_at((18_000, 25_000, 20_000, 27_000))
    first = centres_of(grid, order.take().index)
    assert np.abs(first - (19_000, 26_000)).max() < BLOCK_SIDE
    last = None
    while (region := order.take()) is not None and len(region.index) > 1:
        last = centres_of(grid, region.index)
    assert last.min(0).tolist() < [9000, 10_000]


def test_a_polygon_and_not_the_box_around_it():
    grid = grid_of(20_000, 20_000, 256, 256)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport", sparse=False)
    order.look_at([np.array([(1000.0, 1000.0), (9000, 1000), (1000, 9000)])])
    seen = []
    while len(seen) < 450:
        seen += order.take().index.tolist()
    y, x = centres_of(grid, np.array(seen)).T
    assert ((y > 1000) & (x > 1000) & (y + x < 10_000))[:450].all()


@pytest.mark.parametrize("side", [1, 100])
def test_a_drawn_region_that_holds_no_centre_is_computed_all_the_same(side):
    grid = grid_of(20_000, 20_000, 1024, 1024)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport")
    y, x = 5200.0, 7300.0
    order.look_at([np.array([(y, x), (y, x + side), (y + side, x + side), (y + side, x)])])
    first = order.take()
    assert np.abs(centres_of(grid, first.index) - (y, x)).max() < 1024
    assert len(first.index) <= 4


def test_the_region_that_was_drawn_last_comes_first_and_none_is_forgotten():
    grid = grid_of(40_000, 40_000, 256, 256)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport")
    boxes = [(1000.0, 1000.0), (20_000.0, 20_000.0)]
    for y, x in boxes:
        order.look_at([np.array([(y, x), (y, x + 2000), (y + 2000, x + 2000), (y + 2000, x)])])
    order.look_at((30_000, 30_000, 31_000, 31_000))
    corners = []
    for _ in range(6):
        y, _, height, _ = order.take().box
        corner = (y + height // 2) // 10_000 * 10_000
        if corner not in corners:
            corners.append(corner)
    assert corners[:3] == [20_000, 0, 30_000]


def test_what_was_drawn_is_handed_out_once():
    grid = grid_of(20_000, 20_000, 256, 256)
    order = GridOrder(grid, np.ones(grid.shape, bool), order="viewport")
    index = []
    for _ in range(3):
        order.look_at([RECTANGLE, RECTANGLE / 2])
        index += [order.take().index for _ in range(4)]
    index += taken(order)
    assert sorted(np.concatenate(index).tolist()) == list(range(grid.size))
