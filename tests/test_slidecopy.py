"""A slide copied to OME-Zarr: its pixels, halved levels, places and sizes; bounded reads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, noise
from napari_wsi_heatmap.errors import ExportError, GridError, SlideReadError
from napari_wsi_heatmap.levels import halve
from napari_wsi_heatmap.slidecopy import copy_slide
from napari_wsi_heatmap.slides.array import ArraySlide


@pytest.fixture(scope="module")
def levels():
    fine = noise(2300, 3101, 1)
    return [fine, halve(halve(fine))]


@pytest.fixture
def slide(levels):
    return ArraySlide(levels, mpp=(0.25, 0.5), name="a.svs")


def whole(slide, level):
    return slide.read_region(level, 0, 0, *slide.levels[level].shape)


def test_it_opens_as_a_slide_of_the_same_pixels(slide, levels, tmp_path):
    path = copy_slide(slide, tmp_path / "a.zarr")
    with wh.open_slide(path) as copied:
        assert copied.backend == "omezarr"
        assert [level.shape for level in copied.levels] == [(2300, 3101), (1150, 1551), (575, 776)]
        assert copied.mpp == pytest.approx((0.25, 0.5))
        assert copied.warnings == ()
        np.testing.assert_array_equal(whole(copied, 0), levels[0])
        np.testing.assert_array_equal(whole(copied, 1), halve(levels[0]))
        np.testing.assert_array_equal(whole(copied, 2), halve(halve(levels[0])))


def test_a_region_lies_where_it_lay(slide, levels, tmp_path):
    import zarr
    from ome_zarr_models.v05.image import Image

    path = copy_slide(slide, tmp_path / "a.zarr", level=1, roi=(401.0, 800, 1203, 99_999))
    with wh.open_slide(path) as copied:
        assert copied.levels[0].shape == (201, 576)
        np.testing.assert_array_equal(whole(copied, 0), levels[1][100:301, 200:776])
        assert copied.mpp == pytest.approx((1.0, 2.0))
    group = zarr.open_group(str(path), mode="r")
    Image.from_zarr(group)  # valid by its own specification
    scale, place = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1, 1, 2]
    # The centre of a pixel of level 1 lies 1.5 pixels of level 0 behind that of its first.
    assert place["translation"] == pytest.approx([0, (400 + 1.5) * 0.25, (800 + 1.5) * 0.5])
    assert list(tmp_path.iterdir()) == [path]


def test_without_calibration_there_is_none(tmp_path):
    path = copy_slide(ArraySlide([noise(70, 90, 0)]), tmp_path / "a.zarr")
    with wh.open_slide(path) as copied:
        assert copied.mpp is None
        assert len(copied.levels) == 1


def test_no_more_than_a_chunk_is_read_at_once_and_no_pixel_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_wsi_heatmap.slidecopy.CHUNK", 128)
    sizes, lock, pixels = [], threading.Lock(), 0

    def read(level, y, x, height, width):
        nonlocal pixels
        with lock:
            sizes.append((height, width))
            pixels += height * width
        return np.full((height, width, 3), 7, np.uint8)

    copy_slide(ArraySlide.from_callable(read, [(700, 900)]), tmp_path / "a.zarr")
    assert max(max(size) for size in sizes) == 128
    assert pixels == 700 * 900


def test_what_cannot_be_leaves_nothing_behind(slide, tmp_path):
    with pytest.raises(SlideReadError):
        copy_slide(FaultySlide(slide, bad=[(100, 100)]), tmp_path / "a.zarr")
    with pytest.raises(GridError, match="no level 2"):
        copy_slide(slide, tmp_path / "a.zarr", level=2)
    with pytest.raises(GridError, match="nothing of the slide"):
        copy_slide(slide, tmp_path / "a.zarr", roi=(5000, 0, 6000, 100))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ExportError, match="there is something"):
        copy_slide(slide, tmp_path / "a.zarr")
