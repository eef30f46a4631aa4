"""Outlines as masks: against the definition, place by place."""

from __future__ import annotations

import numpy as np
import pytest

from napari_wsi_heatmap.mil.contours import Outline, filled, lay_outlines

BOX = (0, 0, 60, 80)


def naive(ring, shape):
    """A pixel is in if its centre is inside or on the ring, or a line passes it."""
    mask = np.zeros(shape, bool)
    for (y0, x0), (y1, x1) in zip(ring, np.roll(ring, -1, 0), strict=True):
        _draw(mask, *((y0, x0, y1, x1) if x0 <= x1 else (y1, x1, y0, x0)))
    for y, x in np.ndindex(shape):
        mask[y, x] |= _inside(ring, y, x)
    return mask


def _draw(mask, y0, x0, y1, x1):
    """From left to right, along the longer side; half a pixel is not yet a step."""
    dy, dx = abs(y1 - y0), x1 - x0
    for step in range(max(dy, dx) + 1):
        along = max(dy, dx, 1)
        minor = -((along - 2 * step * min(dy, dx)) // (2 * along))
        down, across = (minor, step) if dx >= dy else (step, minor)
        mask[y0 + (down if y1 >= y0 else -down), x0 + across] = True


def _inside(ring, y, x):
    odd = False
    for (y0, x0), (y1, x1) in zip(ring.tolist(), np.roll(ring, -1, 0).tolist(), strict=True):
        if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


def star(seed, corners=9):
    """A ring around (30, 40) that does not cross itself."""
    random = np.random.default_rng(seed)
    angle = np.sort(random.uniform(0, 2 * np.pi, corners))
    radius = random.uniform(5, 28, corners)
    return np.stack([30 + radius * np.sin(angle), 40 + radius * np.cos(angle)], 1).astype(int)


@pytest.mark.parametrize("seed", range(12))
def test_a_ring_is_filled(seed):
    ring = star(seed)
    np.testing.assert_array_equal(filled((ring,), BOX), naive(ring, BOX[2:]))


@pytest.mark.parametrize(
    "ring",
    [
        [(5, 6)],
        [(5, 6), (5, 30)],
        [(5, 6), (40, 9)],
        [(9, 60), (2, 3), (2, 4)],
        [(3, 3), (3, 20), (20, 20), (20, 3)],
    ],
)
def test_a_point_a_line_a_square(ring):
    ring = np.array(ring)
    np.testing.assert_array_equal(filled((ring,), BOX), naive(ring, BOX[2:]))


@pytest.mark.parametrize(
    "box", [(10, 20, 7, 50), (25, 0, 1, 80), (0, 70, 60, 10), (-5, -5, 80, 99)]
)
def test_a_part_is_cut_out_of_the_whole(box):
    rings = star(1), star(2, 5)
    laid = lay_outlines([Outline(rings[0], (rings[1],)), Outline(star(3, 4))], (1, 1))
    wide = laid.mask((-10, -10, 100, 120))
    y, x = box[0] + 10, box[1] + 10
    np.testing.assert_array_equal(laid.mask(box), wide[y : y + box[2], x : x + box[3]])


def test_holes_and_islands_in_them():
    """The island is drawn after the larger piece, whatever the order."""
    square = np.array([(0, 0), (0, 40), (40, 40), (40, 0)])
    large, island = Outline(square, (square // 2 + 10,)), Outline(square // 8 + 18)
    for outlines in ([large, island], [island, large]):
        mask = lay_outlines(outlines, (1, 1)).mask((0, 0, 45, 45))
        assert mask[5, 5]
        assert not mask[12, 12]
        assert mask[20, 20]
        assert mask.sum() == 41**2 - 21**2 + 6**2


def test_corners_are_cut_off_to_pixels_of_the_canvas():
    ring = np.array([(7, 11), (7, 43), (39, 43), (39, 11)])
    mask = lay_outlines([Outline(ring)], (4, 4), corner=(1, 2)).mask((0, 0, 20, 20))
    y, x = np.nonzero(mask)
    assert (y.min(), y.max(), x.min(), x.max()) == (0, 8, 0, 8)


def test_no_outlines_are_no_tissue():
    assert not lay_outlines([], (4, 4)).mask((0, 0, 9, 9)).any()
