"""Live runs in a real napari window: its dock, its ends, its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from live import (
    SLOW,
    Slow,
    add_slide,
    needs_display,
    no_worker_left,
    tissue_slide,
    wait_over,
    wait_shown,
)
from napari.utils import progress

from napari_wsi_heatmap._napari.guarded import bare
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.show import show_heatmap
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.store import read_record

pytestmark = [pytest.mark.gl, needs_display]

PLUGIN = "napari-wsi-heatmap"


@pytest.fixture
def shown(make_napari_viewer_proxy, qtbot):
    """A viewer as plugins get it, with the slide on view."""
    viewer = make_napari_viewer_proxy(show=True)
    add_slide(viewer, tissue_slide())
    yield viewer
    job = JOBS.running(bare(viewer))
    if job is not None:
        job.cancel()
        wait_over(qtbot, job)
    qtbot.waitUntil(no_worker_left)


def open_dock(viewer, qtbot):
    """The plugin's dock, and napari's frame around it."""
    frame, dock = bare(viewer).window.add_plugin_dock_widget(PLUGIN)
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    return frame, dock


def test_run_is_pressed_and_the_map_appears(shown, qtbot):
    _, dock = open_dock(shown, qtbot)
    assert dock._form.slide_layer is bare(shown).layers[0]
    dock._panel._run.native.click()
    job = JOBS.running(bare(shown))
    heatmap = job.wait()
    assert job.state == "done"
    assert [layer.name for layer in shown.layers] == ["pink", "hematoxylin"]
    assert np.isfinite(heatmap.values).all()
    qtbot.waitUntil(lambda: job.layer.colorbar.visible)


@pytest.mark.parametrize("width", [280, 350])
def test_the_dock_fits_its_width(shown, qtbot, width):
    _, dock = open_dock(shown, qtbot)
    show_heatmap(shown, shown.layers[0], "hematoxylin").wait()
    dock.native.resize(width, 900)
    assert dock.native.minimumSizeHint().width() <= width
    for child in (*dock._form, *dock._panel):
        if child.visible:
            assert child.native.width() <= width


def test_closing_the_dock_leaves_the_run_going(shown, qtbot):
    frame, dock = open_dock(shown, qtbot)
    job = show_heatmap(shown, shown.layers[0], Slow(), **SLOW)
    wait_shown(qtbot, job)
    del dock
    frame.destroyOnClose()
    before = job.progress.done
    qtbot.waitUntil(lambda: job.progress.done > before + 20)
    (bar,) = progress._all_instances
    assert bar.desc.startswith("slow on pink")
    qtbot.waitUntil(lambda: bar.n > 0)
    _, again = open_dock(shown, qtbot)
    assert again._panel._cancel.enabled
    again._panel._pause.native.click()
    assert job.state == "paused"
    again._panel._cancel.native.click()
    wait_over(qtbot, job)
    assert again._panel._run.enabled
    assert not progress._all_instances


def test_closing_the_viewer_ends_the_run_and_saves_it(make_napari_viewer, qtbot, tmp_path):
    viewer, out = make_napari_viewer(show=True), tmp_path / "a.zarr"
    open_dock(viewer, qtbot)
    job = show_heatmap(viewer, tissue_slide(), Slow(), out=out, **SLOW)
    wait_shown(qtbot, job)
    viewer.close()
    wait_over(qtbot, job)
    assert read_record(out)["status"] == "paused"
    assert read_record(out)["counts"]["done"] > 0
    qtbot.waitUntil(no_worker_left)
    assert not progress._all_instances


def test_napari_knows_what_runs_when_the_window_is_closed(shown, qtbot):
    job = show_heatmap(shown, shown.layers[0], Slow(), **SLOW)
    wait_shown(qtbot, job)
    manager = bare(shown).window._task_status_manager
    (task,) = manager.get_status()
    assert "slow on pink" in task
    manager.cancel_all()  # what napari does when the user says yes
    wait_over(qtbot, job)
    assert job.state == "cancelled"


def test_a_worker_that_napari_keeps_holds_nothing(shown, qtbot):
    show_heatmap(shown, shown.layers[0], "tissue", tissue="none").wait()
    manager = bare(shown).window._task_status_manager
    (item,) = manager._tasks.values()
    task = item._cancel_callback.__self__._task
    assert task.run is None
    assert not task.maps
    assert not manager.is_busy()


def test_heatmaps_come_and_go(shown, qtbot):
    """Their OpenGL objects must die in their own context, or the next picture kills the process."""
    for _ in range(3):
        job = show_heatmap(shown, shown.layers[0], "tissue", tissue="none")
        job.wait()
        qtbot.waitUntil(lambda job=job: job.layer.colorbar.visible)
        shapes = shown.add_shapes([[[0, 0], [0, 90], [90, 90]]], shape_type="polygon")
        qtbot.wait(100)
        shown.layers.remove(shapes)
        shown.layers.remove(job.layer)
        qtbot.wait(100)
    assert len(shown.layers) == 1


def test_what_is_drawn_lies_on_what_it_was_computed_from(make_napari_viewer, qtbot):
    """White with a dark square: the map is high in the square and nowhere else, on the canvas."""
    pixels = np.full((640, 640, 3), 255, np.uint8)
    pixels[256:384, 128:256] = 0
    viewer = make_napari_viewer(show=True)
    layer = add_slide(viewer, ArraySlide([pixels, pixels[::2, ::2]], mpp=0.5, name="square"))
    viewer.scene.camera.center = layer.data_to_world((319.5, 319.5))
    viewer.scene.camera.zoom = 1.5

    def darkness(batch):
        return 1 - batch.mean((1, 2, 3))

    roi = (0, 0, 640, 320)
    job = show_heatmap(viewer, layer, darkness, window=64, roi=roi, tissue="none", level=0)
    job.wait()
    job.layer.colormap, job.layer.opacity, job.layer.contrast_limits = "red", 1.0, (0, 1)
    job.layer.colorbar.visible = False
    qtbot.wait(700)
    job.layer.colorbar.visible = False
    picture = viewer.screenshot(flash=False)[..., :3].astype(int)
    middle = np.array(picture.shape[:2]) / 2

    def seen(y, x):
        at = (middle + (np.array([y, x]) - 320) * 0.5 * 1.5).astype(int)
        return picture[at[0], at[1]].tolist()

    for inside in [(260, 132), (380, 252), (320, 190)]:
        assert seen(*inside) == [255, 0, 0]
    for beside in [(250, 190), (390, 190), (320, 122), (320, 262)]:
        assert seen(*beside) == [0, 0, 0]
    for not_computed in [(320, 340), (100, 600)]:
        assert seen(*not_computed) == [255, 255, 255]
