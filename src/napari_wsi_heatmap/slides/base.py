"""The contract of a slide: levels, calibration, and one verb that reads pixels.

Positions and shapes are (y, x) everywhere; a backend swaps to its library's order once,
inside `Slide._read`. A backend is one file with one final class, and one row in the table of
`napari_wsi_heatmap.slides`.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Rgb = NDArray[np.uint8]
    Mask = NDArray[np.bool_]

PLAUSIBLE_MPP = (0.05, 20.0)
"""µm per pixel of a finest level that a microscope makes (0.05: 200x; 20: a macro image)."""

AS_STORED = "as stored"
"""Colours of a slide whose pixels nothing was done to."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide."""

    shape: tuple[int, int]
    """(height, width) in pixels of this level."""
    downsample: tuple[float, float]
    """(y, x) level-0 pixels per pixel of this level."""
    tile: tuple[int, int] = (256, 256)
    """(height, width) of the unit that decodes at once, in pixels of this level."""


class Slide(abc.ABC):
    """An opened whole-slide image.

    Attributes
    ----------
    path : str
        Where it was opened from; a name in angle brackets for a slide from memory.
    name : str
        Short name for people.
    backend : str
        Name of the backend that reads it.
    levels : tuple of Level
        Finest first.
    mpp : (float, float) or None
        (y, x) µm per level-0 pixel; None where the file says nothing believable.
    objective_power : float or None
    bounds : (int, int, int, int)
        (y, x, height, width) of the scanned part, level-0 pixels.
    background : (int, int, int)
        RGB of what was not scanned.
    properties : dict of str to str
        What the file says about itself.
    warnings : tuple of str
        What the user should know about this file, a line each.
    format : str or None
        What kind of file it is: OpenSlide's name of the vendor, "ome-tiff", "ome-zarr", "png".
    compression : str or None
        How its tiles are compressed, as far as that is known.
    mpp_source : str or None
        Where `mpp` was found.
    why : str
        Why this backend reads it, where a preferred one does not; else empty.
    icc_profile : bytes or None
        Colour profile of the file, read when asked for; pixels are never converted by it here.
    colours : str
        What pixels are: "as stored", or "sRGB by the ICC profile ..." of an `IccSlide`.
    """

    path: str
    name: str
    backend: str
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    objective_power: float | None = None
    bounds: tuple[int, int, int, int]
    background: tuple[int, int, int] = (255, 255, 255)
    properties: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    format: str | None = None
    compression: str | None = None
    mpp_source: str | None = None
    why: str = ""
    colours: str = AS_STORED

    @abc.abstractmethod
    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        """Read a box that lies inside the level.

        Returns
        -------
        rgb : (height, width, 3) uint8
            Already composited on `background`.
        scanned : (height, width) bool or None
            False where the file holds no pixels; None if all of it was scanned.
        """

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the content: size, header and sampled bytes."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the file; reading afterwards is an error, closing again is not."""

    def changed(self) -> str | None:
        """Say why the file is no longer the one that was opened; None while it is."""
        return None

    @property
    def associated_images(self) -> Mapping[str, Rgb]:
        """Label, macro, thumbnail by name, each (H, W, 3) uint8, read when asked for."""
        return {}

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of the file's colours, or None."""
        return None

    def read_region(self, level: int, y: int, x: int, height: int, width: int) -> Rgb:
        """Read a box of stored pixels.

        Parameters
        ----------
        level : int
            Index into `levels`.
        y, x : int
            Top-left corner in pixels of that level; may lie outside.
        height, width : int
            Size in pixels of that level.

        Returns
        -------
        (height, width, 3) uint8
            RGB; what lies outside the level or was not scanned has the colour `background`.

        Raises
        ------
        SlideReadError
            If pixels that the file should hold cannot be read.
        """
        return self._read_box(level, y, x, height, width)[0]

    def read_into(self, level: int, y: int, x: int, out: Rgb) -> None:
        """Read a box like `read_region` into an array (height, width, 3) uint8.

        After an error its content is undefined.
        """
        out[...] = self.read_region(level, y, x, *out.shape[:2])

    def read_scanned(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask]:
        """Read a box like `read_region`, and say which of its pixels were scanned.

        Returns
        -------
        rgb : (height, width, 3) uint8
        scanned : (height, width) bool
        """
        rgb, scanned = self._read_box(level, y, x, height, width)
        return rgb, np.ones((height, width), bool) if scanned is None else scanned

    def _read_box(
        self, level: int, y: int, x: int, height: int, width: int
    ) -> tuple[Rgb, Mask | None]:
        """Read a box that may reach over the border; the mask is None if all was scanned."""
        self._check(level, height, width)
        level_height, level_width = self.levels[level].shape
        top, left = max(0, -y), max(0, -x)
        bottom = min(height, level_height - y)
        right = min(width, level_width - x)
        if (top, left, bottom, right) == (0, 0, height, width):
            return self._read(level, y, x, height, width)
        rgb = np.empty((height, width, 3), np.uint8)
        rgb[:] = self.background
        mask = np.zeros((height, width), bool)
        if top < bottom and left < right:
            inner, scanned = self._read(level, y + top, x + left, bottom - top, right - left)
            rgb[top:bottom, left:right] = inner
            mask[top:bottom, left:right] = True if scanned is None else scanned
        return rgb, mask

    def mpp_at(self, level: int) -> tuple[float, float] | None:
        """(y, x) µm per pixel of `level`, or None without calibration."""
        if self.mpp is None:
            return None
        down = self.levels[level].downsample
        return self.mpp[0] * down[0], self.mpp[1] * down[1]

    def _check(self, level: int, height: int, width: int) -> None:
        # OpenSlide answers a level that does not exist with transparent pixels, not an error.
        if not 0 <= level < len(self.levels):
            raise SlideReadError(
                f"no level {level}", self.path, f"the slide has levels 0 to {len(self.levels) - 1}"
            )
        if height < 0 or width < 0:
            raise SlideReadError(f"negative size {height} x {width}", self.path)

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        height, width = self.levels[0].shape
        mpp = "uncalibrated" if self.mpp is None else f"{self.mpp[0]:.4g} µm/px"
        return f"<Slide {self.name!r} {height} x {width}, {len(self.levels)} levels, {mpp}>"


