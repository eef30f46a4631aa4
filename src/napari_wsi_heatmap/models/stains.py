"""Stain separation: optical density of haematoxylin, eosin and DAB."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch

Tensor = torch.Tensor

STAINS: Final = {
    "hematoxylin": (0.65, 0.70, 0.29),
    "eosin": (0.07, 0.99, 0.11),
    "dab": (0.27, 0.57, 0.78),
}
"""Optical density in R, G, B of each stain: Ruifrok & Johnston 2001, table of stain vectors."""

FACTORS: Final = 8
"""Values of which the product is taken before the logarithm; a power of two."""

LIMITS: Final = {"hematoxylin": (0.0, 0.6), "eosin": (0.0, 0.3), "dab": (0.0, 0.6)}
"""Window means as they occur on well stained tissue."""


def unmixing(stain: str) -> tuple[float, float, float]:
    """(R, G, B) weights by which optical densities become the amount of one stain.

    The stain's column of the inverse of the stain matrix with rows of length 1; for
    haematoxylin (1.8748, -0.0658, -0.6009).
    """
    matrix = np.array(list(STAINS.values()))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    red, green, blue = np.linalg.inv(matrix)[:, list(STAINS).index(stain)].tolist()
    return red, green, blue


def optical_density(log: Tensor) -> Tensor:
    """-log10((255 x + 1) / 256), given ln(x + 1/255); linear, so it also takes means of it."""
    return log.mul(-1 / math.log(10)).sub_(math.log10(255 / 256))


def weighted(channels: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Sum over channels: (N, 3, ...) -> (N, ...).

    Plain products and sums, not a matrix product: they are the same bits wherever in a batch
    a window stands, and no reduced precision of a GPU touches them.
    """
    red, green, blue = (channels[:, i] * weight for i, weight in enumerate(weights))
    return red.add_(green).add_(blue)


def concentration(patches: Tensor, stain: str) -> Tensor:
    """Amount of a stain in each pixel, (N, 3, H, W) in 0…1 -> (N, H, W) optical density."""
    return weighted(optical_density(torch.add(patches, 1 / 255).log_()), unmixing(stain))


def mean_log(x: Tensor) -> Tensor:
    """Mean of ln x over a window, (N, 3, H, W) in 1/255…256/255 -> (N, 3); x is used up.

    By the logarithms of products of `FACTORS` rows: they cost most, and 255⁻⁸ is far from where
    float32 ends.
    """
    height, width = x.shape[2:]
    whole = height // FACTORS * FACTORS
    products, rest = x[:, :, :whole], x[:, :, whole:]
    while products.shape[2] > height // FACTORS:  # halved, and multiplied with the other half
        products, others = products.chunk(2, 2)
        products *= others
    total = products.log_().sum((2, 3))
    if rest.shape[2]:
        total += rest.log_().sum((2, 3))
    return total.div_(height * width)


class StainDensity(torch.nn.Module):
    """Mean optical density of one stain over the window.

    With OD = -log10((255 x + 1) / 256) of x in 0…1 and M the matrix of stain vectors, rows of
    length 1, the amounts of the stains are OD · M⁻¹; here the mean over the window of one of
    them. Separation by fixed vectors: amounts below 0 occur where a colour is none of the three.

    Parameters
    ----------
    stain : {"hematoxylin", "eosin", "dab"}

    References
    ----------
    Ruifrok AC, Johnston DA. Quantification of histochemical staining by color deconvolution.
    Anal Quant Cytol Histol 2001; 23: 291-299.
    """

    window = (64, 64)
    mpp = 0.5
    unit = "OD"
    version = 2

    def __init__(self, stain: str) -> None:
        super().__init__()
        self.names = (stain,)
        self.limits = LIMITS[stain]
        self.weights = unmixing(stain)

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 3, H, W) in 0…1 -> (N, 1) optical density."""
        logs = mean_log(torch.add(patches.float(), 1 / 255))
        return weighted(optical_density(logs), self.weights)[:, None]

    def extra_repr(self) -> str:
        """Return the parameters of the formula."""
        return f"{self.names[0]}, weights={self.weights}"
