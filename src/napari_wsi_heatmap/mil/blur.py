"""Gaussian blur of scores and of pixels, as OpenCV's ``GaussianBlur`` with sigma 0 has it.

Sigma follows from the size n of the kernel: 0.15 n + 0.35; kernels of up to 9 taps are fixed. At
the border the picture is mirrored, the outermost pixel not repeated. Pixels are blurred in whole
numbers, 8 bits of fraction for each of the two passes, so their result is exact. Scores are
blurred in float64; sums may differ from OpenCV's in the last bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Rgb

    Floats = NDArray[np.float64]
    Sizes = tuple[int, int]

FIXED = {
    1: (1,),
    3: (64, 128, 64),
    5: (16, 64, 96, 64, 16),
    7: (8, 28, 56, 72, 56, 28, 8),
    9: (4, 13, 30, 51, 60, 51, 30, 13, 4),
}
"""In 256ths; but of one tap."""
ONE = 256
"""What the taps in whole numbers sum up to."""
WIDE = 48
"""Taps from which on a Fourier transform is faster than adding up."""


def kernel_sizes(patch: tuple[int, int], overlap: float) -> Sizes:
    """(y, x) taps of the blur of a picture.

    Parameters
    ----------
    patch : (int, int)
        (height, width) of a patch, px of the picture.
    overlap : float
        Share of a patch that its neighbour covers, 0…1.
    """
    y, x = (int(side * (1 - overlap)) * 2 + 1 for side in patch)
    return y, x


def gaussian(n: int) -> Floats:
    """Kernel of n taps, n odd, that sum up to 1."""
    if n in FIXED:
        taps = np.array(FIXED[n], np.float64)
        return taps / taps.sum()
    sigma = 0.15 * n + 0.35
    left = np.exp(np.arange(1 - n, 0, 2, dtype=np.float64) ** 2 * (-0.125 / sigma**2))
    scale = 1 / (2 * left.sum() + 1)
    return np.concatenate([left, [1.0], left[::-1]]) * scale


def whole_gaussian(n: int) -> NDArray[np.int64]:
    """Kernel of n taps in whole numbers that sum up to 256; what is cut off goes to the next."""
    left: list[int] = []
    error = 0.0
    for tap in (gaussian(n)[: n // 2] * ONE).tolist():
        wanted = tap + error
        left.append(round(wanted))
        error = wanted - left[-1]
    return np.array([*left, ONE - 2 * sum(left), *left[::-1]])


def blur_scores(scores: Floats, sizes: Sizes) -> Floats:
    """Blur (H, W) float64 by kernels of (y, x) taps."""
    return _passes(scores, *map(gaussian, sizes))


def blur_pixels(pixels: Rgb, sizes: Sizes) -> Rgb:
    """Blur (H, W, 3) uint8 by kernels of (y, x) taps."""
    down, across = (whole_gaussian(n).astype(np.float64) for n in sizes)
    blurred = np.empty_like(pixels)
    for channel in range(pixels.shape[2]):
        # Whole numbers far below 2**53; a Fourier transform is off by 1e-8.
        sums = np.rint(_passes(pixels[..., channel], down, across))
        blurred[..., channel] = np.floor((sums + ONE * ONE / 2) / (ONE * ONE))
    return blurred


def _passes(values: NDArray[np.generic], down: Floats, across: Floats) -> Floats:
    from scipy.ndimage import correlate1d

    if max(len(down), len(across)) >= WIDE:
        return _by_fourier(values, down, across)
    rows = correlate1d(values, across, axis=1, output=np.float64, mode="mirror")
    blurred: Floats = correlate1d(rows, down, axis=0, mode="mirror")
    return blurred


def _by_fourier(values: NDArray[np.generic], down: Floats, across: Floats) -> Floats:
    from scipy.fft import irfft2, next_fast_len, rfft2

    taps = len(down), len(across)
    wide = np.pad(values, [(n // 2, n // 2) for n in taps], "reflect")
    sides = [next_fast_len(n, real=True) for n in wide.shape]
    waves = rfft2(wide.astype(np.float64), sides)
    waves *= np.fft.fft(down, sides[0])[:, None]
    waves *= np.fft.rfft(across, sides[1])
    height, width = values.shape
    blurred: Floats = irfft2(waves, sides)[taps[0] - 1 :, taps[1] - 1 :][:height, :width]
    return blurred
