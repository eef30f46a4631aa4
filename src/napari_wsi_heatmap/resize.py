"""Patches brought to the size that the model sees.

`pillow` is exact: what Pillow's BILINEAR makes of a uint8 image, since models were trained on
that; the filter alone has been seen to move probabilities by 0.076. On the CPU Pillow itself
does it. On a GPU two matrix products with Pillow's coefficients do: a triangle filter, its support
scaled when shrinking, in fixed point of 22 bits, rounded and clipped to uint8 after the
horizontal and after the vertical pass. `torch` is several times faster and at most 2 grey levels
off.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import PIL
import torch
from PIL import Image

from napari_wsi_heatmap.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Callable

    Tensor = torch.Tensor
    Resize = Callable[[Tensor, tuple[int, int]], Tensor]

FIXED_POINT_BITS: Final = 22
PILLOW: Final = tuple(int(part) for part in PIL.__version__.split(".")[:2])


def resize_patches(patches: Tensor, size: tuple[int, int], how: str = "pillow") -> Tensor:
    """Resize a batch.

    Parameters
    ----------
    patches : (N, 3, H, W) uint8
    size : (int, int)
        (h, w) wanted.
    how : {"pillow", "torch"}

    Returns
    -------
    (N, 3, h, w) uint8
    """
    if how not in RESIZES:
        raise GridError(f"no resize {how!r}", do=f"choose one of {', '.join(RESIZES)}")
    if tuple(patches.shape[2:]) == tuple(size):
        return patches
    return RESIZES[how](patches, size)


def _by_pillow(patches: Tensor, size: tuple[int, int]) -> Tensor:
    if patches.device.type != "cpu":
        return by_coefficients(patches, size)
    images = patches.permute(0, 2, 3, 1).contiguous().numpy()  # (N, H, W, 3)
    height, width = size
    resized = [
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        for image in images
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


def _by_torch(patches: Tensor, size: tuple[int, int]) -> Tensor:
    def bilinear(x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True)

    if patches.device.type == "cpu":
        return bilinear(patches.contiguous(memory_format=torch.channels_last))
    return bilinear(patches.float()).round_().clamp_(0, 255).to(torch.uint8)


def by_coefficients(patches: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's BILINEAR as matrix products in float64, on any device; (N, 3, h, w) uint8."""
    height, width = patches.shape[2:]
    across = _coefficients_on(patches.device, width, size[1]).T  # (W, w)
    down = _coefficients_on(patches.device, height, size[0])  # (h, H)
    if _vertical_first(height - size[0], width - size[1]):
        return _to_uint8(_to_uint8(down @ patches.double()).double() @ across)
    return _to_uint8(down @ _to_uint8(patches.double() @ across).double())


def _vertical_first(rows_lost: int, columns_lost: int) -> bool:
    """Which pass Pillow begins with, which decides what is rounded first; changed in 13.0."""
    return PILLOW >= (13,) and rows_lost > max(0, 2 * columns_lost)


def _to_uint8(fixed: Tensor) -> Tensor:
    half = 1 << (FIXED_POINT_BITS - 1)
    return ((fixed + half) / (1 << FIXED_POINT_BITS)).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=16)
def _coefficients_on(device: torch.device, before: int, after: int) -> Tensor:
    """The same on a device, copied there once: a copy waits for all that the device does."""
    return _coefficients(before, after).to(device)


@lru_cache(maxsize=16)
def _coefficients(before: int, after: int) -> Tensor:
    """(after, before) float64 matrix of whole numbers: fixed-point weights of each source pixel."""
    scale = before / after
    support = max(scale, 1.0)
    weights = np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(before, int(centre + support + 0.5))
        taps = np.arange(first, last)
        weight = np.maximum(0, 1 - np.abs((taps - centre + 0.5) * (1 / support)))
        weights[i, first:last] = weight / weight.sum()
    return torch.from_numpy(np.floor(weights * (1 << FIXED_POINT_BITS) + 0.5))


RESIZES: Final[dict[str, Resize]] = {"pillow": _by_pillow, "torch": _by_torch}
