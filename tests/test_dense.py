"""Dense maps: exact places, the same bits in any order and after any stop, bounded memory."""

from __future__ import annotations

import errno
import math
import os
import threading
from contextlib import closing

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from dense_reference import BLENDS, add, frame_of, outputs, reference
from made import quarter_means
from made_features import with_features
from napari_wsi_heatmap import dense, kept, output, store
from napari_wsi_heatmap.blocks import REGION_SIDE
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import GridError, StoreFullError
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.kept import KeptOutputs
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.order import GridOrder
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import BACKGROUND, DONE, FAILED, PENDING, state_of
from napari_wsi_heatmap.store import HeatmapStore
from napari_wsi_heatmap.waiting import Waiting
from napari_wsi_heatmap.writer import StoreWriter


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(DenseMap, "chunk", 16)
    monkeypatch.setattr(DenseMap, "tile", 8)


def mean_of_overlaps(frame, values, windows):
    return reference(frame, values, windows, "mean").astype(np.float32)


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


class SavingWriter(StoreWriter):
    """Saves when the test says so."""

    def __init__(self, saved, growing, note):
        super().__init__(saved, growing, note, interval=3600)
        SavingWriter.latest = self


def test_only_those_chunks_of_states_are_written_that_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(DenseMap, "state_chunk", 4)
    monkeypatch.setattr(store, "STATE_CHUNK", 4)
    monkeypatch.setattr(output, "StoreWriter", SavingWriter)
    on_disk, changed = {}, []
    write = store.HeatmapStore.write_state

    def write_state(self, box, states):
        assert max(states.shape) <= 4
        key = box[0].start, box[1].start
        changed.append(not np.array_equal(states, on_disk.get(key, states * 0)))
        on_disk[key] = states.copy()
        write(self, box, states)

    monkeypatch.setattr(store.HeatmapStore, "write_state", write_state)
    run = prepare(SLIDE, quarter_means, out=tmp_path / "a.zarr", edge="drop", **SETTINGS)
    with closing(run.pieces()) as pieces:
        for _ in pieces:
            SavingWriter.latest.save()
            states = HeatmapStore.open(tmp_path / "a.zarr").state
            assert np.array_equal(states, run.growing.saved_state)
    assert all(changed)
    chunks = math.prod(-(-side // 4) for side in run.plan.grid.shape)
    assert chunks <= len(changed) < 3 * chunks  # each once, or a few times


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


def most_kept(frame, tile):
    """The bound of the docstring, raster order and one reader."""
    spec = frame.grid.spec
    stride, r = spec.stride[0] / frame.cell[0], (REGION_SIDE - spec.window[0]) // spec.stride[0] + 1
    deep = math.ceil((frame.patch_cells[0] + tile) / stride)
    return deep * frame.grid.shape[1] + (r + deep) ** 2


@pytest.mark.parametrize(
    ("window", "stride", "cells", "tile"),
    [(512, 256, 64, 128), (512, 128, 16, 32), (512, 512, 32, 128), (1024, 512, 64, 64)],
)
@pytest.mark.parametrize("blend", BLENDS)
def test_a_large_slide_in_raster_order_keeps_a_strip(
    monkeypatch, window, stride, cells, tile, blend
):
    monkeypatch.setattr(DenseMap, "chunk", 1024)
    monkeypatch.setattr(DenseMap, "tile", tile)
    frame = frame_of((20_000, 20_000), window, stride, (cells, cells), channels=1)
    growing = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8), blend)
    values, most = np.full((1, 1, cells, cells), 0.25, np.float32), 0
    for region in GridOrder(frame.grid, growing.pending):
        for i in region.index:
            growing.add(np.array([i]), values, np.array([DONE], np.uint8))
            most = max(most, growing.kept)
    assert 0 < most <= most_kept(frame, tile) < frame.grid.size
    assert growing.kept == 0
    assert (growing.values == 0.25).all()