def level_downsample(base: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float]:
    """Level-0 pixels per pixel of a level, from the two shapes alone.

    The integer f for which floor or ceil of height/f and width/f reproduces `shape`; where
    several fit, a power of two, else the one nearest to the average ratio; where none fits, the
    two ratios. (OpenSlide's own average, such as 2.0005, misplaces the far corner by pixels.)

    Parameters
    ----------
    base, shape : (int, int)
        (height, width) of level 0 and of the level.

    Returns
    -------
    (float, float)
        (y, x) downsample.
    """
    ratios = base[0] / shape[0], base[1] / shape[1]
    average = sum(ratios) / 2
    low, high = math.floor(min(ratios)), math.ceil(max(ratios))
    fitting = [f for f in range(max(1, low - 1), high + 2) if _reproduces(base, shape, f)]
    if not fitting:
        return ratios
    powers = [f for f in fitting if f & (f - 1) == 0]
    best = min(powers or fitting, key=lambda f: abs(f - average))
    return float(best), float(best)


def _reproduces(base: tuple[int, int], shape: tuple[int, int], factor: int) -> bool:
    return all(n in (b // factor, -(-b // factor)) for b, n in zip(base, shape, strict=True))


def believable_mpp(
    values: Sequence[object], source: str
) -> tuple[tuple[float, float] | None, str | None]:
    """Check (y, x) µm per pixel as a file states them.

    Returns
    -------
    mpp : (float, float) or None
        The values if they are finite, positive and plausible for a microscope.
    warning : str or None
        Why they were not believed.
    """
    try:
        y, x = (float(str(value).replace(",", ".")) for value in values)
    except ValueError:
        return None, f"{source} states no readable pixel size ({values[0]}, {values[1]})"
    low, high = PLAUSIBLE_MPP
    if not all(math.isfinite(v) and low <= v <= high for v in (y, x)):
        return None, (
            f"{source} states {y:g} x {x:g} µm per pixel, which no scanner has "
            f"({low:g} to {high:g}): treated as uncalibrated"
        )
    return (y, x), None
