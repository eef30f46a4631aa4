"""What is read at once for a stream: a region of one of its slides, and its windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.order import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowGrid, WindowSpec
    from napari_wsi_heatmap.slides.base import Rgb
    from napari_wsi_heatmap.streams.laid import StreamSlide

    Box = tuple[int, int, int, int]
    Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StreamRegion(Region):
    """A region of a stream, one of the steps that its readers and cutters take."""

    slide: StreamSlide
    windows: WindowGrid | WindowList
    """What `index` counts."""
    key: int = 0
    """Tells regions apart, the same in all parts of a stream."""
    last: bool = True
    """Whether it is the last of those whose windows are mixed."""
    most: int | None = None
    """Windows that may be cut from it; None: all."""
    undecided: bool = False
    """Whether a hook will say, once it is read, which windows are cut from it."""

    @property
    def nbytes(self) -> int:
        """Size of its pixels."""
        return 3 * self.box[2] * self.box[3]


@dataclass(frozen=True, eq=False)
class Trouble(Region):
    """An error that is raised when its turn has come."""

    error: Exception
    last: bool = True

    @property
    def nbytes(self) -> int:
        """It has no pixels."""
        return 0


def trouble(error: Exception) -> Trouble:
    """Put an error in line."""
    return Trouble(np.zeros(0, np.int64), (0, 0, 0, 0), error)


@dataclass(frozen=True, eq=False)
class ReadRegion:
    """A region that is read, as a `cut` hook gets it."""

    slide: StreamSlide
    y: int
    x: int
    """Top-left corner, pixels of the level read."""
    pixels: Rgb
    """(height, width, 3) uint8, not to be changed."""

    @property
    def height(self) -> int:
        """Pixels of the level read."""
        return len(self.pixels)

    @property
    def width(self) -> int:
        """Pixels of the level read."""
        return self.pixels.shape[1]


def whole_box(spec: WindowSpec, box: Box) -> WindowList:
    """A box as the only window of a list: all of it is read, or none."""
    return WindowList(replace(spec, footprint=box[2:]), np.array([box[:2]], np.int64))


def box_of(given: Any, slide: StreamSlide) -> Box:
    """Check the box (y, x, height, width) that a hook gave.

    Raises
    ------
    GridError
        If it is none.
    """
    try:
        box = tuple(int(side) for side in given)
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4 or min(box[2:]) < 1:
        raise GridError(
            f"regions() gave {given!r}",
            f"slide {slide.id}",
            "give (y, x, height, width), pixels of the level read",
        )
    return box


def corners_of(given: Any, region: ReadRegion) -> Index:
    """Check the corners of windows that a hook gave.

    Returns
    -------
    (n, 2) int64
        Top-left (y, x), pixels of the level read.

    Raises
    ------
    GridError
        If they are none, or a window reaches out of the region.
    """
    try:
        corners = np.asarray(given)
    except ValueError:
        corners = np.empty(0, object)
    if corners.size == 0 and corners.dtype != object:
        return np.zeros((0, 2), np.int64)
    what = f"slide {region.slide.id}, region at {region.y, region.x}"
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.issubdtype(corners.dtype, np.number):
        raise GridError(f"cut() gave {corners.dtype} {corners.shape}", what, "give (n, 2) (y, x)")
    whole = corners.astype(np.int64)
    inner = whole - (region.y, region.x)
    room = np.subtract((region.height, region.width), region.slide.window)
    if (whole != corners).any() or (inner < 0).any() or (inner > room).any():
        raise GridError(
            "cut() gave windows that reach out of the region",
            what,
            "give whole pixels of the level read, counted from the slide's corner",
        )
    return whole
