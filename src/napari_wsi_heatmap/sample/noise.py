"""Random textures and smooth fields: periodic noise, tiling, enlarging, sampling.

Only elementwise numpy and its own FFT are used here: a matrix product may round differently
with the number of threads, and the slide must not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Field: TypeAlias = "NDArray[np.float32]"
Numbers: TypeAlias = "NDArray[Any]"
"""Numbers of any kind, as the random generator gives them."""

CELL = 8
"""Pixels that one value of a layout field spans on each axis."""

MARGIN = 16
"""Values that a layout field has beyond the slide on each side."""

_OVERLAP = 768  # a block and its halo read a tile as one slice, without wrapping


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, float]
) -> Field:
    """Return periodic noise of mean 0 and variance 1, blurred by a Gaussian of `sigma` (y, x)."""
    sigma_y, sigma_x = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    fy = np.fft.fftfreq(shape[0])[:, None].astype(np.float32) * sigma_y
    fx = np.fft.rfftfreq(shape[1])[None].astype(np.float32) * sigma_x
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    spectrum *= np.exp(-2 * np.pi**2 * (fy * fy + fx * fx))
    noise = np.fft.irfft2(spectrum, s=shape)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def band_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """Return periodic noise of mean 0 and variance 1 whose lumps are about 3 `sigma` wide."""
    state = rng.bit_generator.state
    fine = smooth_noise(rng, shape, sigma)
    rng.bit_generator.state = state  # the same noise, blurred more, takes the slow part away
    noise = fine - 0.6 * smooth_noise(rng, shape, 2 * sigma)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def smoothstep(low: float, high: float, x: Any) -> Any:
    """Return 0 below `low`, 1 above `high`, a cubic between."""
    t = np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Tile:
    """A periodic texture that repeats over the slide, unwarped."""

    padded: Field
    period: int

    @classmethod
    def of(cls, texture: Field) -> Tile:
        """Return the tile of a square periodic `texture`."""
        return cls(np.pad(texture, ((0, _OVERLAP), (0, _OVERLAP)), mode="wrap"), len(texture))

    def at(self, y: int, x: int, height: int, width: int) -> Field:
        """Return the texture at a rectangle of the slide, a view."""
        y, x = y % self.period, x % self.period
        return self.padded[y : y + height, x : x + width]


@cache
def _spline() -> tuple[Field, ...]:
    """Return the quadratic B-spline's weights of the cell before, the cell and the one after."""
    s = (np.arange(CELL, dtype=np.float32) + np.float32(0.5)) / CELL - np.float32(0.5)
    half = np.float32(0.5)
    weights = ((half - s) ** 2 / 2, np.float32(0.75) - s * s, (half + s) ** 2 / 2)
    return tuple(np.asarray(w, np.float32) for w in weights)


def _around(field: Field, y: int, x: int, height: int, width: int) -> Field:
    """Return the values that a rectangle of the slide is enlarged from."""
    top, left = y // CELL + MARGIN, x // CELL + MARGIN
    rows, columns = height // CELL, width // CELL
    return field[top - 1 : top + rows + 1, left - 1 : left + columns + 1]


def peak(field: Field, y: int, x: int, height: int, width: int) -> float:
    """Return a bound of a layout field over a rectangle of the slide, cheaper than the field."""
    return float(_around(field, y, x, height, width).max())


def enlarge(field: Field, y: int, x: int, height: int, width: int) -> Field:
    """Return a layout field at a rectangle of the slide, smooth; all four multiples of CELL."""
    part = _around(field, y, x, height, width)
    before, here, after = _spline()
    # Along x while the array is still low, so that the long inner loops are the contiguous ones.
    wide = part[:, :-2, None] * before + part[:, 1:-1, None] * here + part[:, 2:, None] * after
    wide = wide.reshape(-1, 1, width)
    tall = wide[:-2] * before[:, None]
    tall += wide[1:-1] * here[:, None]
    tall += wide[2:] * after[:, None]
    return tall.reshape(height, width)
