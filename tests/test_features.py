"""Features on their way to the store: whole chunks, before the states, never all in memory."""

from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest
import zarr

from dense_reference import frame_of, outputs
from napari_wsi_heatmap import growing as growing_module
from napari_wsi_heatmap import kept
from napari_wsi_heatmap.dense import DenseMap, new_map
from napari_wsi_heatmap.errors import StoreError, StoreFullError
from napari_wsi_heatmap.features import UnsavedFeatures, keep_features
from napari_wsi_heatmap.states import BACKGROUND, DONE, FAILED, NOT_FINITE, PENDING, state_of
from napari_wsi_heatmap.store import HeatmapStore
from napari_wsi_heatmap.writer import StoreWriter

LENGTH = 7
RECORD = {
    "format": "napari-wsi-heatmap",
    "format_version": 1,
    "model": {"name": "made", "names": ["a", "b"]},
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(UnsavedFeatures, "chunk", 4)
    monkeypatch.setattr(DenseMap, "chunk", 16)
    monkeypatch.setattr(DenseMap, "tile", 8)


def vectors_of(frame, seed=0):
    """(N, 7) different everywhere."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((frame.grid.size, LENGTH)).astype(np.float32)


def made_map(frame, state=None, *, stored=True):
    state = np.zeros(frame.grid.shape, np.uint8) if state is None else state
    growing = new_map(frame, state)
    keep_features(growing, LENGTH, stored=stored)
    return growing


def add(growing, index, values, vectors, state=DONE):
    index = np.asarray(index)
    growing.add(index, values[index], np.full(len(index), state, np.uint8), vectors[index])


class Output:
    """A store, the map that it saves, and a writer that saves when told to."""

    def __init__(self, path, frame, state=None, interval=3600.0):
        self.path, self.frame = path, frame
        self.growing = made_map(frame, state)
        if path.exists():
            self.store = HeatmapStore.open(path)
            states = self.store.state
            self.lost = self.growing.restore(self.store.values, states, self.store.features)
            self.store.lock()
        else:
            growing = self.growing
            self.store = HeatmapStore.create(
                path, frame, growing.state, growing.chunk, RECORD, growing.unsaved
            )
        self.writer = StoreWriter(self.store, self.growing, lambda: None, interval)

    def close(self):
        self.writer.close()
        self.store.release()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def saved(path):
    """(Y, X, D) and (Y, X) as others would read them."""
    group = zarr.open_group(str(path), mode="r")
    return group["features"][:], state_of(group["state"][:])


CELLS = {"one value": (1, 1), "dense": (4, 4)}


@pytest.fixture(params=CELLS)
def frame(request):
    return frame_of((700, 500), cells=CELLS[request.param])


def values_of(frame):
    values = outputs(frame)
    return values if frame.dense else values[:, :, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_saved_now_and_then_in_any_order_all_is_there(tmp_path, frame, seed):
    rng = np.random.default_rng(seed)
    values, vectors, size = values_of(frame), vectors_of(frame), frame.grid.size
    expected = vectors.reshape(*frame.grid.shape, LENGTH)
    with Output(tmp_path / "a.zarr", frame) as output:
        for part in np.array_split(rng.permutation(size), 25):
            add(output.growing, part, values, vectors)
            if rng.random() < 0.4:
                output.writer.save()
                assert len(output.growing.unsaved) == 0
                found, state = saved(output.path)
                assert np.array_equal(found[state == DONE], expected[state == DONE])
        output.writer.save()
    found, state = saved(output.path)
    assert (state == DONE).all()
    assert np.array_equal(found, expected)


def test_the_layout(tmp_path, frame):
    with Output(tmp_path / "a.zarr", frame) as output:
        array = zarr.open_group(str(output.path), mode="r")["features"]
    assert array.shape == (*frame.grid.shape, LENGTH)
    assert array.chunks == (4, 4, LENGTH)
    assert array.dtype == np.float32
    assert np.isnan(array.fill_value)
    assert array.metadata.dimension_names == ("y", "x", "feature")
    assert "consolidated_metadata" not in (output.path / "zarr.json").read_text()


def test_windows_that_failed_or_were_left_out_have_none(tmp_path):
    frame = frame_of((700, 500), cells=(1, 1))
    state = np.zeros(frame.grid.shape, np.uint8)
    state[3] = BACKGROUND
    values, vectors = values_of(frame), vectors_of(frame)
    with Output(tmp_path / "a.zarr", frame, state) as output:
        failed = np.array([0, 1])
        output.growing.add(failed, values[failed] * np.nan, np.full(2, FAILED, np.uint8))
        rest = np.flatnonzero(output.growing.pending)
        add(output.growing, rest, values, vectors)
        output.writer.save()
    found, state = saved(output.path)
    expected = np.where((state == DONE)[..., None], vectors.reshape(found.shape), np.nan)
    assert np.array_equal(found, expected, equal_nan=True)
    with Output(tmp_path / "a.zarr", frame, state) as again:
        assert again.lost == 0
        assert not again.growing.pending.any()


def stop_and_damage(path, frame, damage):
    """A run saved to two thirds, then damaged; returns what was done."""
    values, vectors = values_of(frame), vectors_of(frame)
    with Output(path, frame) as output:
        size = frame.grid.size
        add(output.growing, np.arange(2 * size // 3), values, vectors)
        output.writer.save()
    done = saved(path)[1] == DONE
    damage(path / "features" / "c" / "1" / "1" / "0")
    return done


def flip_a_bit(chunk):
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)


def cut_short(chunk):
    chunk.write_bytes(chunk.read_bytes()[:40])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, lambda chunk: chunk.unlink()])
def test_a_damaged_or_missing_chunk_is_computed_again(tmp_path, frame, damage):
    path = tmp_path / "a.zarr"
    done = stop_and_damage(path, frame, damage)
    values, vectors = values_of(frame), vectors_of(frame)
    with Output(path, frame) as output:
        assert output.lost == done[4:8, 4:8].sum() > 0
        assert output.growing.pending[4:8, 4:8].all()
        if not frame.dense:
            kept_done = done.copy()
            kept_done[4:8, 4:8] = False
            assert np.array_equal(~output.growing.pending, kept_done)
        # In two steps: the first save must not read what is damaged.
        left = np.flatnonzero(output.growing.pending)
        for part in (left[::2], left[1::2]):
            add(output.growing, part, values, vectors)
            output.writer.save()
    found, state = saved(path)
    assert (state == DONE).all()
    assert np.array_equal(found, vectors.reshape(found.shape))


def test_damage_where_no_window_is_done_is_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr(DenseMap, "chunk", 1024)  # so none is done before all are
    frame = frame_of((700, 500), cells=(4, 4))
    path, values, vectors = tmp_path / "a.zarr", values_of(frame), vectors_of(frame)
    assert not stop_and_damage(path, frame, cut_short).any()
    with Output(path, frame) as output:
        assert output.lost == 0
        for part in np.array_split(np.arange(frame.grid.size), 5):
            add(output.growing, part, values, vectors)
            output.writer.save()
    assert np.array_equal(saved(path)[0].reshape(-1, LENGTH), vectors)


def test_damage_that_comes_while_the_run_goes_on_is_one_line(tmp_path):
    frame = frame_of((700, 500), cells=(1, 1))
    values, vectors = values_of(frame), vectors_of(frame)
    with Output(tmp_path / "a.zarr", frame) as output:
        add(output.growing, [0], values, vectors)
        output.writer.save()
        cut_short(output.path / "features" / "c" / "0" / "0" / "0")
        add(output.growing, [1], values, vectors)
        with pytest.raises(StoreError, match=r"damaged.*resume the run"):
            output.writer.save()
        assert state_of(output.store.state).ravel()[1] == PENDING


def test_vectors_that_are_not_finite_are_not_taken_for_missing(tmp_path):
    frame = frame_of((700, 500), cells=(1, 1))
    values, vectors = values_of(frame), vectors_of(frame)
    vectors[5] = np.nan
    with Output(tmp_path / "a.zarr", frame) as output:
        add(output.growing, [5], values, vectors, DONE | NOT_FINITE)
        add(output.growing, [6], values, vectors)
        output.writer.save()
    with Output(tmp_path / "a.zarr", frame) as again:
        assert again.lost == 0
        assert np.flatnonzero(~again.growing.pending).tolist() == [5, 6]


def test_what_could_not_be_saved_is_saved_the_next_time(tmp_path, frame, monkeypatch):
    values, vectors = values_of(frame), vectors_of(frame)
    rename, renames = os.replace, []

    def replace(source, target):
        renames.append(target)
        if "features" in str(target) and len(renames) % 3 == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    with Output(tmp_path / "a.zarr", frame) as output:
        monkeypatch.setattr(os, "replace", replace)
        for part in np.array_split(np.arange(frame.grid.size), 9):
            add(output.growing, part, values, vectors)
            try:
                output.writer.save()
            except StoreFullError:
                assert len(output.growing.unsaved) > 0
        monkeypatch.setattr(os, "replace", rename)
        output.writer.save()
        assert len(output.growing.unsaved) == 0
    found, state = saved(output.path)
    assert (state == DONE).all()
    assert np.array_equal(found, vectors.reshape(found.shape))


def test_while_a_writer_saves_all_the_time_no_state_runs_ahead(tmp_path, frame):
    values, vectors, size = values_of(frame), vectors_of(frame), frame.grid.size
    expected = vectors.reshape(*frame.grid.shape, LENGTH)
    over, seen = threading.Event(), []

    def look(path):
        while not over.is_set():
            group = zarr.open_group(str(path), mode="r")
            done = state_of(group["state"][:]) == DONE
            seen.append(np.array_equal(group["features"][:][done], expected[done]))

    with Output(tmp_path / "a.zarr", frame, interval=0.001) as output:
        looking = threading.Thread(target=look, args=[output.path])
        looking.start()
        for part in np.array_split(np.random.default_rng(2).permutation(size), 60):
            add(output.growing, part, values, vectors)
            over.wait(0.005)
        output.writer.save()
        over.set()
        looking.join()
    assert len(seen) > 3
    assert all(seen)
    assert np.array_equal(saved(output.path)[0], expected)


def test_a_store_never_needs_them_all_in_memory(tmp_path, monkeypatch):
    """Room is used again after each save, and beyond a bound lies in scratch files."""
    monkeypatch.setattr(kept, "SLAB_BYTES", 40 * LENGTH * 4)
    monkeypatch.setattr(kept, "MEMORY_BYTES", 60 * LENGTH * 4)
    frame = frame_of((2000, 2000), cells=(1, 1))
    values, vectors = values_of(frame), vectors_of(frame)
    with Output(tmp_path / "a.zarr", frame) as output:
        unsaved = output.growing.unsaved
        for part in np.array_split(np.arange(frame.grid.size), 60):
            add(output.growing, part, values, vectors)
            assert len(unsaved) == len(part)
            output.writer.save()
        assert len(unsaved._kept._slabs) * 40 < frame.grid.size / 10
        assert unsaved._kept._slabs[0].base is None
        assert isinstance(unsaved._kept._slabs[1], np.memmap)
        assert output.growing.features is None
    assert np.array_equal(saved(output.path)[0].reshape(-1, LENGTH), vectors)


def test_no_room_changes_nothing_and_can_be_tried_again(tmp_path, monkeypatch, frame):
    monkeypatch.setattr(kept, "SLAB_BYTES", 8 * LENGTH * 4)
    monkeypatch.setattr(kept, "MEMORY_BYTES", 0)
    values, vectors = values_of(frame), vectors_of(frame)

    def full(file, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Output(tmp_path / "a.zarr", frame) as output:
        growing = output.growing
        add(growing, range(4), values, vectors)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full, raising=False)
            before = growing.state.copy(), growing.version, len(growing.unsaved)
            with pytest.raises(StoreFullError, match=r"no room for .*set TMPDIR"):
                add(growing, range(4, 40), values, vectors)
            assert np.array_equal(growing.state, before[0])
            assert (growing.version, len(growing.unsaved)) == before[1:]
        add(growing, range(4, frame.grid.size), values, vectors)
        output.writer.save()
    found, state = saved(output.path)
    assert (state == DONE).all()
    assert np.array_equal(found, vectors.reshape(found.shape))


@pytest.mark.parametrize("scratch", [1 << 30, 100])
def test_without_a_store_they_are_whole_in_memory_or_scratch(monkeypatch, frame, scratch):
    monkeypatch.setattr(growing_module, "SCRATCH_BYTES", scratch)
    growing = made_map(frame, stored=False)
    vectors = vectors_of(frame)
    add(growing, np.arange(30), values_of(frame), vectors)
    assert isinstance(growing.features, np.memmap) == (scratch == 100)
    assert np.array_equal(growing.features.reshape(-1, LENGTH)[:30], vectors[:30])
    assert np.isnan(growing.features.reshape(-1, LENGTH)[30:]).all()


def test_a_map_without_features_takes_none(frame):
    growing = new_map(frame, np.zeros(frame.grid.shape, np.uint8))
    keep_features(growing, None, stored=True)
    assert (growing.features, growing.unsaved) == (None, None)
