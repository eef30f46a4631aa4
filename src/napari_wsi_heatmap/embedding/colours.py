"""Numbers of windows as colours: three components as red, green and blue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILES = (1, 99)
"""A few extreme windows (a fold, a pen mark) must not take all the contrast."""


def as_rgba(scores: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours of windows by up to three numbers each.

    Parameters
    ----------
    scores : (…, k) float
        k = 1 gives grey, 2 red and green, of more the first three are red, green and blue. Each
        is stretched by itself between its 1st and its 99th percentile. NaN: no colour.

    Returns
    -------
    (…, 4) uint8
        Transparent where there are no scores.
    """
    flat = scores.reshape(-1, scores.shape[-1])[:, :3]
    there = np.isfinite(flat).all(1)
    rgba = np.zeros((len(flat), 4), np.uint8)
    if there.any():
        rgba[there, :3] = _three(_stretched(flat[there]))
        rgba[there, 3] = 255
    return rgba.reshape(*scores.shape[:-1], 4)


def _stretched(values: NDArray[Any]) -> NDArray[np.float64]:
    """(n, k) -> 0…255."""
    low, high = np.percentile(values, PERCENTILES, axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.rint(255 * np.clip((values - low) / span, 0, 1))


def _three(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.shape[1] == 2:
        return np.pad(values, [(0, 0), (0, 1)])
    return values if values.shape[1] == 3 else np.repeat(values, 3, axis=1)
