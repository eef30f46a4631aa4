"""Pixels brought to the mean and spread that a model was trained on."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor


class Normalize(torch.nn.Module):
    """(x - mean) / std of each channel, as torchvision's Normalize does.

    Parameters
    ----------
    mean, std : (C,) float
        Of values in 0…1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.eval()

    def forward(self, batch: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        mean, std = (_column(values, batch.device) for values in (self.mean, self.std))
        return (batch - mean) / std

    def extra_repr(self) -> str:
        """Return what it does: a model is recognised by it."""
        return f"mean={self.mean}, std={self.std}"


@lru_cache(maxsize=64)
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1) float32 on a device, copied there once: a copy waits for all that it does."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
