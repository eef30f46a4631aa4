"""What is looked at or drawn, in level-0 pixels of the slide."""

from __future__ import annotations

import numpy as np
import pytest
from live import add_slide, tissue_slide
from napari.layers import Shapes

from napari_wsi_heatmap._napari.region import drawn_region, on_slide, view_box
from napari_wsi_heatmap.errors import GridError

CORNERS = np.array([(40.0, 100.0), (40.0, 300.0), (160.0, 300.0), (160.0, 100.0)])
"""Level-0 pixels, counted from the border of pixel 0."""


@pytest.fixture
def slide_layer(viewer):
    layer = add_slide(viewer, tissue_slide())
    layer.scale, layer.translate = (0.5, 0.25), (1000.0, -20.0)
    return layer


def in_world(layer, points):
    """World coordinates of level-0 pixel borders."""
    return np.array([layer.data_to_world(point - 0.5) for point in points])


@pytest.mark.parametrize("kind", ["rectangle", "polygon"])
def test_a_drawn_outline_arrives_in_level_0_pixels(slide_layer, kind):
    shapes = Shapes([in_world(slide_layer, CORNERS)], shape_type=kind, units=("um", "um"))
    assert np.allclose(drawn_region(shapes, slide_layer), [CORNERS])


def test_a_shape_in_other_units_arrives_where_it_is_drawn(slide_layer):
    millimetres = in_world(slide_layer, CORNERS) / 1000
    shapes = Shapes([millimetres], shape_type="rectangle", units=("mm", "mm"))
    assert np.allclose(drawn_region(shapes, slide_layer), [CORNERS])


def test_a_shape_in_pixels_lies_where_napari_draws_it(slide_layer):
    shapes = Shapes([in_world(slide_layer, CORNERS)], shape_type="rectangle")
    assert np.allclose(drawn_region(shapes, slide_layer), [CORNERS])


def test_a_moved_shapes_layer_counts_with_its_own_transform(slide_layer):
    world = in_world(slide_layer, CORNERS)
    shapes = Shapes([(world - 7) / 2], shape_type="polygon", scale=(2, 2), translate=(7, 7))
    assert np.allclose(drawn_region(shapes, slide_layer), [CORNERS])


def test_an_ellipse_keeps_its_area(slide_layer):
    shapes = Shapes([in_world(slide_layer, CORNERS)], shape_type="ellipse")
    (outline,) = drawn_region(shapes, slide_layer)
    y, x = outline.T
    area = abs(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1))) / 2
    assert area == pytest.approx(np.pi * 60 * 100, rel=0.01)
    assert np.allclose(outline.mean(0), CORNERS.mean(0))


def test_lines_are_left_out_and_nothing_else_is_an_error(slide_layer):
    line = in_world(slide_layer, CORNERS[:2])
    both = Shapes([line, in_world(slide_layer, CORNERS)], shape_type=["line", "polygon"])
    assert len(drawn_region(both, slide_layer)) == 1
    with pytest.raises(GridError, match="no rectangle, polygon or ellipse"):
        drawn_region(Shapes([line], shape_type="line", name="a line"), slide_layer)


def test_the_view_is_the_box_around_the_canvas(viewer, slide_layer):
    viewer.canvas.size = (200, 400)
    viewer.scene.camera.zoom = 4.0
    viewer.scene.camera.center = slide_layer.data_to_world((99.5, 199.5))
    box = view_box(viewer, slide_layer)
    # 200 canvas pixels at 4 a µm are 50 µm, 100 px of 0.5 µm; 400 are 100 µm, 400 px of 0.25.
    assert np.allclose(box, (50, 0, 150, 400))


def test_a_view_in_other_units_is_the_same_view(viewer, slide_layer):
    viewer.layers.units = ("mm", "mm")
    viewer.canvas.size = (200, 400)
    viewer.scene.camera.zoom = 4000.0
    viewer.scene.camera.center = np.array(slide_layer.data_to_world((99.5, 199.5))) / 1000
    assert np.allclose(view_box(viewer, slide_layer), (50, 0, 150, 400))


def test_no_view_in_3d(viewer, slide_layer):
    viewer.dims.ndisplay = 3
    assert view_box(viewer, slide_layer) is None


def test_the_part_of_a_view_that_lies_on_the_slide():
    assert on_slide((-10, 20, 50, 900), (400, 600)) == (0, 20, 50, 600)
    assert on_slide((-10, 700, 50, 900), (400, 600)) is None