def test_a_run_keeps_a_strip():
    def read(level, y, x, height, width):
        return np.full((height, width, 3), 77, np.uint8)

    slide = ArraySlide.from_callable(read, [(6000, 6000)], mpp=0.25)
    settings = {"window": 256, "stride": 128, "tissue": "none", "readers": 1, "batch_size": 16}
    run, most = prepare(slide, quarter_means, edge="drop", **settings), 0
    with closing(run.pieces()) as pieces:
        for _ in pieces:
            most = max(most, run.growing.kept)
    assert 0 < most <= most_kept(run.plan.frame, 8) < run.plan.grid.size / 2
    assert run.growing.kept == 0
    np.testing.assert_allclose(run.heatmap.values, 77 / 255, rtol=1e-5)


def small_slabs(monkeypatch):
    monkeypatch.setattr(kept, "SLAB_BYTES", 500)
    monkeypatch.setattr(kept, "MEMORY_BYTES", 600)


def test_outputs_beyond_memory_lie_in_scratch_files(monkeypatch):
    small_slabs(monkeypatch)
    frame = frame_of()
    values, order = outputs(frame), np.random.default_rng(3).permutation(frame.grid.size)
    growing = DenseMap(frame, np.zeros(frame.grid.shape, np.uint8))
    for i in order:
        add(growing, [i], values)
    slabs = [type(slab) for slab in growing._kept._slabs]
    assert slabs[0] is np.ndarray
    assert np.memmap in slabs
    assert np.array_equal(growing.values, mean_of_overlaps(frame, values, order))


def test_room_is_used_again():
    outs = KeptOutputs((1, 2, 2))
    outs._each = 2
    for i in range(40):
        outs.keep(i, np.full((1, 2, 2), i, np.float32))
        outs.keep(i, np.full((1, 2, 2), -i, np.float32))
        if i >= 3:
            assert (outs.get(i - 3) == 3 - i).all()
            outs.drop(i - 3)
            assert outs.get(i - 3) is None
    assert len(outs) == 3
    assert len(outs._slabs) == 2


def test_room_that_was_made_lasts_for_as_many(monkeypatch):
    monkeypatch.setattr(kept, "SLAB_BYTES", 3 * 16)
    outs = KeptOutputs((1, 2, 2))
    outs.keep(0, np.zeros((1, 2, 2)))
    outs.reserve(7)
    slabs = len(outs._slabs)
    assert slabs == 3
    for i in range(1, 8):
        outs.keep(i, np.full((1, 2, 2), i))
    assert len(outs._slabs) == slabs
    assert all((outs.get(i) == i).all() for i in range(8))


class ScratchDisk:
    """Full until there is room."""

    def __init__(self, monkeypatch, full=True, fits=0):
        self.full, self.fits, self._take = full, fits, os.posix_fallocate
        monkeypatch.setattr(os, "posix_fallocate", self.take)

    def take(self, file, offset, length):
        if self.full and self.fits <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.fits -= 1
        self._take(file, offset, length)


class SomebodyMakesRoom(RunControl):
    """Presses Resume once for every time that the run waits."""

    def __init__(self, disk, fits):
        super().__init__(pauses_on_trouble=True)
        self.disk, self.room, self.reasons = disk, fits, []

    def wait_while_paused(self):
        self.reasons.append(self.reason)
        self.disk.fits = self.room
        self.resume()
        return super().wait_while_paused()


SLIDE = ArraySlide([np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)], mpp=1)
SETTINGS = {"window": 64, "stride": 16, "tissue": "none", "batch_size": 8}


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be taken here")
@pytest.mark.parametrize("dense_features", [False, True], ids=["dense", "dense and features"])
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored"])
@pytest.mark.parametrize("fits", [1, 3])
def test_a_run_that_is_watched_waits_for_room_for_scratch_files(
    monkeypatch, tmp_path, fits, stored, dense_features
):
    model = with_features(dense=True) if dense_features else quarter_means
    whole = wh.compute_heatmap(SLIDE, model, progress=False, **SETTINGS)
    small_slabs(monkeypatch)
    disk = ScratchDisk(monkeypatch)
    control, out = SomebodyMakesRoom(disk, fits), tmp_path / "a.zarr" if stored else None
    run = prepare(SLIDE, model, out=out, control=control, **SETTINGS)
    index = np.concatenate([piece.index for piece in run.pieces()])
    assert len(control.reasons) > 2
    assert all("no room for" in reason for reason in control.reasons)
    assert len(index) == len(set(index)) == run.plan.grid.size  # none lost, none doubled
    assert run.record["status"] == "done"
    assert np.array_equal(run.heatmap.values, whole.values)
    if dense_features:
        assert np.array_equal(run.heatmap.features[:], whole.features)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be taken here")
