"""One value from the windows that lie over a cell: the weights, and the four ways to blend.

What is given is given in grid order and summed in float64, so the same windows give the same bits
whenever they were computed.

NaN is no value: it takes no part, and a cell is NaN only where no window gave a value. An
infinite value takes part as arithmetic has it: the mean of ∞ and 1 is ∞, of ∞ and −∞ NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Box, Values

    Weights = NDArray[np.float64]
    Part = tuple[Box, Values, Weights]
    """Where in the block, values (C, h, w), and weights (h, w) of one window."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussian weight as a share of a window's side."""
CHANNELS_AT_ONCE = 64
"""Float64 sums of so many channels at a time: models may have thousands."""


def overlaps(frame: MapFrame) -> bool:
    """Whether any cell lies in more than one window: only then a blend decides values."""
    return frame.dense and any(
        bool((np.diff(offsets) < n).any())
        for offsets, n in zip(frame.offsets, frame.patch_cells, strict=True)
    )


def blend_weights(blend: str, cells: tuple[int, int]) -> Weights:
    """Weight of each cell (h, w) of a window's map; above 0 everywhere.

    Of ``"gaussian"`` the product of exp(−d²/2σ²) along both axes, d the distance of the cell's
    centre from the map's middle, σ = 1/8 of its side; at the corners about 1e-7. The share is
    that of nnU-Net (Isensee et al., Nature Methods 18, 203–211, 2021: "Gaussian importance
    weighting"), whose predictions at the borders of a patch are the least accurate as well.
    Of the others 1.

    Parameters
    ----------
    blend : {"mean", "gaussian", "max", "last"}
    cells : (int, int)
        (h, w) cells of a window.
    """
    if blend != "gaussian":
        return np.ones(cells)
    down, across = (_bell(n) for n in cells)
    return down[:, None] * across[None, :]


def _bell(n: int) -> Weights:
    distance = np.arange(n) - (n - 1) / 2
    weights: Weights = np.exp(-0.5 * (distance / (SIGMA * n)) ** 2)
    return weights


def blend_parts(blend: str, parts: list[Part], shape: tuple[int, int, int]) -> Values:
    """Blend what windows gave over one block of cells.

    Parameters
    ----------
    blend : {"mean", "gaussian", "max", "last"}
    parts : list
        In grid order: slices (y, x) of the block, values (C, h, w) there, weights (h, w).
    shape : (int, int, int)
        (C, height, width) of the block.

    Returns
    -------
    (C, height, width) float32
        Sum of weight · value over sum of weights; of ``"max"`` the largest, of ``"last"`` that
        of the last window in grid order. NaN where no window gave a value.
    """
    blended = np.full(shape, np.nan, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # a model may return what is not finite
        for first in range(0, shape[0], CHANNELS_AT_ONCE):
            channels = slice(first, first + CHANNELS_AT_ONCE)
            some = [(at, values[channels], weights) for at, values, weights in parts]
            _RULES[blend](some, blended[channels])
    return blended


def _weighted(parts: list[Part], blended: Values) -> None:
    total, weight = np.zeros(blended.shape), np.zeros(blended.shape)
    for at, values, weights in parts:
        missing = np.isnan(values)
        if missing.any():
            # Left out, not multiplied by 0: that would be NaN again.
            total[:, *at] += np.where(missing, 0, values * weights)
            weight[:, *at] += np.where(missing, 0, weights)
        else:
            total[:, *at] += values * weights
            weight[:, *at] += weights
    np.divide(total, weight, out=blended, where=weight > 0)


def _largest(parts: list[Part], blended: Values) -> None:
    for at, values, _ in parts:
        np.fmax(blended[:, *at], values, out=blended[:, *at])


def _latest(parts: list[Part], blended: Values) -> None:
    for at, values, _ in parts:
        np.copyto(blended[:, *at], values, where=~np.isnan(values))


_RULES: dict[str, Callable[[list[Part], Values], None]] = {
    "mean": _weighted,
    "gaussian": _weighted,
    "max": _largest,
    "last": _latest,
}
BLENDS = tuple(_RULES)
