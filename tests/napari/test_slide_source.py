"""Which layers can be used as a slide, and what slide comes of them."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from live import add_slide, tissue_slide
from napari.layers import Image, Labels

from napari_wsi_heatmap._napari.slide_source import layer_mpp, refusal, source_of
from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.tiff import TiffSlide

RGB = np.arange(64 * 96 * 3, dtype=np.uint32).reshape(64, 96, 3).astype(np.uint8)


def test_a_layer_of_our_reader_gives_its_slide(viewer):
    slide = tissue_slide()
    source = source_of(add_slide(viewer, slide))
    assert source.open() is slide
    assert (source.name, source.mpp, source.shapes) == ("pink", (0.5, 0.5), ((400, 600),))


def test_a_layer_whose_data_was_replaced_is_its_pixels(viewer):
    layer = add_slide(viewer, tissue_slide())
    layer.data = [RGB, RGB[::2, ::2]]
    opened = source_of(layer).open()
    assert isinstance(opened, ArraySlide)
    assert np.array_equal(opened.read_region(0, 0, 0, 64, 96), RGB)


def test_pixels_of_any_rgb_layer_are_a_slide():
    levels = [da.from_array(RGB, chunks=(16, 16, 3)), RGB[::2, ::2]]
    layer = Image(levels, rgb=True, multiscale=True, scale=(0.3, 0.4), units=("um", "um"))
    opened = source_of(layer).open()
    assert opened.mpp == pytest.approx((0.3, 0.4))
    assert [level.downsample for level in opened.levels] == [(1, 1), (2, 2)]
    assert np.array_equal(opened.read_region(0, 10, 20, 30, 40), RGB[10:40, 20:60])
    assert np.array_equal(opened.read_region(1, 1, 2, 3, 4), RGB[2:8:2, 4:12:2])


def test_an_alpha_channel_is_left_out():
    rgba = np.concatenate([RGB, np.full((64, 96, 1), 255, np.uint8)], axis=-1)
    opened = source_of(Image(rgba, rgb=True)).open()
    assert np.array_equal(opened.read_region(0, 0, 0, 64, 96), RGB)


def test_a_slide_opened_by_another_reader_is_read_from_its_file(viewer, slide_file, pixels):
    viewer.add_image(pixels, rgb=True)
    layer = viewer.layers[0]
    layer._source = layer.source.model_copy(update={"path": slide_file, "reader_plugin": "other"})
    source = source_of(layer)
    opened = source.open()
    assert isinstance(opened, TiffSlide)
    assert opened.mpp == (0.5, 0.5)
    opened.close()


def test_another_picture_of_the_same_file_is_its_own_pixels(viewer, slide_file):
    layer = Image(RGB, rgb=True)
    layer._source = layer.source.model_copy(update={"path": slide_file})
    assert isinstance(source_of(layer).open(), ArraySlide)


def test_what_the_layer_states_calibrates_a_file_that_does_not(plain_slide_file, pixels):
    layer = Image(pixels, rgb=True, scale=(0.25, 0.25), units=("um", "um"))
    layer._source = layer.source.model_copy(update={"path": plain_slide_file})
    opened = source_of(layer).open()
    assert (opened.backend, opened.mpp) == ("tiff", (0.25, 0.25))
    opened.close()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Labels(np.zeros((9, 9), int)), "a Labels layer"),
        (Image(np.zeros((9, 9))), "not an RGB image"),
        (Image(np.zeros((9, 9, 3), np.float32), rgb=True), "float32, not uint8"),
        (Image(np.zeros((4, 9, 9, 3), np.uint8), rgb=True), "3 dimensions"),
    ],
)
def test_what_cannot_be_used_says_why(layer, reason):
    assert reason in refusal(layer)
    with pytest.raises(SlideOpenError, match="choose a layer with a slide") as raised:
        source_of(layer)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("placed", "mpp"),
    [
        ({"scale": (0.25, 0.5), "units": ("um", "um")}, (0.25, 0.5)),
        ({"scale": (250, 250), "units": ("nm", "nm")}, (0.25, 0.25)),
        ({"scale": (0.5, 0.5), "units": ("um", "um"), "rotate": 90}, (0.5, 0.5)),
        ({"scale": (0.25, 0.25)}, None),
        ({"scale": (1, 1), "units": ("m", "m")}, None),
    ],
)
def test_mpp_of_a_layer(placed, mpp):
    found = layer_mpp(Image(RGB, rgb=True, **placed))
    assert found is None if mpp is None else found == pytest.approx(mpp)
