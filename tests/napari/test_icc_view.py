"""Colours by the ICC profile in the viewer: what is drawn changes, what a model gets does not."""

from __future__ import annotations

import numpy as np
import pytest
from associating import Labelled
from live import add_slide, needs_display, wait_over

import napari_wsi_heatmap as wh
from made_slides import SWAPPED, noise, red_for_blue, strided, write_tiff
from napari_wsi_heatmap._napari import slide_layer
from napari_wsi_heatmap._napari.icc_view import OTHER, toggle
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap._napari.widget import HeatmapWidget
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.progressive import ProgressiveArray
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.array import ArraySlide

PLUGIN = "napari-wsi-heatmap"
LEVELS = strided(noise(1500, 1300), 4)
CONVERTED = f"sRGB by the ICC profile {SWAPPED} (perceptual)"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A slide whose profile says that red is blue."""
    return str(write_tiff(tmp_path_factory.mktemp("icc") / "a.tif", LEVELS, icc=red_for_blue()))


@pytest.fixture
def layer(viewer, path):
    (layer,) = viewer.open(path, plugin=PLUGIN)
    return layer


@pytest.fixture
def switch(qtbot, viewer, notifications):
    """Use the command, and wait until something is told; give what."""

    def switching():
        told = len(notifications())
        toggle(viewer)
        qtbot.waitUntil(lambda: len(notifications()) > told)
        return notifications()[-1]

    return switching


def seen(layer):
    return [np.asarray(level) for level in layer.data]


def test_all_levels_are_drawn_in_srgb_and_as_stored_again(layer, switch):
    before, slide = seen(layer), layer.metadata["slide"]
    assert switch() == f"a.tif is shown in {CONVERTED}; models still get it as stored."
    assert [level.shape for level in layer.data] == [level.shape for level in before]
    with open_slide(slide.path, icc=True) as converted:
        for planned, data in zip(layer.metadata["pyramid"].plan, layer.data, strict=True):
            if planned.stored is not None:
                want = converted.read_region(planned.stored, 0, 0, *planned.shape)
                np.testing.assert_array_equal(np.asarray(data), want)
    assert switch() == "a.tif is shown as stored."
    for now, then in zip(seen(layer), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert switch() == f"a.tif is shown in {CONVERTED}; models still get it as stored."
    np.testing.assert_array_equal(np.asarray(layer.data[0]), LEVELS[0][..., ::-1])


def test_what_is_on_the_canvas_and_the_thumbnail_change(layer, switch):
    drawn, small = layer._slice.image.view.copy(), layer.thumbnail.copy()
    switch()
    np.testing.assert_array_equal(layer._slice.image.view, drawn[..., ::-1])
    assert abs(layer.thumbnail[..., :3].astype(int) - small[..., 2::-1]).max() <= 1


def test_camera_contrast_and_level_stay(viewer, layer, switch):
    layer.contrast_limits, layer.opacity, layer.name = (20, 180), 0.7, "mine"
    viewer.scene.camera.zoom, viewer.scene.camera.center = 3.0, (0, 70, 80)
    layer.locked_data_level = 1
    for _ in range(2):
        assert switch().startswith("mine is shown ")
        assert tuple(layer.contrast_limits) == (20, 180)
        assert (layer.opacity, layer.locked_data_level) == (0.7, 1)
        assert viewer.scene.camera.zoom == 3.0
        assert viewer.scene.camera.center == (0, 70, 80)
        assert layer.scale.tolist() == [0.25, 0.25]


def test_the_slide_of_the_layer_stays_the_one_as_stored(layer, switch):
    slide = layer.metadata["slide"]
    switch()
    assert layer.metadata["slide"] is slide
    assert source_of(layer).open() is slide
    assert slide.colours == "as stored"


@pytest.mark.parametrize("icc", [False, True])
def test_a_run_gets_what_it_asks_for_whatever_is_shown(viewer, layer, switch, qtbot, icc):
    switch()
    options = {"window": 100, "level": 0, "tissue": "none", "batch_size": 4}
    job = wh.show_heatmap(viewer, layer, lambda batch: batch.mean((2, 3)), icc=icc, **options)
    wait_over(qtbot, job)
    corner = LEVELS[0][:100, :100, ::-1] if icc else LEVELS[0][:100, :100]
    assert job.heatmap.values[:, 0, 0] * 255 == pytest.approx(corner.mean((0, 1)), abs=0.01)
    assert job.heatmap.run["slide"]["colours"] == (CONVERTED if icc else "as stored")
    np.testing.assert_array_equal(np.asarray(layer.data[0]), LEVELS[0][..., ::-1])


def test_it_is_read_in_a_thread_before_it_is_drawn(viewer, qtbot):
    threads = []

    class Watched(Labelled):
        def _read(self, *box):
            import threading

            threads.append(threading.current_thread() is threading.main_thread())
            return super()._read(*box)

    slide = ArraySlide(strided(noise(3000, 2000), 4), mpp=0.5, name="a")
    layer = add_slide(viewer, Watched(slide, profile=red_for_blue()))
    threads.clear()
    toggle(viewer)
    qtbot.waitUntil(lambda: OTHER in layer.metadata)
    assert threads
    assert not any(threads)


def test_asked_for_twice_at_once_it_is_done_once(viewer, layer, qtbot, notifications):
    toggle(viewer)
    toggle(viewer)
    qtbot.waitUntil(lambda: bool(notifications()))
    qtbot.wait(200)
    assert len(notifications()) == 1
    assert layer.metadata["pyramid"].slide.colours == CONVERTED


def test_without_a_profile_nothing_changes_and_it_is_said(viewer, plain_slide_file, switch):
    (layer,) = viewer.open(plain_slide_file, plugin=PLUGIN)
    data = layer.data
    assert switch() == "plain.tif: no ICC profile: colours as stored"
    assert layer.data is data
    assert OTHER not in layer.metadata


def test_a_profile_that_cannot_be_read_is_one_line(viewer, switch):
    add_slide(viewer, Labelled(profile=SlideReadError("gone", "a.svs")))
    assert switch() == "a: its ICC profile cannot be applied: gone - a.svs"


def test_a_slide_that_was_opened_in_srgb_stays_so(viewer, path, switch):
    layer = add_slide(viewer, open_slide(path, icc=True))
    assert switch() == f"a.tif was opened as {CONVERTED}."
    np.testing.assert_array_equal(np.asarray(layer.data[0]), LEVELS[0][..., ::-1])


def test_without_a_slide_it_says_what_to_do(viewer, switch):
    assert "No slide is open" in switch()


def test_a_slide_without_small_levels_fills_them_in_srgb(viewer, qtbot, switch):
    pixels = np.empty((6000, 5000, 3), np.uint8)
    pixels[:] = (200, 100, 50)
    layer = add_slide(
        viewer, Labelled(ArraySlide([pixels], mpp=0.5, name="a"), profile=red_for_blue())
    )
    switch()
    assert layer.metadata["pyramid"].overview_ready.wait(20)
    colour = [[50, 100, 200]]
    qtbot.waitUntil(
        lambda: np.unique(layer._slice.image.view.reshape(-1, 3), axis=0).tolist() == colour
    )


def test_levels_that_answer_at_once_go_on_doing_so(viewer, path, qtbot, switch, monkeypatch):
    monkeypatch.setattr(slide_layer, "shows_progressively", lambda slide: True)
    (layer,) = viewer.open(path, plugin=PLUGIN)
    for want in (LEVELS[0][..., ::-1], LEVELS[0]):
        switch()
        assert isinstance(layer.data[0], ProgressiveArray)
        exact = layer.metadata["pyramid"].levels[0]
        np.testing.assert_array_equal(np.asarray(exact), want)
        qtbot.waitUntil(
            lambda want=want: np.array_equal(layer.data[0][:300, :400], want[:300, :400])
        )


# the dock


@pytest.fixture
def dock(qtbot, viewer):
    from napari_wsi_heatmap._napari.warm_up import WARM_UP

    dock = HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    dock.show()
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    return dock


def test_the_dock_asks_for_colours_where_there_is_a_profile(viewer, dock, layer, plain_slide_file):
    form = dock._form
    dock.reset_choices()
    assert form._colours.visible
    assert form.settings()["icc"] is False
    form._colours.value = True
    dock.reset_choices()
    assert form.settings()["icc"] is True
    (plain,) = viewer.open(plain_slide_file, plugin=PLUGIN)
    dock.reset_choices()
    assert form.settings()["icc"] is True
    form._slide.value = plain
    assert not form._colours.visible
    assert form.settings()["icc"] is False


# in a window


@pytest.mark.gl
@needs_display
def test_the_command_of_the_menu_changes_the_canvas(make_napari_viewer, qtbot, tmp_path):
    from napari._app_model import get_app_model
    from npe2 import PluginManager

    PluginManager.instance().discover()
    pixels = np.empty((1500, 1300, 3), np.uint8)
    pixels[:] = (200, 100, 50)
    path = write_tiff(tmp_path / "a.tif", [pixels], icc=red_for_blue())
    viewer = make_napari_viewer(show=True)
    viewer.open(str(path), plugin=PLUGIN)
    for colour in ([50, 100, 200], [200, 100, 50]):
        get_app_model().commands.execute_command(f"{PLUGIN}.toggle_icc")
        qtbot.waitUntil(lambda colour=colour: middle_of_screen(viewer) == colour)


def middle_of_screen(viewer):
    picture = viewer.screenshot(canvas_only=True, flash=False)
    return picture[picture.shape[0] // 2, picture.shape[1] // 2, :3].tolist()
