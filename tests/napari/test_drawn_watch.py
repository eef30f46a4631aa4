"""What somebody draws during a run: noticed once, whole, and computed before all else."""

from __future__ import annotations

import numpy as np
import pytest
from live import Slow, add_slide, no_worker_left, tissue_slide, wait_over, wait_shown

from napari_wsi_heatmap._napari.drawn_watch import DrawnWatch
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap._napari.viewer_watch import ViewerWatch
from napari_wsi_heatmap.slides.array import ArraySlide

BOX = np.array([(40.0, 100.0), (40.0, 300.0), (160.0, 300.0), (160.0, 100.0)])
"""Level-0 pixels."""


@pytest.fixture
def slide_layer(viewer):
    return add_slide(viewer, tissue_slide())


@pytest.fixture
def watch(viewer, slide_layer):
    watching = DrawnWatch(slide_layer)
    watching.begin(viewer)
    yield watching
    watching.leave(viewer)


def on(slide_layer, points):
    """World coordinates of level-0 pixel borders."""
    return np.array([slide_layer.data_to_world(point - 0.5) for point in np.asarray(points)])


def test_a_new_layer_with_shapes_counts_once(viewer, slide_layer, watch):
    shapes = [on(slide_layer, BOX), on(slide_layer, BOX + 50)]
    viewer.add_shapes(shapes, shape_type="rectangle", units=("um", "um"))
    taken = watch.take()
    assert np.allclose(taken, [BOX, BOX + 50])
    assert watch.take() == []


def test_only_what_is_new_in_a_layer_counts(viewer, slide_layer):
    layer = viewer.add_shapes([on(slide_layer, BOX)], shape_type="polygon", units=("um", "um"))
    watch = DrawnWatch(slide_layer)
    watch.begin(viewer)
    assert watch.take() == []
    layer.add_polygons(on(slide_layer, BOX + 20))
    layer.add_lines(on(slide_layer, BOX[:2]))
    assert np.allclose(watch.take(), [BOX + 20])
    layer.data = [on(slide_layer, BOX), on(slide_layer, BOX + 70)]
    assert np.allclose(watch.take(), [BOX + 70])
    layer.selected_data = {0}
    layer.remove_selected()
    assert watch.take() == []
    watch.leave(viewer)
    layer.add_polygons(on(slide_layer, BOX + 9))
    assert watch.take() == []


def test_lines_alone_are_no_region(viewer, slide_layer, watch):
    viewer.add_shapes([on(slide_layer, BOX[:2])], shape_type="line")
    assert watch.take() == []


def test_a_layer_that_went_is_forgotten(viewer, slide_layer, watch):
    layer = viewer.add_shapes([on(slide_layer, BOX)], shape_type="polygon")
    viewer.layers.remove(layer)
    assert watch.take() == []
    assert not watch._known


def test_a_shape_beside_the_slide_is_left_out(viewer, slide_layer):
    watch = ViewerWatch(viewer, slide_layer, (400, 600), lambda layer: None)
    watch.begin()
    shapes = [on(slide_layer, BOX), on(slide_layer, BOX + 5000)]
    viewer.add_shapes(shapes, shape_type="polygon", units=("um", "um"))
    assert np.allclose(watch.new_drawing(), [BOX])
    watch.leave()


def test_a_drag_with_the_mouse_counts_when_it_ends(viewer, slide_layer, watch):
    """What napari does for each step of drawing a rectangle."""

    layer = viewer.add_shapes(None, ndim=2, units=("um", "um"), scale=(1, 1))
    layer.mode = "add_rectangle"
    press, *moves = on(slide_layer, BOX)[[0, 1, 2]]
    event = MouseEvent(press)
    drawing = [callback(layer, event) for callback in layer.mouse_drag_callbacks]
    for step in drawing:
        next(step)
    for where in moves:
        event.type, event.position = "mouse_move", where
        for step in drawing:
            next(step)
        assert watch.take() == []
    event.type = "mouse_release"
    for step in drawing:
        assert next(step, None) is None
    (drawn,) = watch.take()
    assert np.allclose([drawn.min(0), drawn.max(0)], [BOX.min(0), BOX.max(0)], atol=1)


class MouseEvent:
    """As much of napari's as drawing looks at."""

    def __init__(self, position):
        self.type, self.position = "mouse_press", position
        self.pos = np.array(position)
        self.modifiers, self.button = (), 1
        self.dims_displayed, self.dims_point = [0, 1], (0, 0)
        self.view_direction = self.up_direction = None
        self.is_dragging = True


def large_slide():
    def read(level, y, x, height, width):
        return np.full((height, width, 3), 100, np.uint8)

    return ArraySlide.from_callable(read, [(30_000, 30_000)], mpp=0.5, name="large")


@pytest.fixture
def slow_run(qtbot, viewer):
    """A run of minutes over a large slide, its view away from everything."""
    layer = add_slide(viewer, large_slide())
    viewer.canvas.size = (100, 100)
    viewer.scene.camera.zoom = 0.2
    viewer.scene.camera.center = layer.data_to_world((1000, 1000))
    settings = {"tissue": "none", "batch_size": 8, "window": 100, "readers": 1}
    job = start_job(viewer, layer, Slow(0.01), **settings)
    wait_shown(qtbot, job)
    yield job
    job.cancel()
    wait_over(qtbot, job)
    qtbot.waitUntil(no_worker_left)


LARGE = np.array([(9000.0, 9000.0), (9000, 29_000), (29_000, 29_000), (29_000, 9000)])


def test_a_region_larger_than_a_block_is_next_and_panning_does_not_end_it(qtbot, viewer, slow_run):
    corners = on(slow_run.slide_layer, LARGE)
    viewer.add_shapes([corners], shape_type="polygon", units=("um", "um"))

    def counts():
        """Windows that are done inside, and outside."""
        done = np.isfinite(slow_run.heatmap.values[0])
        inside = int(done[90:290, 90:290].sum())
        return inside, int(done.sum()) - inside

    before, _ = counts()
    qtbot.waitUntil(lambda: counts()[0] > before + 400, timeout=60_000)
    inside, outside = counts()
    viewer.scene.camera.center = slow_run.slide_layer.data_to_world((2000, 25_000))
    qtbot.waitUntil(lambda: counts()[0] > inside + 1000, timeout=60_000)
    assert counts()[1] <= outside + 2 * 8  # the rest of a batch that was begun
