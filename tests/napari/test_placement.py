"""Each cell lies where its window's centre lies, whatever was done to the slide's layer."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from napari_wsi_heatmap._napari.placement import place, placed_over
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.heatmap import Heatmap

SHAPES = {
    "whole": [(250, 240), (125, 120), (50, 48)],
    "not whole": [(250, 240), (100, 96), (40, 39)],
    "anisotropic": [(250, 240), (100, 80)],
}
LAYERS = {
    "calibrated": {"scale": (0.25, 0.25), "units": ("um", "um")},
    "oblong pixels": {"scale": (0.25, 0.5), "units": ("um", "um")},
    "no mpp": {},
    "moved": {"scale": (0.25, 0.25), "units": ("um", "um"), "translate": (300.0, -40.0)},
    "turned": {"scale": (0.25, 0.3), "rotate": 30.0, "shear": [0.2], "translate": (5.0, 7.0)},
    "affine": {"scale": (0.5, 0.5), "affine": [[0.0, -1.0, 9.0], [1.1, 0.2, 3.0], [0, 0, 1]]},
    "millimetres": {"scale": (0.00025, 0.00025), "units": ("mm", "mm")},
}


def slide_of(shapes):
    from napari_wsi_heatmap.slides.array import ArraySlide

    return ArraySlide([np.zeros((*shape, 3), np.uint8) for shape in shapes], mpp=0.25)


def heatmap_of(slide, level, window, stride, edge="pad", cells=None):
    spec = resolve_window(slide, window, stride, level=level)
    frame = lay_frame(lay_grid(spec, slide.levels[level].shape, edge), 1, cells)
    values = np.zeros(frame.shape, np.float32)
    record = {"model": {"names": ["mean"]}}
    return Heatmap(values, np.zeros(frame.grid.shape, np.uint8), frame, record)


def slide_image(slide, **placed):
    levels = [np.zeros((*level.shape, 3), np.uint8) for level in slide.levels]
    return Image(levels, rgb=True, multiscale=True, contrast_limits=(0, 255), **placed)


def worlds(layer, shape):
    """World coordinates of every cell of a layer."""
    return np.array([layer.data_to_world(index) for index in np.ndindex(shape)]).reshape(*shape, 2)


def expected(slide_layer, centres):
    flat = centres.reshape(-1, 2)
    return np.array([slide_layer.data_to_world(point) for point in flat]).reshape(centres.shape)


LEVELS = [(name, i) for name, shapes in SHAPES.items() for i in range(len(shapes))]


def check(placed, pyramid, level, window, stride, edge):
    slide = slide_of(SHAPES[pyramid])
    heatmap = heatmap_of(slide, level, window, stride, edge)
    slide_layer = slide_image(slide, **placed)
    layer = Image(heatmap.values[0], **placed_over(slide_layer, heatmap.frame))
    seen = worlds(layer, heatmap.grid.shape)
    wanted = expected(slide_layer, heatmap.centres)
    if edge == "flush":  # its last row and column leave the lattice
        seen, wanted = seen[:-1, :-1], wanted[:-1, :-1]
    unit = 1e-3 if placed.get("units") == ("mm", "mm") else 1.0
    assert np.abs(seen - wanted).max() < 0.01 * unit
    assert layer.units == slide_layer.units


@pytest.mark.parametrize("placed", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(("pyramid", "level"), LEVELS)
def test_cells_lie_at_the_centres_of_their_windows(placed, pyramid, level):
    check(placed, pyramid, level, (9, 14), (6, 17), "pad")


@pytest.mark.parametrize(("pyramid", "level"), LEVELS)
@pytest.mark.parametrize("edge", ["pad", "flush", "drop", "centre"])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 5), (7, 12)])
def test_of_every_grid(pyramid, level, edge, window, stride):
    check(LAYERS["calibrated"], pyramid, level, window, stride, edge)


@pytest.mark.parametrize(("window", "cells"), [(16, (4, 4)), (30, (4, 5)), (18, (3, 2))])
def test_cells_of_a_dense_map_tile_their_windows(window, cells):
    slide = slide_of(SHAPES["not whole"])
    heatmap = heatmap_of(slide, 1, window, window, cells=cells)
    slide_layer = slide_image(slide, **LAYERS["moved"])
    layer = Image(heatmap.values[0], **placed_over(slide_layer, heatmap.frame))
    mean = np.array([layer.data_to_world((i, j)) for i, j in np.ndindex(cells)]).mean(0)
    assert np.allclose(mean, slide_layer.data_to_world(heatmap.centres[0, 0]), atol=0.001)
    step = np.subtract(layer.data_to_world(cells), layer.data_to_world((0, 0)))
    assert np.allclose(step, np.array(heatmap.window_size) * 0.25)


def test_a_placed_layer_follows():
    slide = slide_of(SHAPES["whole"])
    heatmap = heatmap_of(slide, 0, 16, 16)
    slide_layer = slide_image(slide, **LAYERS["calibrated"])
    layer = Image(heatmap.values[0], **placed_over(slide_layer, heatmap.frame))
    slide_layer.scale, slide_layer.translate = (0.5, 0.4), (12.0, 7.0)
    slide_layer.rotate = 12.0
    place(layer, slide_layer, heatmap.frame)
    wanted = expected(slide_layer, heatmap.centres)
    assert np.abs(worlds(layer, heatmap.grid.shape) - wanted).max() < 0.01
