"""Geometry and calibration that all backends share, and slides from memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from made_slides import noise
from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.base import believable_mpp, level_downsample

SIDES = st.integers(1, 200_000)


@example(height=3675, width=3709, factor=53, up=(True, False))
@given(height=SIDES, width=SIDES, factor=st.integers(1, 64), up=st.tuples(*[st.booleans()] * 2))
def test_a_whole_factor_is_found_again(height, width, factor, up):
    sides = [
        -(-n // factor) if u else n // factor for n, u in zip((height, width), up, strict=True)
    ]
    if min(sides) < 1:
        return
    y, x = level_downsample((height, width), tuple(sides))
    assert y == x == int(y)
    for full, side in zip((height, width), sides, strict=True):
        assert side in (math.floor(full / y), math.ceil(full / y))
    if min(sides) > 2 * (factor + 1):  # then no other factor gives these shapes
        assert y == factor


@pytest.mark.parametrize(
    ("base", "shape", "want"),
    [
        ((3567, 4443), (1783, 2221), (2, 2)),  # OpenSlide's average: 2.0005
        ((1500, 1000), (94, 63), (16, 16)),  # 15.915
        ((2967, 2220), (185, 138), (16, 16)),  # 16.06
        ((3867, 2820), (967, 705), (4, 4)),  # 3.9995
        ((2967, 2220), (1484, 740), (2967 / 1484, 3)),
        ((7, 7), (1, 1), (8, 8)),  # 4 to 8 fit: the power of two nearest to 7
        ((100, 100), (100, 100), (1, 1)),
    ],
)
def test_downsamples(base, shape, want):
    assert level_downsample(base, shape) == pytest.approx(want)


@given(y=st.floats(0.05, 20), x=st.floats(0.05, 20))
def test_what_a_microscope_makes_is_believed(y, x):
    assert believable_mpp((y, x), "a slide") == ((y, x), None)


@given(value=st.floats().filter(lambda v: not 0.05 <= v <= 20))
def test_anything_else_is_not(value):
    mpp, warning = believable_mpp((0.5, value), "a slide")
    assert mpp is None
    assert warning.startswith("a slide states")
    assert "\n" not in warning


class TestArraySlide:
    @pytest.mark.parametrize(
        "level",
        [
            np.zeros((5, 5), np.uint8),
            np.zeros((5, 5, 3), np.float32),
            np.zeros((5, 5, 2), np.uint8),
            [[1, 2], [3, 4]],
            np.zeros((0, 5, 3), np.uint8),
        ],
    )
    def test_refuses_what_is_no_picture(self, level):
        with pytest.raises(SlideOpenError):
            ArraySlide([level])

    def test_refuses_no_level(self):
        with pytest.raises(SlideOpenError, match="no level"):
            ArraySlide([])

    def test_a_function_that_returns_nonsense(self):
        slide = ArraySlide.from_callable(lambda *box: np.zeros((3, 3)), [(50, 50)])
        with pytest.raises(SlideReadError, match=r"read\(\) returned float64 \(3, 3\)"):
            slide.read_region(0, 0, 0, 10, 10)

    def test_mpp_at_a_level(self):
        pixels = noise(64, 64)
        slide = ArraySlide([pixels, pixels[::4, ::4]], mpp=(0.25, 0.5))
        assert slide.mpp_at(1) == (1.0, 2.0)
        assert ArraySlide([pixels]).mpp_at(0) is None

    def test_an_unbelievable_mpp_is_warned_of(self):
        slide = ArraySlide([noise(9, 9)], mpp=350)
        assert slide.mpp is None
        assert "no scanner has" in slide.warnings[0]

    def test_fingerprints_tell_pixels_apart(self):
        pixels = noise(300, 300)
        other = pixels.copy()
        other[5, 5] ^= 1
        assert ArraySlide([pixels]).fingerprint == ArraySlide([pixels.copy()]).fingerprint
        assert ArraySlide([pixels]).fingerprint != ArraySlide([other]).fingerprint
        assert ArraySlide([pixels]).fingerprint != ArraySlide([pixels], mpp=0.5).fingerprint

    def test_a_fourth_channel_is_left_out(self):
        rgba = np.dstack([noise(20, 20), noise(20, 20)[..., :1]])
        got = ArraySlide([rgba]).read_region(0, 0, 0, 20, 20)
        np.testing.assert_array_equal(got, rgba[..., :3])
