"""k-means: what SciPy's finds from the same beginning, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from made_embedding import grid_map, rows, there
from napari_wsi_heatmap.embedding import clusters as module
from napari_wsi_heatmap.embedding import vectors
from napari_wsi_heatmap.embedding.clusters import clusters, spread_out
from napari_wsi_heatmap.embedding.vectors import Block
from napari_wsi_heatmap.errors import FeatureError


def blobs(counts=(50, 200, 100), dim=8, seed=0):
    """(n, D) in groups far from each other, shuffled; and the group of each."""
    rng = np.random.default_rng(seed)
    middles = 100 + 20 * np.eye(dim)[: len(counts)]
    group = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return (middles[group] + rng.normal(size=(len(group), dim))).astype(np.float32), group


@pytest.mark.parametrize("hold", [0, 1 << 29], ids=["read each time", "held"])
@pytest.mark.usefixtures("blocks")
def test_groups_that_are_there_are_found(monkeypatch, hold):
    monkeypatch.setattr(module, "HOLD_BYTES", hold)
    data, group = blobs()
    found = clusters(data, 3)
    assert found.counts.tolist() == [200, 100, 50]
    assert found.converged
    by_group = [set(found.labels[group == g].tolist()) for g in range(3)]
    assert by_group == [{3}, {1}, {2}]
    for label, g in ((1, 1), (2, 2), (3, 0)):
        mean = data[group == g].astype(float).mean(0)
        np.testing.assert_allclose(found.centres[label - 1], mean, rtol=1e-9)


@pytest.mark.usefixtures("blocks")
def test_each_window_is_in_the_cluster_of_its_nearest_centre(made):
    found = made.clusters(5, seed=3)
    away = cdist(rows(made), found.centres) ** 2
    assert found.labels.shape == made.state.shape
    labels = found.labels.ravel()
    assert np.array_equal(labels[there(made)], away.argmin(1) + 1)
    assert not np.delete(labels, there(made)).any()
    assert np.array_equal(np.bincount(labels, minlength=6)[1:], found.counts)
    assert (np.diff(found.counts) <= 0).all()
    assert found.inertia == pytest.approx(away.min(1).sum(), rel=1e-9)


def test_one_pass_is_scipys():
    data, _ = blobs((300, 300, 300), dim=3)
    data = np.random.default_rng(0).permutation(data) + np.float32(0.1)
    begin = data[:7].astype(float)
    index = np.arange(len(data))
    found = module.look(lambda: iter([Block(index, data.astype(float))]), len(data), begin)
    centres, labels = kmeans2(data.astype(float), begin, iter=1, minit="matrix")
    assert np.array_equal(found.labels, labels)
    np.testing.assert_allclose(found.means(begin), centres, rtol=1e-12)


def test_it_is_no_worse_than_scipys_from_many_beginnings():
    made = grid_map(shape=(40, 40), seed=5)
    data = rows(made)
    best = np.inf
    for seed in range(10):
        begin = np.random.default_rng(seed).permutation(data)[:6]
        centres, labels = kmeans2(data, begin, iter=50, minit="matrix")
        best = min(best, ((data - centres[labels]) ** 2).sum())
    assert made.clusters(6).inertia <= 1.02 * best


def test_a_seed_decides(monkeypatch):
    made = grid_map()
    first, again, other = made.clusters(7), made.clusters(7), made.clusters(7, seed=1)
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.centres, again.centres)
    assert not np.array_equal(first.centres, other.centres)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 4 * 6 * 16 * 16)
    monkeypatch.setattr(module, "HOLD_BYTES", 0)
    assert np.array_equal(made.clusters(7).labels, first.labels)


def test_a_sample_to_begin_with_is_enough(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_BYTES", 8 * 8 * 40)
    data, _ = blobs((400, 300, 200))
    assert clusters(data, 3).counts.tolist() == [400, 300, 200]


def test_fewer_different_vectors_than_clusters():
    data = np.repeat(np.float32([[0, 0], [5, 5]]), 10, axis=0)[:15]
    found = clusters(data, 4)
    assert found.counts.tolist() == [10, 5]
    assert found.labels.tolist() == [1] * 10 + [2] * 5
    assert found.inertia < 1e-20


def test_a_centre_that_loses_all_its_windows_stays():
    data = np.float64([[0.0], [1.0], [2.0]])
    begin = np.float64([[0.0], [50.0], [2.0]])
    found = module.look(lambda: iter([Block(np.arange(3), data)]), 3, begin)
    assert found.means(begin)[1] == 50


def test_far_points_are_chosen_to_begin_with():
    data, _ = blobs((100, 100, 100))
    chosen = spread_out(data.astype(float), 3, np.random.default_rng(0))
    assert cdist(chosen, chosen)[np.triu_indices(3, 1)].min() > 15


@pytest.mark.parametrize(("k", "why"), [(0, "0 clusters"), (10, "9 windows have features, 10")])
def test_clusters_that_cannot_be(k, why):
    with pytest.raises(FeatureError, match=why):
        clusters(np.random.default_rng(0).random((9, 3)), k)


def test_without_any_window():
    made = grid_map()
    made.state[:] = 0
    with pytest.raises(FeatureError, match="0 windows have features"):
        made.clusters(2)
