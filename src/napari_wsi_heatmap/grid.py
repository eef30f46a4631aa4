"""Slide + what the model wants to see -> a frozen lattice of windows.

Responsible for every derived number: which level is read, how large a window is there, how many
windows there are and where each lies. Knows nothing of tissue, order, torch or stores.

Positions are (y, x). A window is addressed by its flat index into the lattice (Y, X), row by row.

>>> spec = resolve_window(slide, window=224, stride=224, mpp=0.5)
>>> grid = lay_grid(spec, slide.levels[spec.level].shape, edge="pad")
>>> grid.origins(np.arange(grid.size))        # (N, 2) top-left corners, pixels of the level read
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from napari_wsi_heatmap.errors import GridError, MissingMppError
from napari_wsi_heatmap.sides import pair_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_wsi_heatmap.sides import Sides
    from napari_wsi_heatmap.slides.base import Slide

    LevelChoice = int | Callable[[Slide], int] | None

Edge = Literal["pad", "flush", "drop", "centre"]
EDGES: tuple[str, ...] = get_args(Edge)

LEVEL_TOLERANCE = 1.05
"""A level up to 5 % coarser than asked still serves: scanners round their calibration."""
MOST_PIXELS = 1 << 28
"""Pixels of a window at most (16384 x 16384): a few of them must lie in memory as floats."""
MOST_WINDOWS = 1 << 30
"""Windows of a lattice at most: a byte each for its state, four for each of its values."""


@dataclass(frozen=True)
class WindowSpec:
    """A window as it is read from one level of one slide."""

    level: int
    downsample: tuple[float, float]
    """(y, x) level-0 pixels per pixel of the level."""
    window: tuple[int, int]
    """(height, width) in pixels that the model sees."""
    footprint: tuple[int, int]
    """(height, width) in pixels of the level: what is read."""
    stride: tuple[int, int]
    """(y, x) in pixels of the level."""
    mpp: tuple[float, float] | None = None
    """(y, x) µm per level-0 pixel of the slide, None without calibration."""
    notices: tuple[str, ...] = ()

    @property
    def resized(self) -> bool:
        """Whether patches are resized before the model sees them."""
        return self.window != self.footprint

    @property
    def footprint_level0(self) -> tuple[float, float]:
        """(height, width) of a window in level-0 pixels."""
        return _times(self.footprint, self.downsample)


@dataclass(frozen=True)
class WindowGrid:
    """All windows of a run, on a lattice anchored at (0, 0)."""

    spec: WindowSpec
    level_shape: tuple[int, int]
    shape: tuple[int, int]
    """(Y, X) number of windows down and across."""
    edge: str = "pad"
    notices: tuple[str, ...] = ()

    @property
    def overlap(self) -> int:
        """Pixels of the level that neighbouring windows share along an axis, the longer one."""
        spec = self.spec
        return max(0, *(k - s for k, s in zip(spec.footprint, spec.stride, strict=True)))

    @property
    def size(self) -> int:
        """Number of windows."""
        return self.shape[0] * self.shape[1]

    @cached_property
    def starts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row of each row of windows (Y,), first column of each column (X,)."""
        return self._starts(0), self._starts(1)

    def _starts(self, axis: int) -> NDArray[np.int64]:
        starts = np.arange(self.shape[axis], dtype=np.int64) * self.spec.stride[axis]
        if self.edge == "flush":
            last = max(0, self.level_shape[axis] - self.spec.footprint[axis])
            starts = np.minimum(starts, last)
        return starts

    def origins(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Top-left corners (N, 2) of windows, pixels of the level read."""
        rows, cols = np.divmod(index, self.shape[1])
        return np.stack([self.starts[0][rows], self.starts[1][cols]], axis=-1)

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Top-left corners (N, 2) of windows, level-0 pixels."""
        return self.origins(index) * np.asarray(self.spec.downsample)

    @property
    def hanging(self) -> NDArray[np.bool_]:
        """(Y, X): whether part of the window lies beyond the slide."""
        down, across = (
            self.starts[axis] + self.spec.footprint[axis] > self.level_shape[axis]
            for axis in (0, 1)
        )
        return down[:, None] | across[None, :]

    @property
    def spans_level0(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and last pixel border of each row (Y, 2) and column (X, 2), level-0 pixels."""
        return self._span(0), self._span(1)

    def _span(self, axis: int) -> NDArray[np.float64]:
        start = self.starts[axis]
        span = np.stack([start, start + self.spec.footprint[axis]], axis=-1)
        return span * self.spec.downsample[axis]


def resolve_window(
    slide: Slide,
    window: Sides,
    stride: Sides | None = None,
    *,
    mpp: float | None = None,
    level: LevelChoice = None,
) -> WindowSpec:
    """Find the level to read and the size of a window there.

    Parameters
    ----------
    slide : Slide
    window, stride : int or (int, int)
        Pixels that the model sees; the stride defaults to the window.
    mpp : float, optional
        µm per pixel at which it sees them. The coarsest level that is not coarser is read and
        windows are resized to it: footprint = round(pixels · mpp / mpp of the level).
    level : int or callable, optional
        Read this level (or ``level(slide)``) as it is, without resizing; `mpp` is then not used.
        With neither, level 0.

    Raises
    ------
    MissingMppError
        If `mpp` is asked of a slide without calibration.
    GridError
        If sizes are not positive or the level does not exist.
    """
    window = pair_of(window, "window")
    stride = window if stride is None else pair_of(stride, "stride")
    if level is not None or mpp is None:
        chosen = _given_level(slide, level)
        return _spec(slide, chosen, window, window, stride)
    chosen, notices = _level_for(slide, _positive(mpp))
    ratio = _ratio(mpp, slide.mpp_at(chosen))
    return _spec(slide, chosen, window, _scaled(window, ratio), _scaled(stride, ratio), notices)


def _spec(
    slide: Slide,
    level: int,
    window: tuple[int, int],
    footprint: tuple[int, int],
    stride: tuple[int, int],
    notices: tuple[str, ...] = (),
) -> WindowSpec:
    if max(math.prod(window), math.prod(footprint)) > MOST_PIXELS:
        raise GridError(
            f"a window of {footprint[0]} x {footprint[1]} px is too large",
            f"level {level} of {slide.name}",
            "choose a smaller window, or a level or mpp that is coarser",
        )
    downsample = slide.levels[level].downsample
    return WindowSpec(level, downsample, window, footprint, stride, slide.mpp, notices)


def lay_grid(spec: WindowSpec, level_shape: tuple[int, int], edge: str = "pad") -> WindowGrid:
    """Count the windows of a lattice over a level.

    Parameters
    ----------
    spec : WindowSpec
    level_shape : (int, int)
        (height, width) of the level read.
    edge : {"pad", "flush", "drop", "centre"}
        What happens at the far borders: windows hang over and are filled with background; the
        last moves inside; windows that do not fit are left out; windows are kept if their
        centre is inside.

    Raises
    ------
    GridError
        If the edge policy is unknown, or ``drop`` leaves no window.
    """
    if edge not in EDGES:
        raise GridError(f"no edge policy {edge!r}", do=f"choose one of {', '.join(EDGES)}")
    sides = zip(level_shape, spec.footprint, spec.stride, strict=True)
    rows, cols = (count_windows(side, k, s, edge) for side, k, s in sides)
    if rows == 0 or cols == 0:
        raise GridError(
            f"no window of {spec.footprint[0]} x {spec.footprint[1]} px fits",
            f"level {spec.level} of {level_shape[0]} x {level_shape[1]} px",
            "use a smaller window or edge='pad'",
        )
    if rows * cols > MOST_WINDOWS:
        raise GridError(
            f"{rows} x {cols} windows are too many",
            f"level {spec.level} of {level_shape[0]} x {level_shape[1]} px",
            "use a larger stride",
        )
    notices = spec.notices
    if any(k > side for k, side in zip(spec.footprint, level_shape, strict=True)):
        notices += ("the window is larger than the slide: it is filled up with background",)
    return WindowGrid(spec, level_shape, (rows, cols), edge, notices)


def count_windows(side: int, window: int, stride: int, edge: str) -> int:
    """Number of windows along one axis of `side` pixels."""
    if edge == "drop":
        return 0 if side < window else (side - window) // stride + 1
    if side <= window:
        return 1
    reaching = -(-(side - window) // stride) + 1
    if edge == "flush":
        return reaching
    if edge == "centre":
        return math.ceil((side - round(window / 2)) / stride)  # whole pixels, as WSInfer has it
    # A window that begins beyond the slide sees nothing of it (stride larger than window).
    return min(reaching, -(-side // stride))


def _given_level(slide: Slide, level: LevelChoice) -> int:
    chosen = level(slide) if callable(level) else (0 if level is None else level)
    try:
        index = operator.index(chosen)
    except TypeError:
        index = -1
    if isinstance(chosen, bool) or not 0 <= index < len(slide.levels):
        raise GridError(
            f"no level {chosen!r}",
            slide.name,
            f"the slide has levels 0 to {len(slide.levels) - 1}",
        )
    return index


def _level_for(slide: Slide, mpp: float) -> tuple[int, tuple[str, ...]]:
    """Coarsest level that is not coarser than `mpp`, 5 % tolerance."""
    if slide.mpp is None:
        raise MissingMppError(
            f"the slide states no µm per pixel, and {mpp:g} are asked for",
            slide.path,
            "choose a level instead (level=0), or open_slide(path, mpp=...) with the true value",
        )
    fine = [
        level
        for level in range(len(slide.levels))
        if max(slide.mpp_at(level) or ()) <= mpp * LEVEL_TOLERANCE
    ]
    if fine:
        return fine[-1], ()
    return 0, (f"{mpp:g} µm per pixel is finer than the slide ({slide.mpp[0]:g}): enlarged",)


def _ratio(mpp: float, level_mpp: tuple[float, float] | None) -> tuple[float, float]:
    assert level_mpp is not None
    return mpp / level_mpp[0], mpp / level_mpp[1]


def _scaled(sides: tuple[int, int], ratio: tuple[float, float]) -> tuple[int, int]:
    height, width = (max(1, round(side * r)) for side, r in zip(sides, ratio, strict=True))
    return height, width


def _times(sides: tuple[int, int], factors: tuple[float, float]) -> tuple[float, float]:
    return sides[0] * factors[0], sides[1] * factors[1]


def _positive(mpp: float) -> float:
    if not (math.isfinite(mpp) and mpp > 0):
        raise GridError(f"mpp is {mpp}", do="give µm per pixel, above 0")
    return mpp
