"""What is shown of a map that is not whole, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide, quarter_means
from napari_wsi_heatmap import growing
from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.order import GridOrder
from napari_wsi_heatmap.rough import RoughMap, rough_map
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.sparse import one_of_each_square, sparse_step
from napari_wsi_heatmap.states import (
    BACKGROUND,
    DONE,
    FAILED,
    HANGS_OVER,
    NOT_FINITE,
    OUTSIDE,
    PENDING,
    state_of,
)

TILE = (256, 256)


def grid_of(rows, cols, side=256):
    spec = WindowSpec(0, (1.0, 1.0), (side, side), (side, side), (side, side))
    return lay_grid(spec, (rows * side, cols * side))


def empty(shape, channels=2):
    return np.full((channels, *shape), np.nan, np.float32)


def ramp_slide(height, width):
    """Grey that rises down and to the right; made where it is read."""

    def read(level, y, x, height, width):
        down, across = np.arange(y, y + height) // 100, np.arange(x, x + width) // 100
        grey = np.add.outer(down, across).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)

    return ArraySlide.from_callable(read, [(height, width)], mpp=0.5, name="ramp")


class Growing:
    """A map and its rough picture, filled as a run fills them."""

    def __init__(self, state, step, channels=2):
        self.state, self.values = state, empty(state.shape, channels)
        self.rough = RoughMap(self.values, state, step)

    def add(self, index, state=DONE):
        index = np.asarray(index)
        rows, cols = np.divmod(index, self.state.shape[1])
        values = np.stack([index, -index], 1).astype(np.float32)
        if state == FAILED:
            values[:] = np.nan
        states = np.full(len(index), state, np.uint8)
        self.values[:, rows, cols], self.state[rows, cols] = values.T, states
        self.rough.add(index)


def test_a_window_stands_for_the_pending_ones_of_its_square_and_no_others():
    state = np.full((8, 12), PENDING, np.uint8)
    state[0, 0], state[3, 3] = BACKGROUND, OUTSIDE | HANGS_OVER
    grown = Growing(state, 4)
    grown.add([1 * 12 + 2])
    expected = empty(state.shape)
    expected[0, :4, :4], expected[1, :4, :4] = 14, -14
    expected[:, 0, 0] = expected[:, 3, 3] = np.nan
    np.testing.assert_array_equal(grown.rough.values, expected)
    assert np.isfinite(grown.values).sum() == 2


def test_a_computed_cell_shows_its_own_value_and_a_failed_one_nothing():
    grown = Growing(np.full((8, 8), PENDING, np.uint8), 4)
    grown.add([0])
    grown.add([9])
    grown.add([2], FAILED)
    first = grown.rough.values[0]
    assert (first[0, 0], first[1, 1], first[3, 3]) == (0, 9, 0)
    assert np.isnan(grown.rough.values[:, 0, 2]).all()


@pytest.mark.parametrize("state", [FAILED, DONE | NOT_FINITE])
def test_what_has_no_value_stands_for_nothing(state):
    grown = Growing(np.full((4, 4), PENDING, np.uint8), 4)
    grown.add([5], state)
    assert np.isnan(grown.rough.values[0]).sum() >= 15
    grown.add([6])
    assert (grown.rough.values[0] == 6).sum() == 15


def test_a_finer_pass_shows_nearer_values():
    grown = Growing(np.full((8, 8), PENDING, np.uint8), 8)
    grown.add([0])
    grown.add([4, 4 * 8])
    first = grown.rough.values[0]
    assert (first[1, 1], first[1, 6], first[6, 1], first[6, 6]) == (0, 4, 32, 0)


def test_each_piece_is_a_new_version():
    grown = Growing(np.full((8, 8), PENDING, np.uint8), 4)
    seen = [grown.rough.version]
    for index in (0, 1):
        grown.add([index])
        seen.append(grown.rough.version)
    assert seen == [0, 1, 2]


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([2, 4, 8, 16]),
    st.floats(0.05, 1),
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
)
def test_any_run_stopped_anywhere_and_continued(shape, step, share, batch, seed):
    rng = np.random.default_rng(seed)
    grid = grid_of(*shape)
    state = np.where(rng.random(shape) < share, PENDING, BACKGROUND).astype(np.uint8)
    grown = Growing(state, step)
    order = GridOrder(grid, state_of(state) == PENDING, TILE, "viewport")
    index = [i for region in order for i in region.index.tolist()]
    stop = rng.integers(0, len(index) + 1)
    for at in range(0, stop, batch):
        grown.add(index[at : min(stop, at + batch)])
    again = RoughMap(grown.values, state, step)
    done, pending = state_of(state) == DONE, state_of(state) == PENDING
    for rough in (grown.rough, again):
        assert np.array_equal(rough.values[:, done], grown.values[:, done])
        assert np.isnan(rough.values[:, state_of(state) == BACKGROUND]).all()
        for i, j in zip(*np.nonzero(pending), strict=True):
            rows = slice(i // step * step, i // step * step + step)
            cols = slice(j // step * step, j // step * step + step)
            near = grown.values[0, rows, cols][done[rows, cols]]
            shown = rough.values[0, i, j]
            assert shown in near if len(near) else np.isnan(shown)
    assert np.isfinite(grown.values[0]).sum() == stop


def test_after_the_sparse_pass_all_that_is_pending_shows_something():
    grid = grid_of(90, 70)
    state = np.full(grid.shape, BACKGROUND, np.uint8)
    state[5:60, 10:44] = PENDING
    state[70:72, 60:63] = PENDING
    pending = state == PENDING
    step = sparse_step(grid, pending, TILE)
    grown = Growing(state, step)
    sparse = one_of_each_square(grid, pending, TILE, step)
    grown.add(sparse)
    assert len(sparse) < 0.05 * pending.sum()
    assert np.isfinite(grown.rough.values[:, pending]).all()
    assert np.isnan(grown.rough.values[:, ~pending]).all()


def test_large_ones_lie_in_a_scratch_file(monkeypatch):
    monkeypatch.setattr(growing, "SCRATCH_BYTES", 100)
    grown = Growing(np.full((8, 8), PENDING, np.uint8), 4)
    assert isinstance(grown.rough.values, np.memmap)
    grown.add([0])
    assert np.isfinite(grown.rough.values).sum() == 32


def test_a_stopped_run_is_a_coarse_map_and_its_values_stay_exact(tmp_path):
    slide, out = ramp_slide(9000, 9000), tmp_path / "a.zarr"
    settings = {"window": 50, "tissue": "none", "order": "viewport", "batch_size": 4, "level": 0}
    run = prepare(slide, mean_rgb, out=out, **settings)
    rough = rough_map(slide, run.plan.frame, run.growing.values, run.growing.state)
    pieces = run.pieces()
    for _ in range(12):
        piece = next(pieces)
        rough.add(piece.index)
    pieces.close()
    saved = wh.open_heatmap(out)
    done = state_of(saved.state) == DONE
    assert done.sum() == 48
    assert np.array_equal(np.isfinite(saved.values[0]), done)
    assert np.isfinite(rough.values).all()
    opened = rough_map(slide, saved.frame, saved.values, saved.state)
    assert np.array_equal(np.isfinite(opened.values), np.isfinite(rough.values))
    assert np.array_equal(opened.values[:, done], rough.values[:, done])


@pytest.mark.parametrize("model", [mean_rgb, quarter_means], ids=["", "dense"])
def test_a_small_map_has_none(model):
    run = prepare(noise_slide(), model, window=32, tissue="none", level=0)
    assert run.growing.state.size > 500
    assert rough_map(run.plan.slide, run.plan.frame, run.growing.values, run.growing.state) is None


def test_without_room_for_it_there_is_none(monkeypatch):
    run = prepare(ramp_slide(9000, 9000), mean_rgb, window=50, tissue="none", level=0)

    def no_room(*args):
        raise StoreFullError("no room for a rough map")

    made = (run.plan.slide, run.plan.frame, run.growing.values, run.growing.state)
    assert rough_map(*made) is not None
    monkeypatch.setattr(growing, "SCRATCH_BYTES", 100)
    monkeypatch.setattr(growing, "scratch_values", no_room)
    assert rough_map(*made) is None


def test_windows_of_another_model_change_nothing():
    grown = Growing(np.full((8, 8), PENDING, np.uint8), 4)
    grown.add([0])
    before = grown.rough.values.copy()
    grown.rough.add(np.array([0, 1, 33]))
    np.testing.assert_array_equal(grown.rough.values, before)
