"""The rough map of a dense model: what is blended is shown, the rest looks like a window nearby."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.order import GridOrder
from napari_wsi_heatmap.rough import DenseRoughMap
from napari_wsi_heatmap.states import BACKGROUND, DONE, FAILED, PENDING, state_of

CELLS = 8
"""Of a window of 64 px, along each side."""


class SmallTiles(DenseMap):
    chunk, tile = 64, 128


def frame_of(rows, cols, stride=64, edge="pad"):
    spec = WindowSpec(0, (1.0, 1.0), (64, 64), (64, 64), (stride, stride))
    grid = lay_grid(spec, (rows * stride, cols * stride), edge)
    return lay_frame(grid, 2, (CELLS, CELLS))


class Grown:
    """A dense map and its rough picture, filled as a run fills them."""

    def __init__(self, frame, state, step):
        self.frame = frame
        self.growing = SmallTiles(frame, state)
        self.rough = DenseRoughMap(self.growing.values, self.growing.state, step, frame)

    def add(self, index, state=DONE):
        index = np.asarray(index)
        patches = np.random.default_rng(index).normal(size=(len(index), 2, CELLS, CELLS))
        patches = (patches + index[:, None, None, None]).astype(np.float32)
        self.growing.add(index, patches, np.full(len(index), state, np.uint8))
        self.rough.add(index)
        return patches


def home_pending(frame, state):
    """(My, Mx) bool: cells whose window is pending: of those over it the one that begins last."""
    down, across = (
        np.searchsorted(first, np.arange(n), "right") - 1
        for first, n in zip(frame.offsets, frame.shape[1:], strict=True)
    )
    return (state_of(state) == PENDING)[np.ix_(down, across)]


@pytest.mark.parametrize("stride", [64, 32])
def test_a_window_shows_itself_and_its_mean_stands_for_its_square(stride):
    frame = frame_of(8, 8, stride)
    grown = Grown(frame, np.full(frame.grid.shape, PENDING, np.uint8), 4)
    (patch,) = grown.add([frame.grid.shape[1] + 1])
    rows, cols = frame.box(frame.grid.shape[1] + 1)
    shown = grown.rough.values
    np.testing.assert_array_equal(shown[:, rows, cols], patch)
    square = frame.offsets[0][4]
    rest = np.ones((square, square), bool)
    rest[rows, cols] = False
    for channel in range(2):
        values = shown[channel, :square, :square][rest]
        assert np.ptp(values) == 0
        assert values[0] == pytest.approx(patch[channel].mean(), abs=1e-5)
    outside = np.isfinite(shown[0]).sum()
    assert outside == square**2


def test_what_fails_shows_nothing():
    frame = frame_of(4, 4)
    grown = Grown(frame, np.full((4, 4), PENDING, np.uint8), 4)
    grown.add([5])
    grown.add([6], FAILED)
    rows, cols = frame.box(6)
    assert np.isnan(grown.rough.values[:, rows, cols]).all()
    assert np.isfinite(grown.rough.values).sum() == 2 * 15 * CELLS**2


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from([64, 32, 16, 96]),
    st.sampled_from(["pad", "flush"]),
    st.sampled_from([2, 4, 8]),
    st.floats(0.2, 1),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_any_run_stopped_anywhere(shape, stride, edge, step, share, batch, seed):
    rng = np.random.default_rng(seed)
    frame = frame_of(*shape, stride, edge)
    grid = frame.grid
    state = np.where(rng.random(grid.shape) < share, PENDING, BACKGROUND).astype(np.uint8)
    grown = Grown(frame, state, step)
    order = GridOrder(grid, state == PENDING, (256, 256), "viewport")
    index = [i for region in order for i in region.index.tolist()]
    for at in range(0, rng.integers(0, len(index) + 1), batch):
        grown.add(index[at : at + batch])
    truth, now = grown.growing.values, grown.growing.state
    known = np.isfinite(truth)
    pending = home_pending(frame, now)
    again = DenseRoughMap(truth, now, step, frame)
    for rough in (grown.rough, again):
        np.testing.assert_array_equal(rough.values[known], truth[known])
        assert np.isnan(rough.values[:, ~known[0] & ~pending]).all()
    done = state_of(now) == DONE
    for i, j in zip(*np.nonzero(state_of(now) == PENDING), strict=True):
        square = np.s_[i // step * step :, j // step * step :]
        known_square = done[square][:step, :step].any()
        y, x = frame.offsets[0][i], frame.offsets[1][j]
        if np.isnan(truth[0, y, x]):
            assert np.isfinite(grown.rough.values[0, y, x]) == known_square
            assert np.isfinite(again.values[0, y, x]) == known_square


def test_a_sparse_pass_before_the_blocks_gives_the_same_bits():
    frame = frame_of(40, 30, 32)
    pending = np.random.default_rng(5).random(frame.grid.shape) < 0.8
    state = np.where(pending, PENDING, BACKGROUND).astype(np.uint8)
    maps = []
    for order in ("raster", "viewport"):
        grown = SmallTiles(frame, state)
        for region in GridOrder(frame.grid, pending, (256, 256), order):
            patches = [
                np.random.default_rng(i).normal(size=(2, CELLS, CELLS)) for i in region.index
            ]
            done = np.full(len(region.index), DONE, np.uint8)
            grown.add(region.index, np.array(patches, np.float32), done)
        maps.append(grown.values)
        assert grown.kept == 0
    np.testing.assert_array_equal(*maps)
