"""A level dressed as an array that reads when it is sliced."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_wsi_heatmap.levels import ViewLevel
    from napari_wsi_heatmap.slides.base import Rgb
    from napari_wsi_heatmap.traffic import Traffic


class LazyArray:
    """A level dressed as an array that reads when it is sliced.

    Parameters
    ----------
    level : ViewLevel
    traffic : Traffic
        Told of each read, which has the right of way.

    Attributes
    ----------
    shape : (int, int, int)
        (height, width, 3), uint8.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, level: ViewLevel, traffic: Traffic) -> None:
        self._level, self._traffic = level, traffic
        self.shape = (*level.shape, 3)
        self.size = math.prod(self.shape)

    def __getitem__(self, key: Any) -> Any:
        rows, columns, channels = (*(key if isinstance(key, tuple) else (key,)), _ALL, _ALL)[:3]
        y, height, inner_rows = _span(rows, self.shape[0])
        x, width, inner_columns = _span(columns, self.shape[1])
        box = self._slice(y, x, height, width)
        return box[..., channels][:, inner_columns][inner_rows]

    def _slice(self, y: int, x: int, height: int, width: int) -> Rgb:
        return self.exact(y, x, height, width)

    def exact(self, y: int, x: int, height: int, width: int) -> Rgb:
        """Read a box of the level, however long it takes."""
        with self._traffic.visible_read():
            return self._level.read(y, x, height, width)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.exact(0, 0, *self.shape[:2]), dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> LazyArray:
        # Duplicating a layer copies its data; the file below stays the same one.
        return self


_ALL = slice(None)


def _span(key: slice | int, size: int) -> tuple[int, int, Any]:
    """(start, length) of what an axis must read, and the key into that."""
    if isinstance(key, slice):
        wanted = range(size)[key]
        if not wanted:
            return 0, 0, _ALL
        start, last = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        inner = _ALL if wanted.step == 1 else [index - start for index in wanted]
        return start, last + 1 - start, inner
    return range(size)[key], 1, 0
