"""Dense maps: exact places, means of overlaps, the same bits in any order and after any stop."""

from __future__ import annotations

import numpy as np
import pytest

from napari_wsi_heatmap import dense
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.states import BACKGROUND, DONE, FAILED, PENDING, state_of


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(DenseMap, "chunk", 16)


def frame_of(side=(300, 260), window=64, stride=32, cells=(4, 4), channels=2, edge="pad"):
    spec = WindowSpec(0, (1.0, 1.0), (window, window), (window, window), (stride, stride))
    return lay_frame(lay_grid(spec, side, edge), channels, cells)


def outputs(frame, seed=0):
    rng = np.random.default_rng(seed)
    shape = (frame.grid.size, frame.channels, *frame.patch_cells)
    return rng.standard_normal(shape).astype(np.float32)


def mean_of_overlaps(frame, values, windows):
    total, weight = np.zeros(frame.shape, np.float32), np.zeros(frame.shape[1:], np.float32)
    h, w = frame.patch_cells
    for i in windows:
        row, col = divmod(i, frame.grid.shape[1])
        at = np.s_[
            frame.offsets[0][row] : frame.offsets[0][row] + h,
            frame.offsets[1][col] : frame.offsets[1][col] + w,
        ]
        total[:, *at] += values[i]
        weight[at] += 1
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def add(growing, index, values, state=DONE):
    growing.add(np.array(index), values[index], np.full(len(index), state, np.uint8))


@pytest.mark.parametrize("order", ["forwards", "backwards", "random"])
def test_mean_of_overlaps_bit_by_bit_in_any_order(order):
    frame = frame_of()
    values, size = outputs(frame), frame.grid.size
    index = {
        "forwards": np.arange(size),
        "backwards": np.arange(size)[::-1],
        "random": np.random.default_rng(1).permutation(size),
    }[order]
    growing = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8))
    for part in np.array_split(index, 7):
        add(growing, part, values)
    assert np.array_equal(growing.values, mean_of_overlaps(frame, values, range(size)))
    assert not growing._kept
    assert (growing.saved_state == DONE).all()


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, 3e38])
def test_values_that_are_not_finite_blend_without_a_word(odd):
    frame = frame_of()
    values = outputs(frame)
    values[::2], values[1::3] = odd, np.inf
    growing = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8))
    add(growing, np.arange(frame.grid.size), values)
    with np.errstate(all="ignore"):
        expected = mean_of_overlaps(frame, values, range(frame.grid.size))
    assert np.array_equal(growing.values, expected, equal_nan=True)


def test_left_out_and_failed_windows_contribute_nothing():
    frame = frame_of()
    values = outputs(frame)
    state = np.zeros(frame.grid.shape, np.uint8)
    state[2] = BACKGROUND
    growing = DenseMap(frame, state)
    pending = np.flatnonzero(state_of(state) == PENDING)
    add(growing, pending[:3], np.full_like(values, np.nan), FAILED)
    add(growing, pending[3:], values)
    expected = mean_of_overlaps(frame, values, pending[3:])
    assert np.array_equal(growing.values, expected, equal_nan=True)
    assert np.isnan(expected).any()


@pytest.mark.parametrize("stop", range(1, 72, 5))
def test_stopped_anywhere_and_continued_gives_the_same_bits(stop):
    frame = frame_of()
    values, size = outputs(frame), frame.grid.size
    order = np.random.default_rng(stop).permutation(size)
    first = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8))
    add(first, order[:stop], values)
    saved, states = np.full(frame.shape, np.nan, np.float32), first.state * 0
    snapshot = first.snapshot()
    for box in snapshot.boxes:
        saved[:, *box] = first.values[:, *box]
    for box, copy in snapshot.states:
        states[box] = copy
    second = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8))
    second.restore(saved, states)
    add(second, np.flatnonzero(second.pending), values)
    assert np.array_equal(second.values, mean_of_overlaps(frame, values, range(size)))


def test_a_preview_shows_before_a_chunk_is_complete():
    frame = frame_of()
    growing = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8))
    values = outputs(frame)
    add(growing, [0], values)
    assert np.array_equal(growing.values[:, :4, :4], values[0])
    assert not growing.snapshot().chunks
    assert (growing.saved_state == PENDING).all()


def test_cells_lie_where_the_window_saw_them():
    frame = frame_of(window=64, stride=32, cells=(4, 4))
    assert frame.scale == (16, 16)
    assert frame.offset == (7.5, 7.5)
    spec = WindowSpec(0, (4.0, 4.0), (64, 64), (64, 64), (32, 32))
    inner = lay_frame(lay_grid(spec, (300, 300)), 1, (2, 2), output_stride=16)
    assert inner.scale == (64, 64)
    assert inner.offset == (64 + 31.5, 64 + 31.5)  # margin (64 − 2 · 16)/2 = 16 px · 4


def test_a_stride_of_half_a_cell_is_refused_naming_the_nearest():
    with pytest.raises(GridError, match=r"24 px is 1\.5 cells.*use a stride of 16 or 32 px"):
        frame_of(stride=24)


def test_one_value_a_window_needs_no_dense_map():
    frame = frame_of(cells=(1, 1))
    assert not frame.dense
    assert type(dense.new_map(frame, np.zeros(frame.grid.shape, np.uint8))) is not DenseMap
