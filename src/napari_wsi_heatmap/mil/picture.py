"""A rendered picture whose rows are made when they are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.mil.bicubic import Resized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_wsi_heatmap.slides.base import Rgb

    Pair = tuple[float, float]

BAND = 256
"""Rows that are handed on at once."""


@dataclass(frozen=True)
class Picture:
    """A picture of a slide, or of a part of it.

    Attributes
    ----------
    shape : (int, int)
        (height, width), px.
    rows : callable
        ``rows(top, bottom) -> (bottom - top, width, 3) uint8``.
    origin : (float, float)
        (y, x) of its top-left border, level-0 pixels from the slide's.
    scale : (float, float)
        (y, x) level-0 pixels per pixel.
    mpp : (float, float) or None
        (y, x) µm per pixel.
    at_once : int
        Rows to make at once; a multiple of `BAND`.
    """

    shape: tuple[int, int]
    rows: Callable[[int, int], Rgb]
    origin: Pair
    scale: Pair
    mpp: Pair | None
    at_once: int = BAND

    def bands(self, height: int = BAND) -> Iterator[tuple[int, Rgb]]:
        """Yield (top, rows) from top to bottom, at most `height` rows each."""
        for top in range(0, self.shape[0], self.at_once):
            made = self.rows(top, min(top + self.at_once, self.shape[0]))
            for part in range(0, len(made), height):
                yield top + part, made[part : part + height]

    def pixels(self) -> Rgb:
        """(height, width, 3) uint8: all of it."""
        whole = np.empty((*self.shape, 3), np.uint8)
        for top, rows in self.bands():
            whole[top : top + len(rows)] = rows
        return whole

    def shrunk(self, times: float) -> Picture:
        """Make it smaller, its sides divided and cut off; as Pillow's BICUBIC does."""
        if times == 1:
            return self
        if not times > 1 or min(self.shape) < times:
            raise ExportError(
                f"{self.shape} px cannot be made {times} times smaller",
                do="give a custom_downsample of at least 1, and less than a side",
            )
        after = int(self.shape[0] / times), int(self.shape[1] / times)
        grown = self.shape[0] / after[0], self.shape[1] / after[1]
        scale = self.scale[0] * grown[0], self.scale[1] * grown[1]
        mpp = self.mpp and (self.mpp[0] * grown[0], self.mpp[1] * grown[1])
        rows = Resized(self.rows, self.shape, after)
        at_once = -(-self.at_once // (BAND * math.ceil(times))) * BAND
        return Picture(after, rows, self.origin, scale, mpp, at_once)

    @property
    def placement(self) -> dict[str, Any]:
        """Where it lies on the slide, as it is written into its file."""
        return {
            "shape_px": self.shape,
            "origin_level0": self.origin,
            "scale_level0": self.scale,
        }

    def save(self, path: Path) -> Path:
        """Write it as .png, .jpg or .tiff; see `napari_wsi_heatmap.mil.picturefiles`."""
        from napari_wsi_heatmap.mil.picturefiles import save_picture

        return save_picture(self, path)
