"""A slide from memory, or from a function that makes pixels when asked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, final

import numpy as np

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides.base import Level, Slide, believable_mpp, level_downsample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_wsi_heatmap.slides.base import Mask, Rgb

    Read = Callable[[int, int, int, int, int], Any]


@final
class ArraySlide(Slide):
    """A slide whose levels are arrays, for scripts, layers, tests and scale.

    Parameters
    ----------
    levels : sequence of array-like
        Finest first, each (H, W, 3) uint8 and sliceable: numpy, dask, zarr.
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x).
    name : str
        Shown to people and recorded in outputs.
    background : (int, int, int)
        RGB outside the arrays.

    Notes
    -----
    The fingerprint covers shapes, name and a lattice of sampled pixels. Two slides from
    functions that differ elsewhere only cannot be told apart by it.
    """

    backend = "array"

    def __init__(
        self,
        levels: Sequence[Any],
        mpp: float | tuple[float, float] | None = None,
        *,
        name: str = "array",
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        arrays = list(levels)
        for array in arrays:
            _check_array(array, name)

        def read(level: int, y: int, x: int, height: int, width: int) -> Any:
            return np.asarray(arrays[level][y : y + height, x : x + width, :3])

        shapes = [(int(a.shape[0]), int(a.shape[1])) for a in arrays]
        self._begin(read, shapes, mpp, name, background)

    @classmethod
    def from_callable(
        cls,
        read: Read,
        shapes: Sequence[tuple[int, int]],
        mpp: float | tuple[float, float] | None = None,
        *,
        name: str = "callable",
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> ArraySlide:
        """Make a slide of any size whose pixels a function computes.

        Parameters
        ----------
        read : callable
            ``read(level, y, x, height, width) -> (height, width, 3) uint8``, called from several
            threads, only with boxes inside the level.
        shapes : sequence of (int, int)
            (H, W) of each level, finest first.
        """
        slide = cls.__new__(cls)
        slide._begin(read, [(int(h), int(w)) for h, w in shapes], mpp, name, background)
        return slide

    def _begin(
        self,
        read: Read,
        shapes: list[tuple[int, int]],
        mpp: float | tuple[float, float] | None,
        name: str,
        background: tuple[int, int, int],
    ) -> None:
        if not shapes or any(h < 1 or w < 1 for h, w in shapes):
            raise SlideOpenError(f"no level with pixels in {shapes}", name, "give at least one")
        self._pixels = read
        self.name, self.path, self.background = name, f"<{name}>", background
        self.levels = tuple(Level(shape, level_downsample(shapes[0], shape)) for shape in shapes)
        self.bounds = (0, 0, *shapes[0])
        self.properties = {}
        self.mpp, warning = _pair(mpp, name)
        self.warnings = (warning,) if warning else ()
        self._closed = False
        self._fingerprint: str | None = None

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        if self._closed:
            raise SlideReadError("the slide is closed", self.path, "open it again")
        # A copy: whoever changes what was read must not change the slide.
        rgb = np.array(self._pixels(level, y, x, height, width), order="C")
        if rgb.shape != (height, width, 3) or rgb.dtype != np.uint8:
            raise SlideReadError(
                f"read() returned {rgb.dtype} {rgb.shape}",
                f"{self.path}, level {level}",
                f"it must return uint8 {(height, width, 3)}",
            )
        return rgb, None

    @property
    def fingerprint(self) -> str:
        """Hex digest of name, shapes and a lattice of 8 x 8 small samples of level 0."""
        if self._fingerprint is None:
            self._fingerprint = self._digest()
        return self._fingerprint

    def _digest(self) -> str:
        shapes = [level.shape for level in self.levels]
        digest = hashlib.sha256(repr((self.name, shapes, self.mpp)).encode())
        height, width = self.levels[0].shape
        for y in np.linspace(0, max(0, height - 16), 8).astype(int):
            for x in np.linspace(0, max(0, width - 16), 8).astype(int):
                digest.update(self._sample(int(y), int(x)))
        return digest.hexdigest()

    def _sample(self, y: int, x: int) -> bytes:
        try:
            return self.read_region(0, y, x, 16, 16).tobytes()
        except SlideReadError:
            if self._closed:
                raise
            return b"unreadable"

    def close(self) -> None:
        """Refuse further reads; the arrays belong to the caller."""
        self._closed = True


def _check_array(array: Any, name: str) -> None:
    if getattr(array, "ndim", 0) != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8:
        raise SlideOpenError(
            f"a level is {getattr(array, 'dtype', type(array).__name__)} "
            f"{getattr(array, 'shape', '')}",
            name,
            "each level must be (H, W, 3) uint8",
        )


def _pair(
    mpp: float | tuple[float, float] | None, name: str
) -> tuple[tuple[float, float] | None, str | None]:
    if mpp is None:
        return None, None
    return believable_mpp(mpp if isinstance(mpp, tuple) else (mpp, mpp), name)