def test_a_run_that_waits_for_room_can_be_cancelled_and_resumed(monkeypatch, tmp_path):
    small_slabs(monkeypatch)
    disk, control = ScratchDisk(monkeypatch, fits=2), RunControl(pauses_on_trouble=True)
    run = prepare(SLIDE, quarter_means, out=tmp_path / "a.zarr", control=control, **SETTINGS)
    threading.Timer(0.5, control.cancel).start()
    list(run.pieces())
    assert "no room for windows" in control.reason
    assert wh.open_heatmap(tmp_path / "a.zarr").run["status"] == "paused"
    disk.full = False
    again = wh.compute_heatmap(
        SLIDE, quarter_means, out=tmp_path / "a.zarr", progress=False, **SETTINGS
    )
    whole = wh.compute_heatmap(SLIDE, quarter_means, progress=False, **SETTINGS)
    assert np.array_equal(again.values, whole.values)


def test_no_room_for_scratch_files_ends_the_run_in_one_line_and_it_goes_on(monkeypatch, tmp_path):
    slide, settings = SLIDE, SETTINGS | {"progress": False}
    whole = wh.compute_heatmap(slide, quarter_means, **settings)
    small_slabs(monkeypatch)

    def full(file, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(StoreFullError, match=r"no room for windows of .*set TMPDIR") as caught:
            wh.compute_heatmap(slide, quarter_means, out=tmp_path / "a.zarr", **settings)
    assert len(str(caught.value).splitlines()) == 1
    assert wh.open_heatmap(tmp_path / "a.zarr").run["status"] == "failed"
    again = wh.compute_heatmap(slide, quarter_means, out=tmp_path / "a.zarr", **settings)
    assert np.array_equal(again.values, whole.values)


def squares_below(frame, i, side):
    """Squares that hold a cell of a window, found cell by cell."""
    rows, cols = (range(part.start, part.stop) for part in frame.box(i))
    return {(y // side, x // side) for y in rows for x in cols}


@pytest.mark.parametrize("edge", ["pad", "flush", "drop"])
@pytest.mark.parametrize("seed", range(5))
def test_each_square_is_complete_once_and_then_its_windows_are_free(seed, edge):
    rng = np.random.default_rng(seed)
    side = int(rng.integers(3, 20))
    frame = frame_of(
        rng.integers(100, 300, 2).tolist(), 64, 16 * int(rng.integers(1, 6)), edge=edge
    )
    below = {i: squares_below(frame, i, side) for i in range(frame.grid.size)}
    pending = rng.random(frame.grid.shape) < 0.7
    waiting = Waiting(frame, side)
    touched = waiting.below(pending)
    wanted = touched & (rng.random(touched.shape) < 0.8)
    waiting.begin(pending, wanted)
    for square in np.ndindex(*touched.shape):
        assert waiting.over(square).tolist() == [i for i in below if square in below[i]]
    over_wanted = [any(wanted[square] for square in below[i]) for i in below]
    assert np.array_equal(waiting.above(wanted).ravel(), over_wanted)
    arrived, complete, free = set(), [], []
    for i in rng.permutation(np.flatnonzero(pending)).tolist():
        arrived.add(i)
        for square in waiting.arrive(i):
            complete.append(square)
            assert set(waiting.over(square)[pending.ravel()[waiting.over(square)]]) <= arrived
            for done in waiting.free(square).tolist():
                free.append(done)
                assert {s for s in below[done] if wanted[s]} <= set(complete)
    assert sorted(complete) == list(zip(*np.nonzero(wanted), strict=True))
    assert sorted(free) == np.flatnonzero(waiting.above(wanted) & pending).tolist()
