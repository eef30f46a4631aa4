"""Two panes, one camera: the slide with its heatmap, and the slide alone."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from live import needs_display
from napari.components import ViewerModel
from napari.components.camera import Camera

import napari_wsi_heatmap as wh
from made import mean_rgb
from napari_wsi_heatmap._napari import shown, view
from napari_wsi_heatmap._napari.linked_cameras import LinkedCameras

QUIET = {"tissue": "none", "progress": False}


def test_cameras_follow_each_other():
    first, second = Camera(center=(0, 30, 40), zoom=3), Camera()
    link = LinkedCameras(first, second)
    assert (second.center, second.zoom) == ((0, 30, 40), 3)
    second.zoom = 5
    assert first.zoom == 5
    first.center = (0, 1, 2)
    assert second.center == (0, 1, 2)
    link.leave()
    first.zoom = 9
    assert second.zoom == 5
    link.leave()


def test_cameras_do_not_chase_each_other():
    """A camera that changes what it is told, as one with limits does, ends the matter."""
    first, second = Camera(), Camera()
    link = LinkedCameras(first, second)
    heard = []

    def limited(event):
        heard.append(second.zoom)
        if second.zoom > 4:
            second.zoom = 4

    second.events.zoom.connect(limited)
    first.zoom = 10
    assert heard == [10, 4]
    assert (first.zoom, second.zoom) == (10, 4)
    link.leave()


def test_a_link_keeps_no_viewer_alive():
    one, two = ViewerModel(), ViewerModel()
    link = LinkedCameras(one.scene.camera, two.scene.camera)
    gone = weakref.ref(two)
    link.leave()
    del two, link
    gc.collect()
    assert gone() is None


@pytest.fixture
def beside(make_napari_viewer, qtbot, slide_file):
    """A viewer with a slide and a heatmap, and the slide's pane beside it."""
    from napari_wsi_heatmap._napari.side_by_side import show_beside

    heatmap = wh.compute_heatmap(slide_file, mean_rgb, window=100, **QUIET)
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 800)
    with wh.open_slide(slide_file) as slide:
        layers = view.show(viewer, slide, heatmap)
        pane = show_beside(viewer, layers[0])
        qtbot.waitUntil(lambda: _laid_out(viewer, pane), timeout=20_000)
        qtbot.wait(100)
        yield viewer, pane, layers
        pane.close()


def _laid_out(viewer, pane):
    one, two = viewer.window._qt_viewer.canvas.native, pane.pane.canvas.native
    return two.width() > 200 and abs(one.width() - two.width()) < 80


def shot(pane):
    """(H, W, 3) of a canvas as it is drawn."""
    return pane.screenshot(flash=False)[..., :3]


@pytest.mark.gl
@needs_display
def test_both_panes_show_the_same_place(beside, qtbot):
    viewer, pane, layers = beside
    for layer in layers[1:]:
        layer.visible = False
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 300, 250), 2.3
    qtbot.wait(100)
    assert pane.model.scene.camera.center == (0, 300, 250)
    one, two = _same_part(shot(viewer.window._qt_viewer), shot(pane.pane))
    assert one.std() > 20
    apart = np.abs(one.astype(int) - two).mean()
    assert apart < 0.25 * np.abs(one.astype(int) - one[::-1]).mean()
    # and the other way round, with what the mouse does
    pane.model.scene.camera.zoom *= 2
    qtbot.wait(100)
    assert viewer.scene.camera.zoom == pane.model.scene.camera.zoom == 4.6
    _check_layers_are_apart(viewer, pane, layers, qtbot)
    _check_what_is_followed(viewer, pane, layers)


def _same_part(one, two):
    """The middle of two pictures, as far as both reach; canvases differ by the dock's title."""
    shape = [min(a, b) // 2 * 2 - 100 for a, b in zip(one.shape[:2], two.shape[:2], strict=True)]
    parts = []
    for picture in (one, two):
        top, left = ((n - m) // 2 for n, m in zip(picture.shape[:2], shape, strict=True))
        parts.append(picture[top : top + shape[0], left : left + shape[1]])
    return parts


def _check_layers_are_apart(viewer, pane, layers, qtbot):
    before = shot(pane.pane)
    layers[0].visible = False
    layers[1].opacity = 0.9
    qtbot.wait(100)
    assert pane.layer.visible
    assert [layer.name for layer in pane.model.layers] == [layers[0].name]
    np.testing.assert_array_equal(shot(pane.pane), before)


def _check_what_is_followed(viewer, pane, layers):
    layers[0].translate, layers[0].scale = (7, 9), (0.25, 0.25)
    np.testing.assert_array_equal(pane.layer.translate, (7, 9))
    np.testing.assert_array_equal(pane.layer.scale, (0.25, 0.25))
    found = []
    pyramid = layers[0].metadata["pyramid"]
    shown.in_viewers(lambda viewer, layer: found.append(id(layer)), weakref.ref(pyramid))
    assert set(found) == {id(layers[0]), id(pane.layer)}
    from napari_wsi_heatmap._napari.side_by_side import show_beside

    assert show_beside(viewer, layers[0]) is pane


@pytest.mark.gl
@needs_display
def test_closed_by_its_cross(beside, qtbot):
    viewer, pane, layers = beside
    dock = pane.pane.parent()
    dock.destroyOnClose()
    qtbot.waitUntil(lambda: pane.closed, timeout=5000)
    zoom = pane.model.scene.camera.zoom
    viewer.scene.camera.zoom *= 3
    layers[0].translate = (1, 1)
    assert pane.model.scene.camera.zoom == zoom
    assert pane.model not in shown.also
    assert dock not in viewer.window._wrapped_dock_widgets.values()
    pane.close()


@pytest.mark.gl
@needs_display
def test_goes_with_the_window(beside, qtbot):
    viewer, pane, _ = beside
    viewer.close()
    qtbot.waitUntil(lambda: pane.closed, timeout=5000)
    assert pane.pane is None
