"""A box of a slide shrunk while it is read."""

from __future__ import annotations

import numpy as np
import pytest

from made import noise_slide
from napari_wsi_heatmap.shrink import read_shrunk


def naive(pixels, factor):
    """Mean of each factor x factor square, of what there is at the border."""
    rows, cols = (range(0, side, factor) for side in pixels.shape[:2])
    squares = [[pixels[y : y + factor, x : x + factor] for x in cols] for y in rows]
    return np.rint([[square.mean((0, 1)) for square in row] for row in squares]).astype(np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 7, 50])
@pytest.mark.parametrize("block_bytes", [4, 4000, 1 << 20])
def test_is_the_mean_of_squares_however_it_is_read(factor, block_bytes):
    slide = noise_slide(61, 83)
    pixels = slide.read_region(0, 0, 0, 61, 83)
    rgb, scanned = read_shrunk(slide, 0, factor, block_bytes=block_bytes)
    np.testing.assert_array_equal(rgb, naive(pixels, factor))
    assert scanned.shape == rgb.shape[:2]
    assert scanned.all()


def test_a_box_begins_where_it_begins():
    slide = noise_slide(61, 83)
    rgb, _ = read_shrunk(slide, 0, 3, (5, 11, 20, 30), block_bytes=500)
    np.testing.assert_array_equal(rgb, naive(slide.read_region(0, 5, 11, 20, 30), 3))


def test_a_square_counts_as_scanned_if_any_of_it_is():
    slide = noise_slide(20, 20)
    scanned = np.zeros((20, 20), bool)
    scanned[7, 13] = True

    def read(level, y, x, height, width):
        return slide.read_region(level, y, x, height, width), scanned[y:, x:][:height, :width]

    _, small = read_shrunk(slide, 0, 5, block_bytes=400, read=read)
    assert np.argwhere(small).tolist() == [[1, 2]]
