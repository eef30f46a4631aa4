"""Image filters of which each window's result is the same bits wherever in a batch it stands.

Products and sums of shifted images. A convolution or matrix product chooses its algorithm, and
with it the order of sums, by shape and alignment, and on a GPU may round to fewer bits.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import max_pool2d, pad

Tensor = torch.Tensor


def laplacian(images: Tensor) -> Tensor:
    """Sum of the four neighbours minus four times the pixel, edges repeated, (N, H, W)."""
    wide = pad(images, (1, 1, 1, 1), mode="replicate")
    rows = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1]
    columns = wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
    return rows.add_(columns).sub_(images * 4)


def gaussian(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur cut off at 4 sigma, edges repeated, (N, H, W)."""
    weights = _half_gaussian(sigma)
    return _symmetric(_symmetric(images, weights, 1), weights, 2)


def _half_gaussian(sigma: float) -> list[float]:
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(math.ceil(4 * sigma) + 1)]
    total = 2 * sum(weights) - weights[0]
    return [weight / total for weight in weights]


def _symmetric(images: Tensor, weights: list[float], dim: int) -> Tensor:
    reach, size = len(weights) - 1, images.shape[dim]
    sides = (reach, reach, 0, 0) if dim == 2 else (0, 0, reach, reach)
    wide = pad(images, sides, mode="replicate")
    total = images * weights[0]
    for shift, weight in enumerate(weights[1:], start=1):
        before = wide.narrow(dim, reach - shift, size)
        total.add_(before.add(wide.narrow(dim, reach + shift, size)).mul_(weight))
    return total


def peaks(images: Tensor, reach: int, threshold: float) -> Tensor:
    """Pixels above `threshold` that none within `reach` exceeds, (N, H, W) bool.

    Of neighbouring equal pixels the first in raster order is the peak.
    """
    size = 2 * reach + 1
    highest = max_pool2d(images[:, None], (size, 1), stride=1, padding=(reach, 0))
    highest = max_pool2d(highest, (1, size), stride=1, padding=(0, reach))[:, 0]
    found = (images == highest) & (images > threshold)
    wide = pad(found, (1, 1, 1, 0))
    earlier = wide[:, :-1, :-2] | wide[:, :-1, 1:-1] | wide[:, :-1, 2:] | wide[:, 1:, :-2]
    return found & ~earlier
