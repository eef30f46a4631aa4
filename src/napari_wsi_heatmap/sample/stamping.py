"""Putting stamps on a block, and dividing it into cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.sample.cells import REACH
from napari_wsi_heatmap.sample.collagen import STROKE_REACH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.sample.cells import Cells
    from napari_wsi_heatmap.sample.collagen import Stroke
    from napari_wsi_heatmap.sample.noise import Field

_PAD = 80  # a canvas is larger than its block, so that no stamp needs clipping


def _rows(cells: Cells) -> Iterator[tuple[int, int, int, int, np.float32]]:
    columns = (cells.y, cells.x, cells.kind, cells.stamp)
    return zip(*(column.tolist() for column in columns), cells.amount, strict=True)


def stamped(shape: tuple[int, int], cells: Cells, stamps: list[Field]) -> Field:
    """Return the largest amount that any stamp leaves on each pixel."""
    canvas = np.zeros((shape[0] + 2 * _PAD, shape[1] + 2 * _PAD), np.float32)
    for y, x, kind, number, amount in _rows(cells):
        stamp = stamps[kind][number]
        side = stamp.shape[0]
        top, left = y + _PAD - side // 2, x + _PAD - side // 2
        spot = canvas[top : top + side, left : left + side]
        np.maximum(spot, stamp * amount, out=spot)
    return canvas[_PAD : _PAD + shape[0], _PAD : _PAD + shape[1]]


def overlaid(shape: tuple[int, int], cells: Cells, strokes: list[list[Stroke]]) -> Field:
    """Return what strokes leave that lie over each other, later ones on top."""
    pad = 2 * STROKE_REACH
    canvas = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad), np.float32)
    for y, x, kind, number, amount in _rows(cells):
        value, cover = strokes[kind][number]
        height, width = value.shape
        top, left = y + pad - height // 2, x + pad - width // 2
        spot = canvas[top : top + height, left : left + width]
        change = value * amount
        change -= spot
        change *= cover
        spot += change
    return canvas[pad : pad + shape[0], pad : pad + shape[1]]


def divided(shape: tuple[int, int], cells: Cells, reach: int) -> tuple[Field, Field]:
    """Divide a block among its cells by the nearest centre (a Voronoi diagram).

    Parameters
    ----------
    shape : (int, int)
        Height and width of the block, px.
    cells : Cells
        Those of the block and of `reach` px around it.
    reach : int
        Cells are not larger than this, px.

    Returns
    -------
    gap : (H, W) float32
        How much further, px, the second nearest centre is: 0 on the border of two cells.
    amount : (H, W) float32
        `amount` of the nearest cell, 1 where there is none.
    """
    pad = max(2 * reach, REACH + reach)
    size = (shape[0] + 2 * pad, shape[1] + 2 * pad)
    first, second = (np.full(size, reach, np.float32) for _ in range(2))
    amounts = np.ones(size, np.float32)
    line = np.arange(-reach, reach, dtype=np.float32) + np.float32(0.5)
    cone = np.hypot(line[:, None], line[None])
    for y, x, amount in zip(cells.y.tolist(), cells.x.tolist(), cells.amount, strict=True):
        spot = tuple(slice(at + pad - reach, at + pad + reach) for at in (y, x))
        one, two = first[spot], second[spot]
        np.minimum(two, np.maximum(one, cone), out=two)
        np.copyto(amounts[spot], amount, where=cone < one)
        np.minimum(one, cone, out=one)
    inner = (slice(pad, pad + shape[0]), slice(pad, pad + shape[1]))
    return (second - first)[inner], amounts[inner]
