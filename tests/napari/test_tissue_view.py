"""The tissue of a slide as a layer: where it lies, what it says, painting on it."""

from __future__ import annotations

import numpy as np
import pytest
from live import add_slide, wait_over
from napari.layers import Labels

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.marked_tissue import painted_mask
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, state_of

TOP, LEFT, BOTTOM, RIGHT = 128, 192, 320, 448


def spotted():
    """White glass with one box of pink noise."""
    pixels = np.full((512, 640, 3), 243, np.uint8)
    noise = np.random.default_rng(1).integers(60, 120, (BOTTOM - TOP, RIGHT - LEFT, 3), np.uint8)
    pixels[TOP:BOTTOM, LEFT:RIGHT] = noise + np.array([100, 0, 0], np.uint8)
    return ArraySlide([pixels], mpp=2.0, name="spotted")


@pytest.fixture
def slide_layer(viewer):
    return add_slide(viewer, spotted())


@pytest.fixture
def dock(qtbot, viewer, slide_layer):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    for name in ("inserted", "removed"):
        getattr(viewer.layers.events, name).connect(dock.reset_choices)
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: dock._form._window.value != "")
    dock._form._window.value, dock._form._mpp.value = "64", "2"
    return dock


def shown(viewer, qtbot, dock, number=1):
    dock._tissue.native.click()
    qtbot.waitUntil(lambda: len(labels_of(viewer)) == number, timeout=30_000)
    return labels_of(viewer)[-1]


def labels_of(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


@pytest.mark.parametrize("rule", ["otsu", "variance", "variance2"])
def test_the_mask_lies_on_the_tissue(rule, dock, viewer, slide_layer, qtbot):
    dock._form._tissue.value = rule
    layer = shown(viewer, qtbot, dock)
    assert f"tissue ({rule} " in layer.name
    assert layer.units == slide_layer.units
    mask = painted_mask(layer, slide_layer)
    down = 512 / mask.shape[0]
    y, x = np.nonzero(mask)
    box = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1]) * down
    assert box == pytest.approx([TOP, LEFT, BOTTOM, RIGHT], abs=down + 1)
    assert mask.sum() * down**2 == pytest.approx((BOTTOM - TOP) * (RIGHT - LEFT), rel=0.1)


def test_it_is_told_where_everything_counts(dock, viewer, qtbot, notifications):
    dock._form._tissue.value = "none"
    dock._tissue.native.click()
    qtbot.waitUntil(lambda: bool(notifications()), timeout=30_000)
    assert "every window counts as tissue" in notifications()[-1]
    assert labels_of(viewer) == []


def test_an_error_is_told(dock, viewer, qtbot, notifications):
    dock._form._window.value = "much"
    dock._tissue.native.click()
    assert "give whole pixels" in notifications()[-1]
    dock._form._window.value, dock._form._mpp.value = "64", "1e9"
    dock._tissue.native.click()
    qtbot.waitUntil(lambda: "cannot be shown" in notifications()[-1], timeout=30_000)


def test_what_is_shown_can_be_painted_on_and_run(dock, viewer, slide_layer, qtbot):
    dock._form._tissue.value = "variance2"
    layer = shown(viewer, qtbot, dock)
    layer.data[-1] = 5
    dock._form._tissue.value = layer
    dock._form._model.value = "hematoxylin"
    dock._form._window.value, dock._form._mpp.value = "64", "2"
    dock._panel._run.native.click()
    job = JOBS.running(viewer)
    wait_over(qtbot, job)
    states = state_of(job.heatmap.state)
    expected = wh.tissue_windows(spotted(), 64, tissue="variance2") // 64
    computed = np.zeros(states.shape, bool)
    computed[tuple(expected.T)] = True
    computed[-1] = True
    np.testing.assert_array_equal(states == DONE, computed)


def test_an_older_one_is_hidden_not_lost(dock, viewer, qtbot):
    first = shown(viewer, qtbot, dock)
    dock._form._tissue.value = "variance"
    second = shown(viewer, qtbot, dock, number=2)
    assert (first.visible, second.visible) == (False, True)


def test_a_run_can_be_cancelled_while_it_looks_for_tissue(viewer, qtbot, notifications):
    jobs = []

    def read(level, y, x, height, width):
        if jobs and height * width > 1000**2:
            jobs[0].cancel()
        return np.full((height, width, 3), 240, np.uint8)

    layer = add_slide(viewer, ArraySlide.from_callable(read, [(9000, 9000)], name="large"))
    job = start_job(viewer, layer, "focus", level=0, window=64, tissue="variance2")
    jobs.append(job)
    wait_over(qtbot, job)
    assert job.state == "cancelled"
    assert not any("cancel" in told or "tissue" in told for told in notifications())
