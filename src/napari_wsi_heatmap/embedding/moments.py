"""Mean and covariance of vectors that come block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Moments:
    """Count, mean and scatter of vectors, in float64.

    Blocks are centred by themselves and merged as in Chan, Golub and LeVeque (1983), "Algorithms
    for computing the sample variance": nothing cancels, however far the mean lies from 0.

    Parameters
    ----------
    dim : int
        D, length of the vectors.

    Attributes
    ----------
    count : int
    mean : (D,) float64
    scatter : (D, D) float64
        Sum of the outer products of what vectors differ from the mean by.

    Notes
    -----
    Memory bound: 24 · D² bytes, and a block as float64.
    """

    def __init__(self, dim: int) -> None:
        self.count, self.mean = 0, np.zeros(dim)
        self.scatter = np.zeros((dim, dim))

    def add(self, vectors: NDArray[Any]) -> None:
        """Take vectors (n, D) into account; all must be finite."""
        if not len(vectors):
            return
        centred = vectors.astype(np.float64)
        mean = centred.mean(0)
        centred -= mean
        total, off = self.count + len(vectors), mean - self.mean
        self.scatter += centred.T @ centred
        self.scatter += np.outer(off, off * (self.count * len(vectors) / total))
        self.mean += off * (len(vectors) / total)
        self.count = total

    @property
    def covariance(self) -> Floats:
        """(D, D), unbiased: divided by the count less one."""
        return self.scatter / (self.count - 1)
