"""Every derived number of a grid: levels, footprints, counts, positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made import noise, noise_slide, pyramid_slide
from napari_wsi_heatmap.coords import list_windows
from napari_wsi_heatmap.errors import GridError, MissingMppError
from napari_wsi_heatmap.grid import (
    EDGES,
    WindowSpec,
    count_windows,
    lay_grid,
    resolve_window,
)
from napari_wsi_heatmap.slides.array import ArraySlide

sides = st.integers(1, 3000)


def grid_of(side: tuple[int, int], window: int, stride: int, edge: str):
    spec = WindowSpec(0, (1.0, 1.0), (window, window), (window, window), (stride, stride))
    return lay_grid(spec, side, edge)


@pytest.mark.parametrize(
    ("side", "window", "stride", "pad", "flush", "drop", "centre"),
    [
        (10, 4, 4, 3, 3, 2, 2),
        (8, 4, 4, 2, 2, 2, 2),
        (9, 4, 2, 4, 4, 3, 4),
        (4, 4, 4, 1, 1, 1, 1),
        (3, 4, 4, 1, 1, 0, 1),
        (1, 4, 4, 1, 1, 0, 1),
        (20, 4, 10, 2, 3, 2, 2),
        (21, 4, 10, 3, 3, 2, 2),
        (100, 30, 7, 11, 11, 11, 13),
    ],
)
def test_counts(side, window, stride, pad, flush, drop, centre):
    counts = [count_windows(side, window, stride, edge) for edge in ("pad", "flush", "drop")]
    assert counts == [pad, flush, drop]
    assert count_windows(side, window, stride, "centre") == centre


@given(sides, sides, sides)
def test_pad_and_flush_cover_every_pixel_where_windows_touch(side, window, stride):
    stride = min(stride, window)
    for edge in ("pad", "flush"):
        grid = grid_of((side, 1), window, stride, edge)
        starts = grid.starts[0]
        assert starts[0] == 0
        assert starts[-1] + window >= side
        assert (np.diff(starts) <= window).all()


@given(sides, sides, sides)
def test_no_window_begins_beyond_the_slide(side, window, stride):
    for edge in EDGES:
        if count_windows(side, window, stride, edge):
            starts = grid_of((side, side), window, stride, edge).starts[0]
            assert starts[-1] < side
            assert len(np.unique(starts)) == len(starts)


@given(sides, sides, sides)
def test_drop_hangs_nowhere_and_flush_only_if_larger_than_the_slide(side, window, stride):
    if side >= window:
        assert not grid_of((side, side), window, stride, "drop").hanging.any()
        assert not grid_of((side, side), window, stride, "flush").hanging.any()


@given(sides, sides, sides)
def test_centre_keeps_exactly_the_windows_whose_centre_is_inside(side, window, stride):
    if side > window:
        starts = grid_of((side, side), window, stride, "centre").starts[0]
        every = np.arange(0, side, stride)
        assert starts.tolist() == every[every + round(window / 2) < side].tolist()


def test_positions_are_row_by_row_and_in_level_0_pixels():
    slide = pyramid_slide()
    grid = lay_grid(resolve_window(slide, 32, 24, level=1), slide.levels[1].shape)
    assert grid.positions(np.arange(3)).tolist() == [[0, 0], [0, 96], [0, 192]]
    assert grid.positions(np.array([grid.shape[1]])).tolist() == [[96, 0]]


def test_the_coarsest_level_that_is_not_coarser_is_read():
    slide = pyramid_slide()  # 0.25, 1.0, about 3.99 µm per pixel
    asked = {0.25: 0, 0.5: 0, 0.96: 1, 0.94: 0, 1.0: 1, 2.0: 1, 4.1: 2, 50: 2}
    assert {mpp: resolve_window(slide, 64, mpp=mpp).level for mpp in asked} == asked


def test_footprint_and_stride_are_rounded_at_the_level_read():
    spec = resolve_window(noise_slide(mpp=0.499), 128, 96, mpp=0.75)
    assert spec.footprint == (192, 192)  # round(128 · 0.75 / 0.499)
    assert spec.stride == (144, 144)
    assert spec.resized


def test_anisotropic_pixels_give_anisotropic_footprints():
    slide = ArraySlide([noise(400, 400)], mpp=(0.25, 0.5))
    assert resolve_window(slide, 64, mpp=0.5).footprint == (128, 64)


def test_finer_than_the_slide_enlarges_and_says_so():
    spec = resolve_window(noise_slide(mpp=0.5), 64, mpp=0.25)
    assert spec.level == 0
    assert spec.footprint == (32, 32)
    assert "finer than the slide" in spec.notices[0]


def test_a_level_is_read_as_it_is():
    spec = resolve_window(pyramid_slide(), (64, 32), level=1)
    assert (spec.level, spec.footprint, spec.stride) == (1, (64, 32), (64, 32))
    assert not spec.resized
    assert resolve_window(pyramid_slide(), 64, level=lambda s: len(s.levels) - 1).level == 2


def test_missing_mpp_asks():
    with pytest.raises(MissingMppError, match=r"no µm per pixel.*level=0"):
        resolve_window(noise_slide(mpp=None), 64, mpp=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window is 0"),
        ({"window": 64, "stride": (3, -1)}, "stride is"),
        ({"window": 1.5}, "whole pixels"),
        ({"window": 64, "level": 7}, "no level 7"),
        ({"window": 64, "mpp": float("nan")}, "mpp is nan"),
    ],
)
def test_sizes_that_cannot_work(arguments, message):
    with pytest.raises(GridError, match=message):
        resolve_window(noise_slide(), **arguments)


def test_a_window_larger_than_the_slide():
    with pytest.raises(GridError, match=r"no window of 64 x 64 px fits.*smaller window"):
        grid_of((32, 500), 64, 64, "drop")
    grid = grid_of((32, 32), 64, 64, "pad")
    assert grid.shape == (1, 1)
    assert "larger than the slide" in grid.notices[0]


def test_unknown_edge():
    with pytest.raises(GridError, match="choose one of pad, flush, drop, centre"):
        grid_of((32, 32), 8, 8, "wrap")


def test_listed_windows_are_rounded_to_pixels_of_the_level():
    spec = resolve_window(pyramid_slide(), 16, level=1)
    assert list_windows(spec, np.array([[4, 9], [10.1, -3]])).corners.tolist() == [[1, 2], [3, -1]]


def test_a_lattice_that_no_memory_holds_is_refused_at_once():
    with pytest.raises(GridError, match=r"100000 x 100000 windows are too many.*larger stride"):
        grid_of((100_000, 100_000), 1, 1, "pad")


@pytest.mark.parametrize(("window", "settings"), [(20_000, {}), (64, {"mpp": 1e4})])
def test_a_window_that_no_memory_holds_is_refused_at_once(window, settings):
    with pytest.raises(GridError, match="too large"):
        resolve_window(noise_slide(), window, **settings)


@pytest.mark.parametrize(
    "coords", [np.zeros((3, 3)), [1, 2], [[np.nan, 0]], [[1e300, 0]], [[0, 0], [1]], "a.h5", None]
)
def test_coordinates_that_make_no_sense(coords):
    with pytest.raises(GridError, match="coordinates"):
        list_windows(resolve_window(noise_slide(), 16), coords)
