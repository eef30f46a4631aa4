"""Sizes in pixels as people give them: one number for both axes, or (y, x)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Sides = int | Sequence[int]

FARTHEST = 1 << 31
"""Level-0 pixels: beyond it lies no window of any slide."""


def pair_of(sides: Sides, what: str) -> tuple[int, int]:
    """One side, or (height, width), as a pair.

    Raises
    ------
    GridError
        If these are not whole pixels, at least 1.
    """
    pair: tuple[Any, ...] = tuple(sides) if np.iterable(sides) else (sides, sides)
    if len(pair) != 2 or not all(map(_is_whole, pair)):
        raise GridError(f"{what} is {sides!r}", do="give whole pixels, at least 1")
    return int(pair[0]), int(pair[1])


def _is_whole(side: Any) -> bool:
    if isinstance(side, (bool, np.bool_)) or not isinstance(side, (int, float, np.number)):
        return False
    return bool(1 <= side < FARTHEST) and float(side).is_integer()
