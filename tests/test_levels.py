from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_wsi_heatmap.lazyarray import LazyArray
from napari_wsi_heatmap.levels import chunk_for, halve, plan_levels
from napari_wsi_heatmap.pyramid import slide_pyramid
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tilecache import TileCache
from napari_wsi_heatmap.traffic import Traffic
from recording import levels_of, naive_half, noise


@pytest.mark.parametrize(
    ("shapes", "factors"),
    [
        (levels_of(80_000, 100_000, 1, 4, 16, 64), [1, 2, 4, 8, 16, 32, 64, 128]),
        (levels_of(80_000, 100_000, 1), [1, 2, 4, 8, 16, 32, 64, 128]),
        (levels_of(9_001, 12_003, 1, 2, 4, 8, 16), [1, 2, 4, 8, 16]),
        (levels_of(3_000, 2_000, 1), [1, 2, 4]),
        (levels_of(500, 600, 1), [1]),
        (levels_of(30_000, 20_000, 1, 32), [1, 2, 4, 8, 16, 32]),
    ],
)
def test_levels_are_a_factor_2_apart_and_end_small(shapes, factors):
    plan = plan_levels(shapes)
    assert [level.shape for level in plan] == levels_of(*shapes[0], *factors)
    assert [level.shape for level in plan if level.stored is not None] == shapes
    assert max(plan[-1].shape) <= 1024


def test_levels_of_other_factors_stay_as_they_are():
    shapes = levels_of(30_000, 30_000, 1, 3, 10)
    plan = plan_levels(shapes)
    assert [level.shape for level in plan if level.stored is not None] == shapes
    assert [level.shape[0] for level in plan] == [30_000, 15_000, 10_000, 5_000, 3_000, 1_500, 750]


@given(
    st.lists(
        st.tuples(st.integers(1, 300_000), st.integers(1, 300_000)), min_size=1, max_size=6
    ).map(lambda shapes: sorted(shapes, key=lambda s: -s[0] * s[1]))
)
def test_areas_always_decrease_whatever_the_file_says(shapes):
    plan = plan_levels(shapes)
    areas = [level.shape[0] * level.shape[1] for level in plan]
    assert all(coarser < finer for finer, coarser in pairwise(areas))
    assert max(plan[-1].shape) <= 1024
    assert plan[0] == (shapes[0], 0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_halving_is_the_mean_rounded_half_up_also_at_odd_borders(height, width, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(halve(rgb), naive_half(rgb))


def test_halving_keeps_the_extremes():
    assert halve(np.full((4, 4, 3), 255, np.uint8)).min() == 255
    assert halve(np.zeros((3, 3, 3), np.uint8)).max() == 0


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), slice(None), slice(None)),
        (slice(3, 90, 7), slice(80, 10, -3), 1),
        (5, slice(10, 20)),
        (slice(20, 20), slice(0, 5)),
        (-1, -2, slice(0, 2)),
        slice(40, 60),
    ],
)
def test_slices_of_every_kind_mean_what_they_mean_in_numpy(key):
    rgb = noise(1100, 120)
    pyramid = slide_pyramid(ArraySlide([rgb]), TileCache())
    np.testing.assert_array_equal(pyramid.levels[0][key].compute(), rgb[key])
    np.testing.assert_array_equal(LazyArray(pyramid.views[0], Traffic())[key], rgb[key])


def test_chunks_are_whole_tiles_where_tiles_are_ordinary():
    assert chunk_for((256, 256), (9000, 9000)) == (512, 512)
    assert chunk_for((480, 480), (9000, 9000)) == (480, 480)
    assert chunk_for((1024, 1024), (9000, 9000)) == (1024, 1024)
    assert chunk_for((256, 3840), (9000, 9000)) == (512, 512)
