"""Principal components of the features: the directions in which windows differ most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.embedding.moments import Moments
from napari_wsi_heatmap.embedding.vectors import Vectors
from napari_wsi_heatmap.errors import FeatureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pca:
    """Principal components of the features of a slide."""

    scores: NDArray[np.float32]
    """(Y, X, k) of a grid, (N, k) of a list: where a window lies along each component, NaN where
    there are no features."""
    components: Floats
    """(k, D) unit vectors, orthogonal; the largest entry of each is positive."""
    mean: Floats
    """(D,)."""
    variance: Floats
    """(k,) along each component, in the features' unit squared, divided by the count less one."""
    explained: Floats
    """(k,) share of all variance."""
    windows: int
    """Number of windows with features."""

    def project(self, vectors: NDArray[Any]) -> Floats:
        """Scores (n, k) of vectors (n, D)."""
        return (np.asarray(vectors, np.float64) - self.mean) @ self.components.T


def pca(source: Heatmap | Vectors | NDArray[Any], components: int = 3) -> Pca:
    """Find the principal components of features, and where each window lies along them.

    The eigenvectors of the covariance matrix, which is summed up in float64 in one pass; a second
    pass computes the scores. Features are centred and not scaled.

    Parameters
    ----------
    source : Heatmap, Vectors or (N, D) array
    components : int
        k.

    Returns
    -------
    Pca

    Raises
    ------
    FeatureError
        If there are no features, or fewer than k of them, or not more than k windows with some.

    Notes
    -----
    Memory bound: 40 · D² bytes (100 MB for 1,600 features), four blocks of 16 MB as float64, and
    the scores.
    """
    vectors = Vectors.of(source)
    if not 1 <= components <= vectors.dim:
        raise FeatureError(
            f"{components} components of {vectors.dim} features", vectors.where, "ask for fewer"
        )
    moments = Moments(vectors.dim)
    for block in vectors.blocks():
        moments.add(block.vectors)
    vectors.refuse_fewer(moments.count, components + 1)
    axes, variance, explained = principal_axes(moments, components)
    found = Pca(np.empty(0, np.float32), axes, moments.mean, variance, explained, moments.count)
    return Pca(_scores(vectors, found), axes, moments.mean, variance, explained, moments.count)


def principal_axes(moments: Moments, k: int) -> tuple[Floats, Floats, Floats]:
    """(k, D) axes, (k,) variance along each, (k,) its share of all variance."""
    from scipy.linalg import eigh

    covariance, dim = moments.covariance, len(moments.mean)
    total = float(np.trace(covariance))
    values, axes = eigh(covariance, subset_by_index=[dim - k, dim - 1], overwrite_a=True)
    variance = np.maximum(values[::-1], 0.0)
    explained = variance / total if total > 0 else np.zeros(k)
    return _with_fixed_signs(axes.T[::-1]), variance, explained


def _with_fixed_signs(axes: Floats) -> Floats:
    """Axes point either way: let the largest entry of each be positive."""
    largest = np.abs(axes).argmax(1)
    return axes * np.where(axes[np.arange(len(axes)), largest] < 0, -1.0, 1.0)[:, None]


def _scores(vectors: Vectors, found: Pca) -> NDArray[np.float32]:
    scores = np.full((vectors.size, len(found.components)), np.nan, np.float32)
    for index, block in vectors.blocks():
        scores[index] = found.project(block)
    return scores.reshape(*vectors.shape, -1)
