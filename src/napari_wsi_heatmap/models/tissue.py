"""How much of a window is tissue."""

from __future__ import annotations

from typing import Final

import torch

THRESHOLD: Final = 0.15
"""Optical density below which a pixel is glass: beta of Macenko et al. 2009."""


class TissueFraction(torch.nn.Module):
    """Fraction of the window's pixels that are tissue.

    A pixel is tissue where -log10((255 x + 1) / 256), x in 0…1, reaches 0.15 in R, G or B:
    grey level 180 or darker. Ink, folds and dust that absorb as much count as tissue.

    References
    ----------
    Macenko M et al. A method for normalizing histology slides for quantitative analysis.
    IEEE ISBI 2009: 1107-1110 (the threshold beta).
    """

    window = (64, 64)
    mpp = 0.5
    names = ("tissue",)
    unit = ""
    limits = (0.0, 1.0)
    version = 1

    def __init__(self) -> None:
        super().__init__()
        self.darkest_glass = (256 * 10**-THRESHOLD - 1) / 255

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in 0…1 -> (N, 1) fraction in 0…1."""
        tissue = patches.float().amin(1) <= self.darkest_glass
        return tissue.float().mean((1, 2))[:, None]

    def extra_repr(self) -> str:
        """Return the parameters of the formula."""
        return f"optical density {THRESHOLD}"
