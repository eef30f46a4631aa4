"""Patches laid on a canvas: where they lie, and the mean of their values where they overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Mask

    Box = tuple[int, int, int, int]
    Floats = NDArray[np.float64]
    Pair = tuple[float, float]


@dataclass(frozen=True)
class LaidPatches:
    """Patches of one size on a canvas.

    Attributes
    ----------
    corners : (N, 2) int64
        Top-left (y, x), px of the canvas; they may lie outside.
    size : (int, int)
        (height, width), px of the canvas.
    values : (N,) float64
    drawn : (N,) bool
        Whether the patch gets a colour; its value counts in any case.
    """

    corners: NDArray[np.int64]
    size: tuple[int, int]
    values: Floats
    drawn: Mask

    def within(self, box: Box) -> LaidPatches:
        """Those that touch a box (top, left, height, width), in the same order."""
        near = np.asarray(box[:2])
        far = near + box[2:]
        touch = ((self.corners < far) & (self.corners + self.size > near)).all(1)
        return replace(
            self, corners=self.corners[touch], values=self.values[touch], drawn=self.drawn[touch]
        )

    def mean(self, box: Box) -> tuple[Floats, Mask, Mask]:
        """Lay them on a part of the canvas.

        Parameters
        ----------
        box : (top, left, height, width)

        Returns
        -------
        values : (height, width) float64
            Mean of the values of the patches there, added up in their order; 0 where there is
            none.
        covered : (height, width) bool
            Whether there is a patch.
        drawn : (height, width) bool
            Whether there is one that gets a colour.
        """
        total, drawn = np.zeros(box[2:]), np.zeros(box[2:], bool)
        count = np.zeros(box[2:], np.uint32)
        near = self.within(box)
        for at, value, shows in zip(near.slices(box), near.values, near.drawn, strict=True):
            total[at] += value
            count[at] += 1
            if shows:
                drawn[at] = True
        covered = count > 0
        np.divide(total, count, out=total, where=covered)
        return total, covered, drawn

    def slices(self, box: Box) -> list[tuple[slice, slice]]:
        """Where each lies within a box that it touches."""
        near = np.maximum(self.corners - box[:2], 0)
        far = self.corners - box[:2] + self.size
        return [
            (slice(y0, y1), slice(x0, x1))
            for (y0, x0), (y1, x1) in zip(near.tolist(), far.tolist(), strict=True)
        ]


def lay_patches(
    coords: NDArray[np.generic],
    patch_size: tuple[float, float],
    downsample: Pair,
    values: Floats,
    drawn: Mask,
) -> LaidPatches:
    """Lay patches of a slide on a canvas.

    Positions and sizes are rounded up to whole pixels of the canvas.

    Parameters
    ----------
    coords : (N, 2)
        Top-left (y, x), level-0 pixels from the canvas' top left.
    patch_size : (float, float)
        (height, width), level-0 pixels.
    downsample : (float, float)
        (y, x) level-0 pixels per pixel of the canvas.
    values, drawn : (N,)
    """
    scale = 1 / np.asarray(downsample)
    corners = np.ceil(np.asarray(coords) * scale).astype(np.int64)
    height, width = np.ceil(np.asarray(patch_size) * scale).astype(int).tolist()
    return LaidPatches(corners, (height, width), values, drawn)
