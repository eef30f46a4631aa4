"""How densely nuclei lie."""

from __future__ import annotations

from typing import Final

import torch
from torch.nn.functional import avg_pool2d

from napari_wsi_heatmap.models.filters import gaussian, laplacian, peaks
from napari_wsi_heatmap.models.stains import concentration

RADIUS_UM: Final = 3.5
"""Radius of a small nucleus: what the blob filter is tuned to, and how near two may lie."""
WORKING_MPP: Final = 1.0
"""µm per pixel at which blobs of this size are looked for; finer pixels are averaged first."""
THRESHOLD: Final = 0.15
"""Least response, optical density: a disc of that radius 0.2 darker than what surrounds it."""


class NucleiDensity(torch.nn.Module):
    """Nuclei per mm², counted as dark blobs of haematoxylin.

    The haematoxylin amount (see `StainDensity`; below 0 becomes 0) at about 1 µm/px is
    filtered by the scale-normalised Laplacian of Gaussian -σ²∇²(G_σ * h), σ = r/√2 with
    r = 3.5 µm, whose response to a disc of radius r and height a is 2a/e in its centre. Peaks
    above 0.15 with no higher one within r are nuclei. Counted are those whose centre lies in
    the window less a guard of r, per area of that frame, so that a nucleus cut by the border
    does not count twice. An estimate: large or touching nuclei, keratin and ink mislead it.

    Parameters
    ----------
    mpp : float
        µm per pixel of the patches.

    References
    ----------
    Al-Kofahi Y et al. Improved automatic detection and segmentation of cell nuclei in
    histopathology images. IEEE Trans Biomed Eng 2010; 57: 841-852 (the method).
    Lindeberg T. Feature detection with automatic scale selection. Int J Comput Vis 1998; 30:
    79-116 (the filter). Gundersen HJG. J Microsc 1977; 111: 219-223 (the counting frame).
    """

    window = (128, 128)
    names = ("nuclei",)
    unit = "nuclei/mm²"
    limits = (0.0, 6000.0)
    version = 1

    def __init__(self, mpp: float = 0.5) -> None:
        super().__init__()
        self.mpp = mpp

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in 0…1 -> (N, 1) nuclei per mm²."""
        shrink = min(max(1, round(WORKING_MPP / self.mpp)), *patches.shape[2:])
        amount = concentration(avg_pool2d(patches.float(), shrink), "hematoxylin")
        return _density(amount.clamp_(min=0), self.mpp * shrink)[:, None]

    def extra_repr(self) -> str:
        """Return the parameters of the formula."""
        return f"mpp={self.mpp}, r={RADIUS_UM}, working mpp={WORKING_MPP}, OD {THRESHOLD}"


def _density(amount: torch.Tensor, mpp: float) -> torch.Tensor:
    """(N, h, w) haematoxylin at `mpp` -> (N,) nuclei per mm²."""
    sigma = RADIUS_UM / 2**0.5 / mpp
    reach = max(1, round(RADIUS_UM / mpp))
    response = laplacian(gaussian(amount, sigma)).mul_(-(sigma**2))
    rows, columns = (_frame(size, reach) for size in amount.shape[1:])
    found = peaks(response, reach, THRESHOLD)[:, rows, columns]
    area = found[0].numel() * (mpp / 1000) ** 2
    return found.sum((1, 2)).to(amount.dtype) / area


def _frame(size: int, guard: int) -> slice:
    guard = min(guard, (size - 1) // 2)
    return slice(guard, size - guard)
