"""Renderings as files: read back with Pillow, tifffile and OpenSlide."""

from __future__ import annotations

import itertools
import json

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from made import noise
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports.png import KEY
from napari_wsi_heatmap.mil import picturefiles
from napari_wsi_heatmap.mil.picture import Picture


def picture_of(pixels, mpp=(4.0, 8.0)):
    return Picture(
        pixels.shape[:2], lambda top, bottom: pixels[top:bottom], (20.0, 30.0), (16.0, 32.0), mpp
    )


@pytest.fixture(scope="module")
def pixels():
    return noise(601, 700)


def test_png(tmp_path, pixels):
    path = picture_of(pixels).save(tmp_path / "a.png")
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert image.info["dpi"] == pytest.approx((25400 / 8, 25400 / 4))
        about = json.loads(image.info[KEY])
    assert about["origin_level0"] == [20, 30]
    assert about["scale_level0"] == [16, 32]
    assert about["shape_px"] == [601, 700]


@pytest.mark.parametrize("ending", [".jpg", ".JPEG"])
def test_jpeg(tmp_path, pixels, ending):
    smooth = np.asarray(Image.fromarray(pixels).resize((70, 60)).resize((700, 601)))
    path = picture_of(smooth).save(tmp_path / f"a{ending}")
    with Image.open(path) as image:
        assert np.abs(np.asarray(image).astype(int) - smooth).max() < 12
        assert image.info["dpi"] == (25400 // 8, 25400 // 4)
        assert json.loads(image.info["comment"])["scale_level0"] == [16, 32]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".tif", ".tiff"])
def test_tiff_is_a_slide(tmp_path, pixels, ending):
    path = picture_of(pixels).save(tmp_path / f"a{ending}")
    assert openslide.OpenSlide.detect_format(path) == "generic-tiff"
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((700, 601), (350, 301), (175, 151))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(8)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(4)
        read = slide.read_region((0, 0), 0, (700, 601)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(read), pixels)
    with tifffile.TiffFile(path) as file:
        levels = [page.asarray() for page in file.pages]
        assert json.loads(file.pages.first.description)["origin_level0"] == [20, 30]
    for fine, coarse in itertools.pairwise(levels):
        np.testing.assert_array_equal(coarse, np.asarray(Image.fromarray(fine).reduce(2)))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (257, 3), (3, 513)])
@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_odd_sizes(tmp_path, shape, ending):
    pixels = noise(*shape)
    path = picture_of(pixels, mpp=None).save(tmp_path / f"a{ending}")
    read = tifffile.imread(path, key=0) if ending == ".tiff" else np.asarray(Image.open(path))
    np.testing.assert_array_equal(read, pixels)


def test_rows_are_asked_for_once_and_in_order(tmp_path, pixels):
    asked = []

    def rows(top, bottom):
        asked.append((top, bottom))
        return pixels[top:bottom]

    for ending in picturefiles.ENDINGS:
        asked.clear()
        Picture((601, 700), rows, (0, 0), (1, 1), None).save(tmp_path / f"a{ending}")
        assert asked == [(0, 256), (256, 512), (512, 601)]


def test_what_fails_half_way_leaves_nothing(tmp_path, pixels):
    (tmp_path / "a.png").write_bytes(b"before")

    def rows(top, bottom):
        if top:
            raise ExportError("no more")
        return pixels[top:bottom]

    for ending in picturefiles.ENDINGS:
        with pytest.raises(ExportError, match="no more"):
            Picture((601, 700), rows, (0, 0), (1, 1), None).save(tmp_path / f"a{ending}")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"before"


def test_what_cannot_be_written_is_refused(tmp_path, pixels):
    with pytest.raises(ExportError, match=r"as \.bmp"):
        picture_of(pixels).save(tmp_path / "a.bmp")
    with pytest.raises(ExportError, match="JPEG cannot have 700 x 70000 px"):
        Picture((70_000, 700), None, (0, 0), (1, 1), None).save(tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
