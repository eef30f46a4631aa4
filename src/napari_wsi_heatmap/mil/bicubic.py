"""A picture made smaller a few rows at a time, as Pillow's BICUBIC makes the whole of it.

Pillow weights pixels in fixed point and rounds to uint8 after the pass over columns, which comes
first, and again after that over rows. The pass over columns is Pillow's own; that over rows is
written out here, since Pillow can only do all rows at once. (Pillow 13 begins with the rows where
these shrink more than twice as much as columns.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Rgb

    Rows = Callable[[int, int], Rgb]

BITS = 22
"""Of fraction, of Pillow's weights for pixels of 8 bits."""
REACH = 2.0
"""Pixels to either side that count, before scaling."""
A = -0.5
"""The parameter of the cubic."""


@dataclass(frozen=True)
class Resized:
    """Rows of a picture, resized.

    Parameters
    ----------
    rows : callable
        ``rows(top, bottom) -> (bottom - top, width, 3) uint8`` of the picture.
    before, after : (int, int)
        (height, width) of the picture, and of the result.
    """

    rows: Rows
    before: tuple[int, int]
    after: tuple[int, int]

    def __call__(self, top: int, bottom: int) -> Rgb:
        """Rows top to bottom of the result."""
        taps = [self._taps(row) for row in range(top, bottom)]
        first, last = taps[0][0], taps[-1][0] + len(taps[-1][1])
        narrow = self._narrowed(self.rows(first, last)).astype(np.int64)
        resized = np.empty((bottom - top, *narrow.shape[1:]), np.uint8)
        for row, (start, weights) in enumerate(taps):
            here = narrow[start - first : start - first + len(weights)]
            sums = np.tensordot(weights, here, 1) + (1 << (BITS - 1))
            resized[row] = np.clip(sums >> BITS, 0, 255)
        return resized

    def _narrowed(self, rows: Rgb) -> Rgb:
        from PIL import Image

        if self.after[1] == self.before[1]:
            return rows
        size = self.after[1], len(rows)
        return np.asarray(Image.fromarray(rows).resize(size, Image.Resampling.BICUBIC))

    def _taps(self, row: int) -> tuple[int, NDArray[np.int64]]:
        """First row that counts for a row of the result, and the weights from there on."""
        if self.after[0] == self.before[0]:
            return row, np.array([1 << BITS])
        scale = self.before[0] / self.after[0]
        wide = max(scale, 1.0)
        centre = (row + 0.5) * scale
        first = max(int(centre - REACH * wide + 0.5), 0)
        last = min(int(centre + REACH * wide + 0.5), self.before[0])
        weights = cubic((np.arange(first, last) - centre + 0.5) * (1 / wide))
        weights = weights / weights.sum()
        return first, np.trunc(np.copysign(0.5, weights) + weights * (1 << BITS)).astype(np.int64)


def cubic(x: NDArray[Any]) -> NDArray[np.float64]:
    """Weight at a distance x: Keys' cubic, 0 from 2 on."""
    x = np.abs(x)
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * A
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
