"""Groups of windows that look alike to the model: k-means of their features.

Seeding by k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's iterations on a sample, several
times; then Lloyd's iterations over all windows from the best of them. Distances are SciPy's, in
float64, of features from which the sample's mean is taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap.embedding.vectors import Block, Vectors
from napari_wsi_heatmap.errors import FeatureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

    Floats = NDArray[np.float64]

Blocks = Callable[[], Iterator[Block]]

SAMPLE_BYTES = 1 << 25
"""Of the vectors that k-means begins with, as float64."""
TRIES = 4
MOST_PASSES = 25
ENOUGH = 1e-4
"""Share of the sum of squares that a pass must gain for another one."""
HOLD_BYTES = 1 << 29
"""Of vectors that are held in memory rather than read once a pass."""


@dataclass(frozen=True)
class Clusters:
    """Windows in groups."""

    labels: NDArray[np.int32]
    """(Y, X) of a grid, (N,) of a list: 1 the largest cluster, 2 the next …, 0 no features."""
    centres: Floats
    """(k, D), that of cluster 1 first."""
    counts: NDArray[np.int64]
    """(k,) windows in each."""
    inertia: float
    """Sum of the squared distances of vectors from their centres."""
    converged: bool
    """Whether it ended by itself, not at the last pass that is allowed."""
    seed: int


class Pass(NamedTuple):
    """What one look at all vectors gives."""

    labels: NDArray[np.int32]
    """(size,) nearest centre of each, -1 where there is no vector."""
    sums: Floats
    """(k, D) of the vectors next to each centre."""
    counts: NDArray[np.int64]
    inertia: float

    def means(self, centres: Floats) -> Floats:
        """Where the centres move to; one that has lost all its vectors stays."""
        there, moved = self.counts > 0, centres.copy()
        moved[there] = self.sums[there] / self.counts[there, None]
        return moved


def clusters(source: Heatmap | Vectors | NDArray[Any], k: int = 8, seed: int = 0) -> Clusters:
    """Group windows by k-means of their features.

    The same seed gives the same clusters, on one machine.

    Parameters
    ----------
    source : Heatmap, Vectors or (N, D) array
    k : int
        Number of clusters; where there are fewer different vectors, there are fewer clusters.
    seed : int

    Returns
    -------
    Clusters

    Raises
    ------
    FeatureError
        If there are no features, or fewer windows with some than clusters.

    Notes
    -----
    Memory bound: the vectors, where they take at most 512 MB, else they are read once a pass; a
    sample of 32 MB; four blocks of 16 MB as float64; two maps of labels.
    """
    vectors = Vectors.of(source)
    if k < 1:
        raise FeatureError(f"{k} clusters", vectors.where, "ask for one or more")
    held = 4 * vectors.most * vectors.dim <= HOLD_BYTES
    blocks = vectors.gathered().blocks if held else vectors.blocks
    points = _sample(blocks, vectors, np.random.default_rng(seed))
    vectors.refuse_fewer(len(points), k)
    shift = points.mean(0)
    begin = _begin(points - shift, k, np.random.default_rng(seed))
    last, centres, converged = _lloyd(_shifted(blocks, shift), vectors.size, begin)
    return _by_size(vectors, last, centres + shift, converged, seed)


def _sample(blocks: Blocks, vectors: Vectors, rng: np.random.Generator) -> Floats:
    """(m, D) of vectors that are chosen evenly at random, in order; all, where they are few."""
    most = max(1, SAMPLE_BYTES // (8 * vectors.dim))
    chosen = np.zeros(vectors.size, bool)
    # In grid order: a sample does not depend on how vectors are read.
    there = np.sort(np.concatenate([np.zeros(0, np.int64), *(b.windows for b in blocks())]))
    chosen[rng.choice(there, min(most, len(there)), replace=False)] = True
    parts = [Block(i[chosen[i]], v[chosen[i]].astype(np.float64)) for i, v in blocks()]
    index = np.concatenate([np.zeros(0, np.int64), *(part.windows for part in parts)])
    points = np.concatenate([np.empty((0, vectors.dim)), *(part.vectors for part in parts)])
    return points[np.argsort(index)]


def _shifted(blocks: Blocks, shift: Floats) -> Blocks:
    """The same vectors in float64 around 0, where their distances do not cancel."""
    return lambda: (Block(index, vectors - shift) for index, vectors in blocks())


def _begin(points: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Centres (k, D) of the best of several tries on a sample."""
    index = np.arange(len(points))
    tries = [
        _lloyd(lambda: iter([Block(index, points)]), len(points), spread_out(points, k, rng))
        for _ in range(TRIES)
    ]
    return min(tries, key=lambda found: found[0].inertia)[1]


def spread_out(points: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Choose k of the points (n, D), far ones rather than near ones: k-means++.

    Returns
    -------
    (k, D), fewer where fewer points differ
    """
    at = int(rng.integers(len(points)))
    chosen, nearest = [at], np.square(points - points[at]).sum(1)
    while len(chosen) < k and nearest.any():
        at = int(rng.choice(len(points), p=nearest / nearest.sum()))
        chosen.append(at)
        nearest = np.minimum(nearest, np.square(points - points[at]).sum(1))
    return points[chosen]


def _lloyd(blocks: Blocks, size: int, centres: Floats) -> tuple[Pass, Floats, bool]:
    """Move centres to the means of what is next to them, until they hardly move."""
    last = look(blocks, size, centres)
    for _ in range(MOST_PASSES):
        moved = last.means(centres)
        this = look(blocks, size, moved)
        still = np.array_equal(this.labels, last.labels)
        gain = last.inertia - this.inertia
        last, centres = this, moved
        if still or gain <= ENOUGH * this.inertia:
            return last, centres, True
    return last, centres, False


def look(blocks: Blocks, size: int, centres: Floats) -> Pass:
    """Find the nearest centre (k, D) of every vector, and what lies next to each centre."""
    from scipy.cluster.vq import vq

    k, inertia = len(centres), 0.0
    labels, sums = np.full(size, -1, np.int32), np.zeros_like(centres)
    for index, vectors in blocks():
        nearest, distance = vq(vectors, centres, check_finite=False)
        labels[index] = nearest
        _add_up(sums, nearest, vectors)
        inertia += float(np.square(distance).sum())
    counts = np.bincount(labels[labels >= 0], minlength=k)
    return Pass(labels, sums, counts, inertia)


def _add_up(sums: Floats, nearest: NDArray[np.int32], vectors: Floats) -> None:
    """Add vectors (n, D) to the sum of the cluster that each is in."""
    # Not by a matrix product: where all cores are busy, as in a run, its threads wait for each
    # other longer than adding takes.
    order = np.argsort(nearest, kind="stable")
    there, first = np.unique(nearest[order], return_index=True)
    sums[there] += np.add.reduceat(vectors[order], first)


def _by_size(
    vectors: Vectors,
    last: Pass,
    centres: Floats,
    converged: bool,
    seed: int,
) -> Clusters:
    """Number clusters from the largest on; those that are empty are left out."""
    order = np.argsort(-last.counts, kind="stable")[: np.count_nonzero(last.counts)]
    number = np.zeros(len(centres) + 1, np.int32)  # the last is that of windows without a vector
    number[order] = np.arange(1, len(order) + 1)
    labels = number[last.labels].reshape(vectors.shape)
    counts = last.counts[order]
    return Clusters(labels, centres[order], counts, last.inertia, converged, seed)
