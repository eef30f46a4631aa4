"""Outlines of tissue, with holes, as a mask on a canvas.

Corners are brought to whole pixels of the canvas by cutting off. A pixel belongs to an outline if
its centre lies in it or on it, or a line between two corners, drawn pixel by pixel, passes it;
lines and slopes are those of OpenCV's ``drawContours``. The largest outline comes first, each
with its holes after it, so that an island in a hole is not lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_wsi_heatmap.mil.laidpatches import Box, Pair
    from napari_wsi_heatmap.slides.base import Mask

    Ints = NDArray[np.int64]

SHIFT = 16
"""Bits of fraction of the places where a slope crosses a row."""


@dataclass(frozen=True)
class Outline:
    """A piece of tissue: its border and its holes, each (N, 2) of (y, x), level-0 pixels."""

    border: ArrayLike
    holes: Sequence[ArrayLike] = ()


@dataclass(frozen=True)
class LaidOutlines:
    """Outlines in pixels of a canvas, the largest first; each (border, holes)."""

    pieces: tuple[tuple[Ints, tuple[Ints, ...]], ...]

    def mask(self, box: Box) -> Mask:
        """(height, width) bool of a box (top, left, height, width): where tissue lies."""
        mask = np.zeros(box[2:], bool)
        for border, holes in self.pieces:
            mask |= filled((border,), box)
            if holes:
                mask &= ~filled(holes, box)
        return mask


def lay_outlines(
    outlines: Iterable[Outline], downsample: Pair, corner: tuple[int, int] = (0, 0)
) -> LaidOutlines:
    """Lay outlines on a canvas.

    Parameters
    ----------
    outlines : iterable of Outline
    downsample : (float, float)
        (y, x) level-0 pixels per pixel of the canvas.
    corner : (int, int)
        (y, x) of the canvas, px of its own size from the slide's top left.
    """
    scale = 1 / np.asarray(downsample)

    def laid(ring: ArrayLike) -> Ints:
        return (np.asarray(ring) * scale).astype(np.int64) - corner

    pieces = [(laid(one.border), tuple(map(laid, one.holes))) for one in outlines]
    pieces.sort(key=lambda piece: _area(piece[0]), reverse=True)
    return LaidOutlines(tuple(pieces))


def filled(rings: Sequence[Ints], box: Box) -> Mask:
    """Rings (N, 2) of whole (y, x), filled; what lies in an even number of them is out."""
    edges = np.concatenate([np.stack([np.roll(ring, 1, 0), ring], 1) for ring in rings])
    rows = edges[:, :, 0]
    near = (rows.min(1) < box[0] + box[2]) & (rows.max(1) >= box[0])
    mask = _inside(edges[near], box)
    y, x = (_on_lines(edges[near]) - box[:2]).T
    seen = (y >= 0) & (y < box[2]) & (x >= 0) & (x < box[3])
    mask[y[seen], x[seen]] = True
    return mask


def _area(ring: Ints) -> float:
    (y, x), (y1, x1) = ring.T, np.roll(ring, -1, 0).T
    return abs(float((y * x1 - x * y1).sum())) / 2


def _inside(edges: Ints, box: Box) -> Mask:
    """Fill from each odd crossing of a row to the even one after it."""
    row, x = _crossings(edges, box)
    order = np.lexsort((x, row))
    row, x = row[order], x[order]
    steps = np.zeros((box[2], box[3] + 1), np.int32)
    first = np.clip(-(-x[0::2] >> SHIFT) - box[1], 0, box[3])
    after = np.clip((x[1::2] >> SHIFT) + 1 - box[1], 0, box[3])
    some = first < after
    np.add.at(steps, (row[0::2][some], first[some]), 1)
    np.add.at(steps, (row[0::2][some], after[some]), -1)
    mask: Mask = steps.cumsum(1)[:, :-1] > 0
    return mask


def _crossings(edges: Ints, box: Box) -> tuple[Ints, Ints]:
    """Row within the box, and x in fixed point, where edges cross rows; the lower end does not."""
    flip = edges[:, 0, 0] > edges[:, 1, 0]
    edges = np.where(flip[:, None, None], edges[:, ::-1], edges)
    first = np.maximum(edges[:, 0, 0], box[0])
    count = np.maximum(np.minimum(edges[:, 1, 0], box[0] + box[2]) - first, 0)
    edge = np.repeat(np.arange(len(edges)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (y0, x0), (y1, x1) = edges[edge].transpose(1, 2, 0)
    run = (x1 - x0) << SHIFT
    slope = np.sign(run) * (np.abs(run) // (y1 - y0))
    return row - box[0], (x0 << SHIFT) + slope * (row - y0)


def _on_lines(edges: Ints) -> Ints:
    """Pixels (M, 2) on edges, drawn from left to right; half a pixel is rounded down."""
    flip = edges[:, 0, 1] > edges[:, 1, 1]
    edges = np.where(flip[:, None, None], edges[:, ::-1], edges)
    run = edges[:, 1] - edges[:, 0]
    longer = np.abs(run).max(1)
    edge = np.repeat(np.arange(len(edges)), longer + 1)
    ends = np.cumsum(longer + 1)
    step = np.arange(len(edge)) - np.repeat(ends - longer - 1, longer + 1)
    length = np.maximum(longer, 1)[edge][:, None]
    moved = (2 * step[:, None] * np.abs(run)[edge] + length - 1) // (2 * length)
    return edges[edge, 0] + np.sign(run)[edge] * moved
