"""The dock: what it offers, what it starts, and what it shows of a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from live import SLOW, Failing, Slow, add_slide, tissue_slide, wait_over, wait_shown
from napari.utils._proxies import PublicOnlyProxy

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.models import BUILTIN
from napari_wsi_heatmap.settings import RunSettings
from napari_wsi_heatmap.show import register_model


@pytest.fixture
def dock(qtbot, viewer):
    """A shown dock over a viewer without a window, torch imported."""
    dock = widget_module.HeatmapWidget(PublicOnlyProxy(viewer))
    for name in ("inserted", "removed", "reordered"):
        getattr(viewer.layers.events, name).connect(dock.reset_choices)
    qtbot.addWidget(dock.native)
    dock.show()
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: dock._form._window.value != "")
    yield dock
    job = JOBS.running(viewer)
    if job is not None:
        job.cancel()
        wait_over(qtbot, job)


@pytest.fixture
def registered():
    """Offer models in the dock during a test."""
    names = []

    def register(name, model):
        names.append(name)
        register_model(name, model)

    yield register
    for name in names:
        MODELS.unregister(name)


def buttons(dock):
    panel = dock._panel
    return panel._run.enabled, panel._pause.enabled, panel._cancel.enabled


def run(dock, viewer):
    """Press Run; the job."""
    dock._panel._run.native.click()
    job = JOBS.running(viewer)
    assert job is not None
    return job


def test_without_a_slide_it_says_how_to_get_one(dock):
    assert "Drop a slide" in dock._panel._notice.value
    assert buttons(dock) == (False, False, False)


def test_it_says_what_it_cannot_use_and_why(dock, viewer):
    viewer.add_image(np.zeros((9, 9)), name="grey")
    assert dock._panel._notice.value.endswith("grey: it is not an RGB image.")
    assert not dock._panel._run.enabled


def test_it_follows_the_layers(dock, viewer):
    layer = add_slide(viewer, tissue_slide())
    assert dock._form.slide_layer is layer
    assert buttons(dock) == (True, False, False)
    viewer.add_shapes([[[0, 0], [0, 9], [9, 9]]], shape_type="polygon", name="roi")
    assert "in roi" in [text for text, _ in dock._form._region._widget._mgui_get_choices()]
    viewer.layers.remove(layer)
    assert dock._form.slide_layer is None


@pytest.mark.parametrize("name", BUILTIN)
def test_fields_say_what_the_model_wants(dock, viewer, name):
    add_slide(viewer, tissue_slide())
    model = wh.load_model(name)
    dock._form._model.value = name
    settings = dock._form.settings()
    assert settings["window"] == model.window[0]
    assert settings["mpp"] == model.mpp
    assert settings["level"] is None
    assert dock._form._about.value == BUILTIN[name]


def test_defaults_are_those_of_a_script(dock, viewer):
    add_slide(viewer, tissue_slide())
    chosen, defaults = dock._form.settings(), RunSettings()
    for name in ("stride", "tissue", "device", "roi"):
        assert chosen[name] == getattr(defaults, name)


def test_what_the_user_typed_stays_until_another_model_is_chosen(dock, viewer):
    add_slide(viewer, tissue_slide())
    dock._form._window.value, dock._form._stride.value = "100 x 50", "20"
    viewer.add_labels(np.zeros((9, 9), int))
    settings = dock._form.settings()
    assert (settings["window"], settings["stride"]) == ((100, 50), 20)
    dock._form._model.value = "nuclei"
    assert dock._form._window.value == "128"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("_window", "big"),
        ("_stride", "1 x 2 x 3"),
        ("_mpp", "half"),
        ("_window", "0"),
        ("_mpp", "-1"),
    ],
)
def test_a_number_that_cannot_be_is_told(dock, viewer, notifications, field, text):
    add_slide(viewer, tissue_slide())
    getattr(dock._form, field).value = text
    dock._panel._run.native.click()
    assert JOBS.running(viewer) is None
    assert text in notifications()[-1]
    assert text in dock._panel._notice.value
    assert buttons(dock) == (True, False, False)


def test_a_slide_without_mpp_gets_a_level(dock, viewer):
    add_slide(viewer, tissue_slide(mpp=None))
    assert "no µm per pixel" in dock._panel._notice.value
    settings = dock._form.settings()
    assert (settings["mpp"], settings["level"]) == (None, 0)
    run(dock, viewer).wait()


def test_a_run_from_the_dock_is_the_run_of_a_script(dock, viewer, tmp_path):
    slide = tissue_slide()
    add_slide(viewer, slide)
    dock._form._model.value, dock._form._stride.value = "eosin", "32"
    dock._form._out.value = tmp_path
    job = run(dock, viewer)
    assert buttons(dock) == (False, True, True)
    heatmap = job.wait()
    scripted = wh.compute_heatmap(slide, "eosin", stride=32, progress=False)
    assert np.array_equal(heatmap.values, scripted.values, equal_nan=True)
    assert buttons(dock) == (True, False, False)
    assert dock._panel._line.value == job.line
    assert heatmap.path == tmp_path / "pink-eosin.zarr"
    saved = wh.open_heatmap(heatmap.path)
    assert np.array_equal(saved.values, heatmap.values, equal_nan=True)


def test_the_dock_shows_how_far_it_is(dock, viewer, qtbot):
    add_slide(viewer, tissue_slide())
    job = start_job(viewer, viewer.layers[0], Slow(), **SLOW)
    wait_shown(qtbot, job)
    panel = dock._panel
    qtbot.waitUntil(lambda: "windows/s" in panel._line.value)
    assert " of 3,750 windows, " in panel._line.value
    assert panel._line.value.endswith(" left")
    qtbot.waitUntil(lambda: 0 < panel._bar.value < panel._bar.max)
    assert panel._colors.visible
    panel._pause.native.click()
    assert panel._pause.text == "Resume"
    assert panel._line.value.endswith("; paused")
    panel._pause.native.click()
    assert (panel._pause.text, job.state) == ("Pause", "running")
    panel._cancel.native.click()
    assert buttons(dock) == (False, False, False)
    wait_over(qtbot, job)
    assert buttons(dock) == (True, False, False)
    assert panel._line.value.startswith("cancelled: ")


def test_a_dock_that_is_opened_again_shows_the_run(dock, viewer, qtbot):
    add_slide(viewer, tissue_slide())
    first = widget_module.HeatmapWidget(viewer)
    first.show()
    job = start_job(viewer, viewer.layers[0], Slow(), **SLOW)
    wait_shown(qtbot, job)
    first.native.deleteLater()
    with qtbot.waitSignal(first.native.destroyed):
        first.close()
    before = job.progress.done
    qtbot.waitUntil(lambda: job.progress.done > before)
    again = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(again.native)
    qtbot.waitUntil(lambda: "windows" in again._panel._line.value)
    assert buttons(again) == (False, True, True)
    again._panel._cancel.native.click()
    wait_over(qtbot, job)
    assert buttons(again) == (True, False, False)
    third = widget_module.HeatmapWidget(viewer)  # also when the run is over
    qtbot.addWidget(third.native)
    assert third._panel._line.value == job.line


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), torch.OutOfMemoryError("full")])
def test_an_error_is_told_once_and_the_buttons_come_back(
    dock, viewer, qtbot, registered, notifications, error
):
    registered("failing", Failing(error))
    add_slide(viewer, tissue_slide())
    dock._form._model.value = "failing"
    dock._form._window.value = "8"
    job = run(dock, viewer)
    wait_over(qtbot, job)
    assert len([text for text in notifications() if str(error) in text]) == 1
    assert buttons(dock) == (True, False, False)
    assert str(error) in dock._panel._line.value


def test_a_model_from_the_console_is_offered(dock, viewer, registered):
    add_slide(viewer, tissue_slide())
    registered("mine", wh.load_model(lambda batch: batch.mean((2, 3)), window=(16, 32), mpp=1.0))
    assert "mine" in dock._form._model.choices
    dock._form._model.value = "mine"
    assert dock._form.settings()["window"] == (16, 32)
    assert run(dock, viewer).wait().names == ("0", "1", "2")
    shows = dock._shows
    assert shows._row.visible
    assert shows._shows.choices == (0, 1, 2, "most likely class")
    shows._shows.value = 2
    layer = viewer.layers["mine: 2"]
    assert np.array_equal(layer.data, layer.metadata["heatmap"].values[2], equal_nan=True)


def test_a_model_without_mpp_gets_a_level(dock, viewer, registered):
    add_slide(viewer, tissue_slide())
    registered("plain", lambda batch: batch.mean((1, 2, 3)))
    dock._form._model.value = "plain"
    settings = dock._form.settings()
    assert (settings["mpp"], settings["level"], settings["window"]) == (None, 0, 224)
    dock._form._model.value = "tissue"
    assert dock._form.settings()["mpp"] == 0.5


def test_regions(dock, viewer):
    layer = add_slide(viewer, tissue_slide())
    assert dock._form.settings()["roi"] is None
    viewer.canvas.size = (100, 200)
    viewer.scene.camera.zoom = 2.0
    viewer.scene.camera.center = layer.data_to_world((199.5, 299.5))
    dock._form._region.value = "current view"
    assert np.allclose(dock._form.settings()["roi"], (150, 200, 250, 400))
    corners = [layer.data_to_world(p) for p in [(9.5, 9.5), (9.5, 99.5), (99.5, 99.5), (99.5, 9.5)]]
    shapes = viewer.add_shapes([corners], shape_type="rectangle", units=("um", "um"))
    dock._form._region.value = shapes
    (polygon,) = dock._form.settings()["roi"]
    assert np.allclose(polygon, [(10, 10), (10, 100), (100, 100), (100, 10)])


def test_a_view_of_nothing_is_told(dock, viewer, notifications):
    layer = add_slide(viewer, tissue_slide())
    viewer.scene.camera.zoom = 100.0
    viewer.scene.camera.center = layer.data_to_world((-5000, -5000))
    dock._form._region.value = "current view"
    dock._panel._run.native.click()
    assert JOBS.running(viewer) is None
    assert "the view shows nothing of the slide" in notifications()[-1]
    assert dock._panel._run.enabled


@pytest.mark.parametrize(
    ("typed", "store"),
    [("", None), ("out", "out/pink-hematoxylin.zarr"), ("a.zarr", "a.zarr")],
)
def test_where_it_is_saved(dock, viewer, tmp_path, typed, store):
    add_slide(viewer, tissue_slide())
    dock._form._out.line_edit.value = str(tmp_path / typed) if typed else ""
    wanted = None if store is None else tmp_path / store
    assert dock._form.settings()["out"] == wanted


def test_a_run_over_a_layer_of_another_reader(dock, viewer):
    pixels = tissue_slide().read_region(0, 0, 0, 400, 600)
    viewer.add_image(pixels, rgb=True, scale=(0.5, 0.5), units=("um", "um"), name="rgb")
    heatmap = run(dock, viewer).wait()
    scripted = wh.compute_heatmap(tissue_slide(), "hematoxylin", progress=False)
    assert np.array_equal(heatmap.values, scripted.values, equal_nan=True)


def test_the_dock_holds_no_tensor(dock, viewer):
    add_slide(viewer, tissue_slide())
    run(dock, viewer).wait()
    held = [*vars(dock).values(), *vars(dock._form).values(), *vars(dock._panel).values()]
    assert not any(isinstance(value, (torch.Tensor, torch.nn.Module)) for value in held)
