"""Vectors of windows, block by block: each that counts once, no other."""

from __future__ import annotations

import numpy as np
import pytest

from made_embedding import grid_map, rows, there
from napari_wsi_heatmap.embedding import vectors as module
from napari_wsi_heatmap.embedding.vectors import Vectors, flat_index
from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.heatmap import Heatmap


@pytest.mark.usefixtures("blocks")
def test_every_window_that_counts_comes_once(made):
    found = list(Vectors.of(made).blocks())
    index = np.concatenate([block.windows for block in found])
    order = np.argsort(index)
    assert np.array_equal(index[order], there(made))
    assert np.array_equal(np.concatenate([b.vectors for b in found])[order], rows(made))


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (17, 200), (200, 17)])
@pytest.mark.parametrize("block_bytes", [1, 4 * 5 * 16 * 40])
def test_blocks_are_whole_chunks_and_no_larger_than_allowed(monkeypatch, shape, block_bytes):
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    features = np.random.default_rng(0).random((*shape, 5), np.float32)
    seen = np.zeros(shape, int)
    found = Vectors(features, np.ones(shape, bool))
    for box in found._boxes():
        seen[box] += 1
        assert all(side.start % 16 == 0 for side in box)
        assert features[box].nbytes <= max(block_bytes, 4 * 5 * 16 * 16)
    assert (seen == 1).all()


def test_chunks_where_nothing_is_done_are_not_read():
    class Counting:
        shape, ndim, read = (64, 64, 3), 3, 0

        def __getitem__(self, box):
            Counting.read += 1
            return np.zeros((64, 64, 3), np.float32)[box]

    done = np.zeros((64, 64), bool)
    done[40, 50] = True
    assert [block.windows.tolist() for block in Vectors(Counting(), done).blocks()] == [
        [40 * 64 + 50]
    ]
    assert Counting.read == 1


def test_a_chunk_without_a_finite_vector_is_no_block():
    made = grid_map(shape=(40, 32))
    made.features[:16] = np.nan
    assert all(len(block.windows) for block in Vectors.of(made).blocks())
    assert made.clusters(3).counts.sum() == len(there(made))
    made.features[:] = np.nan
    assert list(Vectors.of(made).blocks()) == []


@pytest.mark.usefixtures("blocks")
def test_all_of_them_in_one_array(made):
    index, matrix = Vectors.of(made).gathered()
    order = np.argsort(index)
    assert np.array_equal(index[order], there(made))
    assert np.array_equal(matrix[order], rows(made))
    again = list(Vectors.of(made).gathered().blocks())
    assert np.array_equal(np.concatenate([block.vectors for block in again]), matrix)


def test_many_lie_in_a_scratch_file(monkeypatch):
    monkeypatch.setattr(module, "SCRATCH_BYTES", 100)
    made = grid_map()
    index, matrix = Vectors.of(made).gathered()
    assert isinstance(matrix, np.memmap)
    assert np.array_equal(matrix[np.argsort(index)], rows(made))


def test_a_heatmap_without_features_says_so():
    made = grid_map()
    bare = Heatmap(made.values, made.state, made.frame, made.run)
    with pytest.raises(FeatureError, match=r"no features.*run a model that gives some"):
        Vectors.of(bare)


def test_where_nothing_is_done_yet_it_says_so():
    made = grid_map()
    made.state[:] = 0
    with pytest.raises(FeatureError, match=r"0 windows have features, 1 are needed.*wait"):
        Vectors.of(made).gathered()


def test_one_window(made):
    index = there(made)[5]
    assert np.array_equal(Vectors.of(made).one(index), rows(made)[5])
    missing = np.setdiff1d(np.arange(made.state.size), there(made))
    for window in missing[:20]:
        with pytest.raises(FeatureError, match="the window has no features"):
            Vectors.of(made).one(window)


def test_windows_are_named_by_index_or_row_and_column():
    assert flat_index((2, 3), (5, 7)) == 17
    assert flat_index(np.int64(17), (5, 7)) == 17
    assert flat_index(-1, (5, 7)) == 34
    for wrong in (35, (5, 0), (0, -1), (1,), "a", 1.5):
        with pytest.raises(FeatureError, match="there are 5 x 7"):
            flat_index(wrong, (5, 7))
