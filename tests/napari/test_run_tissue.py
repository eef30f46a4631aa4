"""Which windows a heatmap was made of, as a layer: after a run, a cancelled one, a saved one."""

from __future__ import annotations

import numpy as np
import pytest
from live import SLOW, Slow, add_slide, tissue_slide, wait_over, wait_shown
from napari.layers import Labels

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.marked_tissue import painted_mask
from napari_wsi_heatmap._napari.run_tissue import chosen_heatmap, show_run_tissue
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap._napari.view import heatmap_layers
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import BACKGROUND, DONE, OUTSIDE, PENDING, state_of

SETTINGS = {"window": 32, "stride": 20, "level": 0, "batch_size": 4, "tissue": "variance"}


def mean_grey(batch):
    return batch.mean((1, 2, 3))


def dense_grey(batch):
    return batch.mean(1, keepdim=True)[:, :, ::4, ::4]


def spotted():
    """White glass with a box of pink noise in the middle."""
    pixels = np.full((400, 600, 3), 243, np.uint8)
    noise = np.random.default_rng(1).integers(60, 120, (200, 220, 3), np.uint8)
    pixels[100:300, 140:360] = noise + np.array([100, 0, 0], np.uint8)
    return ArraySlide([pixels], mpp=2.0, name="spotted")


@pytest.fixture
def slide_layer(viewer):
    return add_slide(viewer, spotted())


def run(viewer, slide_layer, qtbot, model=mean_grey, **settings):
    job = start_job(viewer, slide_layer, model, **SETTINGS | settings)
    wait_over(qtbot, job)
    return job


def shown(viewer):
    show_run_tissue(viewer)
    layer = viewer.layers[-1]
    assert isinstance(layer, Labels)
    return layer


def left_in(states):
    return (state_of(states) != BACKGROUND) & (state_of(states) != OUTSIDE)


def status_at(viewer, layer, y, x):
    viewer.cursor.position = layer.data_to_world((y, x))
    viewer.mouse_over_canvas = True
    return viewer._calc_status_from_cursor()[0]["value"]


def centres(layer, slide_layer, cells):
    """Level-0 pixels of the centres of some cells of a layer."""
    return [slide_layer.world_to_data(layer.data_to_world(cell)) for cell in cells]


@pytest.mark.parametrize("model", [mean_grey, dense_grey])
def test_of_a_finished_run_each_window_lies_where_it_was(model, viewer, slide_layer, qtbot):
    job = run(viewer, slide_layer, qtbot, model, roi=(0, 0, 400, 300))
    layer = shown(viewer)
    states = state_of(job.heatmap.state)
    assert {*np.unique(states)} == {DONE, BACKGROUND, OUTSIDE}
    np.testing.assert_array_equal(layer.data != 0, states == DONE)
    cells = np.argwhere(states == DONE)
    expected = job.heatmap.centres[states == DONE]
    np.testing.assert_allclose(centres(layer, slide_layer, cells), expected, atol=1e-6)
    assert layer.units == slide_layer.units
    assert viewer.layers.selection.active is layer
    said = [
        status_at(viewer, layer, *np.argwhere(states == s)[0]) for s in (DONE, BACKGROUND, OUTSIDE)
    ]
    assert said == ["1; done", "0; left out as background", "0; outside the region"]


def test_of_a_run_that_was_cancelled_it_is_the_same(viewer, slide_layer, qtbot):
    job = start_job(viewer, slide_layer, Slow(), **SLOW | {"tissue": "variance"})
    wait_shown(qtbot, job)
    job.cancel()
    wait_over(qtbot, job)
    layer = shown(viewer)
    assert PENDING in state_of(job.heatmap.state)
    np.testing.assert_array_equal(layer.data != 0, left_in(job.heatmap.state))
    found = wh.tissue_windows(spotted(), 8, tissue="variance") // 8
    np.testing.assert_array_equal(np.argwhere(layer.data), found)


def test_of_a_heatmap_that_is_opened_again(viewer, slide_layer, tmp_path):
    out = tmp_path / "a.zarr"
    wh.compute_heatmap(spotted(), mean_grey, out=out, progress=False, **SETTINGS)
    (heatmap_layer,) = heatmap_layers(wh.open_heatmap(out), slide_layer)
    viewer.add_layer(heatmap_layer)
    layer = shown(viewer)
    assert layer.name == "mean_grey tissue"
    np.testing.assert_array_equal(layer.data != 0, left_in(wh.open_heatmap(out).state))
    np.testing.assert_allclose(layer.scale, heatmap_layer.scale)
    np.testing.assert_allclose(layer.translate, heatmap_layer.translate)


def test_a_run_within_it_computes_the_same_windows(viewer, slide_layer, qtbot):
    first = run(viewer, slide_layer, qtbot, stride=32)
    layer = shown(viewer)
    again = run(viewer, slide_layer, qtbot, stride=32, tissue=layer, tissue_min=0.5)
    np.testing.assert_array_equal(again.heatmap.state, first.heatmap.state)
    assert painted_mask(layer, slide_layer).any()


def test_the_selected_heatmap_is_meant_else_the_topmost(viewer, slide_layer, qtbot):
    jobs = [run(viewer, slide_layer, qtbot, stride=stride) for stride in (20, 32)]
    viewer.layers.selection = {slide_layer}
    assert chosen_heatmap(viewer) is jobs[1].layer
    viewer.layers.selection = {jobs[0].layer}
    assert chosen_heatmap(viewer) is jobs[0].layer


def test_an_older_mask_of_the_slide_is_hidden(viewer, slide_layer, qtbot):
    run(viewer, slide_layer, qtbot)
    first, second = shown(viewer), shown(viewer)
    assert (first.visible, second.visible) == (False, True)


def test_where_no_window_was_left_out_that_is_told(viewer, qtbot, notifications):
    layer = add_slide(viewer, tissue_slide())
    run(viewer, layer, qtbot, tissue="none")
    show_run_tissue(viewer)
    assert "no window was left out" in notifications()[-1]
    assert not any(isinstance(layer, Labels) for layer in viewer.layers)


def test_without_a_heatmap_that_is_told(viewer, slide_layer):
    with pytest.raises(HeatmapError, match="no heatmap in this viewer"):
        show_run_tissue(viewer)


def test_of_a_list_of_windows_nothing_was_left_out(viewer, slide_layer, tmp_path):
    out = tmp_path / "a.zarr"
    wh.predict_windows(spotted(), mean_grey, [(3, 5), (90, 171)], window=32, out=out)
    viewer.add_layer(heatmap_layers(wh.open_heatmap(out), slide_layer)[0])
    with pytest.raises(HeatmapError, match="list of windows"):
        show_run_tissue(viewer)


def test_the_button_waits_for_a_heatmap(viewer, slide_layer, qtbot):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    for name in ("inserted", "removed"):
        getattr(viewer.layers.events, name).connect(dock.reset_choices)
    assert not dock._of_run.enabled
    job = run(viewer, slide_layer, qtbot)
    assert dock._of_run.enabled
    dock._of_run.native.click()
    assert isinstance(viewer.layers[-1], Labels)
    viewer.layers.remove(job.layer)
    assert not dock._of_run.enabled
