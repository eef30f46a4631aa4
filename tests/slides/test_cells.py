"""Levels whose downsample is no whole number: where OpenSlide draws stored pixels."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_slides import noise, write_tiff
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides import cells, open_slide
from napari_wsi_heatmap.slides.cells import SURFACE, TOLERANCE, Axis, CellReader


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 30_000), downsample=st.floats(1.0001, 130))
def test_spans_cover_the_axis_once(length, downsample):
    axis = Axis(length, downsample)
    assert [span.start for span in axis.spans] == [0, *(span.stop for span in axis.spans[:-1])]
    assert axis.spans[-1].stop == length
    for span in axis.spans:
        assert 0 < span.stop - span.start <= SURFACE
        shift = abs(axis.level0(span.start) / downsample - span.start)
        assert (shift < TOLERANCE) == span.exact
    assert 0 <= axis.exact <= 1


@settings(max_examples=200, deadline=None)
@given(downsample=st.floats(1.0001, 130), start=st.integers(0, 9000), n=st.integers(1, 500))
def test_the_nearest_origin_reaches(downsample, start, n):
    axis = Axis(10_000, downsample)
    origin = axis.origin(start, start + n)
    assert origin <= start
    assert start + n - origin <= SURFACE or origin == start
    shift = abs(axis.level0(origin) / downsample - origin)
    assert shift < TOLERANCE or start + n - axis.origins[axis.origins <= start][-1] > SURFACE


def test_small_levels_are_always_exact():
    for downsample in (2.0005, 4.0043, 15.915, 3.9995, 32.0870, 129.289):
        assert Axis(SURFACE, downsample).exact == 1


def test_large_levels_may_not_be():
    axis = Axis(11_500, 4.00012)
    assert 0.6 < axis.exact < 0.8
    lost = [span for span in axis.spans if not span.exact]
    assert lost[0].start > SURFACE


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Level 1 is 6000 px wide at downsample 4.0002: no origin reaches its middle."""
    level0 = np.zeros((64, 24_002, 3), np.uint8)
    levels = [level0, noise(16, 6000)]
    return write_tiff(tmp_path_factory.mktemp("wide") / "wide.tif", levels), levels[1]


def test_a_wide_level_is_exact_as_far_as_openslide_can(wide):
    path, truth = wide
    with openslide.OpenSlide(path) as osr:
        assert osr.level_downsamples[1] % 1
        drawn = np.asarray(osr.read_region((0, 0), 1, (6000, 16)))[..., :3]
    assert (drawn[:, :SURFACE] == truth[:, :SURFACE]).all()
    assert (drawn[:, SURFACE:] != truth[:, SURFACE:]).any()  # its second surface is interpolated
    with open_slide(path, backend="openslide") as slide:
        (warning,) = slide.warnings
        assert "level 1: OpenSlide interpolates" in warning
        axis = slide._cells[1].x
        got = slide.read_region(1, 0, 0, 16, 6000)
        for span in axis.spans:
            same = (got[:, span.start : span.stop] == truth[:, span.start : span.stop]).all()
            assert same == span.exact


class Reads:
    """Counts what is read of a level of known pixels; can break at a place."""

    def __init__(self, shape, downsample):
        self.pixels, self.downsample = noise(*shape), downsample
        self.calls, self.broken = [], None

    def __call__(self, y0, x0, height, width):
        y, x = round(y0 / self.downsample), round(x0 / self.downsample)
        self.calls.append((y, x, height, width))
        at = self.broken
        if at and y <= at[0] < y + height and x <= at[1] < x + width:
            raise SlideReadError("broken")
        return self.pixels[y : y + height, x : x + width].copy(), None


@pytest.fixture
def reads():
    return Reads((3000, 2500), 4.0043)


def test_each_cell_is_read_once_while_it_is_kept(reads):
    level = CellReader(reads.pixels.shape[:2], reads.downsample, reads)
    for y in range(0, 2900, 97):
        for x in range(0, 2400, 101):
            rgb, scanned = level.box(y, x, 90, 80)
            np.testing.assert_array_equal(rgb, reads.pixels[y : y + 90, x : x + 80])
            assert scanned is None
    assert len(reads.calls) == len(set(reads.calls)) == len(level.y.spans) * len(level.x.spans)


def test_memory_is_bounded(reads, monkeypatch):
    monkeypatch.setattr(cells, "MAX_BYTES", 8 << 20)
    level = CellReader(reads.pixels.shape[:2], reads.downsample, reads)
    rgb, _ = level.box(0, 0, 3000, 2500)
    np.testing.assert_array_equal(rgb, reads.pixels)
    kept = [cell.nbytes for cell, _ in level._kept.values()]
    assert sum(kept) == level._bytes <= 8 << 20
    assert len(kept) >= 2


def test_a_broken_place_spoils_only_boxes_near_it(reads):
    reads.broken = (500, 600)
    level = CellReader(reads.pixels.shape[:2], reads.downsample, reads)
    with pytest.raises(SlideReadError):
        level.box(480, 580, 50, 50)
    gap = int(np.diff(level.x.origins).max())
    for y, x in ((0, 0), (501 + gap, 600), (500, 601 + gap), (400, 500), (501, 600)):
        rgb, _ = level.box(y, x, 60, 60)
        np.testing.assert_array_equal(rgb, reads.pixels[y : y + 60, x : x + 60])
    with pytest.raises(SlideReadError):
        level.box(490, 590, 20, 20)
