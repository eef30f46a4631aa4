"""Which places of a lattice lie in polygons with holes.

Even-odd rule: a place lies inside if a ray from it crosses the rings an odd number of times. The
lattice is given by its rows and columns, so that all crossings of a ring with the rows are found
at once, and a running count along each row does the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Polygon = tuple[Floats, ...]
    Mask = NDArray[np.bool_]

CROSSINGS_AT_ONCE = 1 << 20


def inside_polygons(polygons: Sequence[Polygon], rows: Floats, cols: Floats) -> Mask:
    """Whether places lie in any of some polygons.

    Parameters
    ----------
    polygons : sequence of polygons
        Each some rings (N, 2) of (y, x): its border, then its holes.
    rows, cols : (Y,), (X,) float
        Ascending coordinates of the lattice's rows and columns.

    Returns
    -------
    (Y, X) bool
    """
    inside = np.zeros((len(rows), len(cols)), bool)
    for rings in polygons:
        corners = np.concatenate(rings)
        (top, left), (bottom, right) = corners.min(0), corners.max(0)
        i, j = np.searchsorted(rows, [top, bottom]), np.searchsorted(cols, [left, right])
        # Only around it: an annotated slide may have thousands of small ones.
        near = np.s_[i[0] : i[1] + 1, j[0] : j[1] + 1]
        if inside[near].size:
            inside[near] |= _inside(rings, rows[near[0]], cols[near[1]])
    return inside


def _inside(rings: Polygon, rows: Floats, cols: Floats) -> Mask:
    # One bit suffices: only whether the number of crossings is odd matters.
    odd = np.zeros((len(rows), len(cols) + 1), np.uint8)
    for ring in rings:
        for edges in _groups(ring, rows):
            np.add.at(odd, _crossings(edges, rows, cols), 1)
    return (np.cumsum(odd, 1, dtype=np.uint8)[:, :-1] & 1).astype(bool)


def _groups(ring: Floats, rows: Floats) -> Iterator[Floats]:
    """Yield the edges (N, 2, 2) of a ring that cross rows, few enough at once."""
    edges = np.stack([ring, np.roll(ring, -1, 0)], axis=1)
    crossed = np.abs(np.diff(np.searchsorted(rows, edges[:, :, 0]), axis=1)[:, 0])
    edges, crossed = edges[crossed > 0], crossed[crossed > 0]
    group = np.cumsum(crossed) // CROSSINGS_AT_ONCE
    for number in np.unique(group):
        yield edges[group == number]


def _crossings(
    edges: Floats, rows: Floats, cols: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row, and first column at or right of the crossing, of each edge with each row."""
    first, last = np.sort(np.searchsorted(rows, edges[:, :, 0]), axis=1).T
    count = last - first
    edge = np.repeat(np.arange(len(edges)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (y0, x0), (y1, x1) = edges[edge, 0].T, edges[edge, 1].T
    x = x0 + (rows[row] - y0) * (x1 - x0) / (y1 - y0)
    return row, np.searchsorted(cols, x)
