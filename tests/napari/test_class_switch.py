"""What of a heatmap is shown: outputs, classes as labels, disagreement; live and saved."""

from __future__ import annotations

import itertools
import json
import threading
import time

import h5py
import numpy as np
import pytest
from live import add_slide, tissue_slide, wait_over, wait_shown
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import export_map, view
from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.class_labels import ClassLabels, color_of, legend_of
from napari_wsi_heatmap._napari.class_switch import (
    CLASSES,
    DISAGREEMENT,
    ClassSwitch,
    entries_of,
    heatmap_layer,
    show_entry,
)
from napari_wsi_heatmap._napari.run_tissue import chosen_heatmap
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap.classes import label_cells
from napari_wsi_heatmap.exports import FORMATS

NAMES = ("tumor", "stroma", "other")
SETTINGS = {"window": 16, "level": 0, "batch_size": 4, "tissue": "none"}


class Classes:
    """Three classes, each the largest somewhere; can be slow, and be held at a batch."""

    window, names = 16, NAMES

    def __init__(self, seconds=0.0, scale=1.0, function=None):
        self.seconds, self._scale, self.free = seconds, scale, threading.Event()
        self.calls = 0
        self._function = function or corners
        self.free.set()

    def __call__(self, batch):
        self.calls += 1
        time.sleep(self.seconds)
        self.free.wait(60)
        return self._scale * self._function(batch)

    def finish(self):
        self.seconds = 0.0
        self.free.set()


def corners(batch):
    corner = batch[:, :, 0, 0]
    return corner - corner.new_tensor([0.4, 0, 0])


def dense_classes(batch):
    """Cells relative to their window: overlapping windows disagree."""
    cells = batch[:, :, ::4, ::4] - batch.mean((2, 3), keepdim=True)
    return cells - batch.new_tensor([0.05, 0, 0])[:, None, None]


@pytest.fixture
def slide_layer(viewer):
    return add_slide(viewer, tissue_slide(96, 128))


@pytest.fixture
def switch(viewer, qtbot):
    switch = ClassSwitch(viewer)
    qtbot.addWidget(switch.native)
    switch.show()
    return switch


def run(viewer, slide_layer, qtbot, model=None, **settings):
    job = start_job(viewer, slide_layer, model or Classes(), **SETTINGS | settings)
    wait_over(qtbot, job)
    return job


def labels_in(viewer):
    return next(layer for layer in viewer.layers if isinstance(layer, Labels))


def status_at(viewer, layer, cell):
    viewer.cursor.position = layer.data_to_world(cell)
    viewer.mouse_over_canvas = True
    return viewer._calc_status_from_cursor()[0]["value"]


def texts(switch):
    return [switch._shows.native.itemText(i) for i in range(switch._shows.native.count())]


def test_outputs_and_classes_are_offered_and_nothing_else(viewer, slide_layer, qtbot, switch):
    assert not switch._row.visible
    run(viewer, slide_layer, qtbot)
    assert switch._row.visible
    assert texts(switch) == [*NAMES, CLASSES]
    assert switch._shows.value == 0


def test_of_one_output_there_is_nothing_to_choose(viewer, slide_layer, qtbot, switch):
    run(viewer, slide_layer, qtbot, lambda batch: batch.mean((1, 2, 3)))
    assert not switch._row.visible


def test_another_output_is_shown_without_running_again(viewer, slide_layer, qtbot, switch):
    model = Classes()
    job = run(viewer, slide_layer, qtbot, model)
    values, calls = job.heatmap.values, model.calls
    for channel in (2, 0, 1):
        switch._shows.value = channel
        np.testing.assert_array_equal(job.layer.data, values[channel])
        assert job.layer.name.endswith(NAMES[channel])
        low, high = job.layer.contrast_limits
        assert values[channel].min() <= low < high <= values[channel].max()
    assert job.layer.metadata["heatmap"].values is values
    assert model.calls == calls > 0


@pytest.mark.parametrize("name", ["dsa", "h5"])
def test_an_export_of_one_output_has_the_one_that_is_shown(
    viewer, slide_layer, qtbot, switch, notifications, tmp_path, name
):
    job = run(viewer, slide_layer, qtbot)
    switch._shows.value = 2
    row = next(row for row in FORMATS if row.name == name)
    path = tmp_path / f"a{row.endings[0]}"
    export_map.write(viewer, job.layer, path, row)
    qtbot.waitUntil(lambda: "was exported" in "".join(notifications()))
    if name == "dsa":
        assert json.loads(path.read_text())["elements"][0]["label"] == {"value": NAMES[2]}
    else:
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["attention_scores"][:, 0], file["values"][:, 2])


def test_a_choice_made_elsewhere_is_seen_here(viewer, slide_layer, qtbot, switch):
    job = run(viewer, slide_layer, qtbot)
    job.channel = 2
    assert switch._shows.value == 2


@pytest.mark.parametrize("model", [Classes, lambda: dense_classes])
def test_classes_are_labels_where_the_heatmap_is(model, viewer, slide_layer, qtbot, switch):
    job = run(viewer, slide_layer, qtbot, model(), stride=8, names=list(NAMES))
    switch._shows.value = CLASSES
    layer = labels_in(viewer)
    expected, names = job.heatmap.classes()
    assert names == NAMES
    np.testing.assert_array_equal(layer.data, expected)
    for attribute in ("scale", "translate", "rotate", "shear"):
        np.testing.assert_array_equal(getattr(layer, attribute), getattr(job.layer, attribute))
    assert (layer.units, layer.axis_labels) == (job.layer.units, job.layer.axis_labels)
    assert (layer.visible, job.layer.visible) == (True, False)
    for label in (1, 2, 3):
        cell = np.argwhere(layer.data == label)[0]
        assert status_at(viewer, layer, cell) == f"{label}; {NAMES[label - 1]}"


def test_labels_follow_a_slide_that_is_moved(viewer, slide_layer, qtbot):
    job = run(viewer, slide_layer, qtbot)
    show_entry(viewer, job.layer, CLASSES)
    slide_layer.translate = (30, 50)
    slide_layer.rotate = 20
    layer = labels_in(viewer)
    for cell in ((0, 0), (3, 5)):
        np.testing.assert_allclose(layer.data_to_world(cell), job.layer.data_to_world(cell))


def test_back_and_forth_there_is_one_labels_layer(viewer, slide_layer, qtbot, switch):
    job = run(viewer, slide_layer, qtbot)
    for what in (CLASSES, 1, CLASSES):
        switch._shows.value = what
    assert [isinstance(layer, Labels) for layer in viewer.layers].count(True) == 1
    assert heatmap_layer(viewer) is job.layer
    assert chosen_heatmap(viewer) is job.layer
    assert switch._shows.value == CLASSES
    switch._shows.value = 2
    assert job.layer.visible
    assert not labels_in(viewer).visible


def held(viewer, slide_layer, qtbot, function, **settings):
    """A run that shows something, and goes on when its model is told to."""
    model = Classes(0.1, function=function)
    job = start_job(viewer, slide_layer, model, **SETTINGS | {"batch_size": 2} | settings)
    wait_shown(qtbot, job)
    model.free.clear()
    return model, job


def test_classes_grow_with_the_run(viewer, slide_layer, qtbot):
    model, job = held(viewer, slide_layer, qtbot, corners)
    show_entry(viewer, job.layer, CLASSES)
    layer, values = labels_in(viewer), job.heatmap.values
    qtbot.waitUntil(lambda: np.array_equal(layer.data, label_cells(values)), timeout=20_000)
    pending = np.isnan(values[0])
    assert pending.any()
    assert (layer.data[pending] == 0).all()
    assert "not computed" in status_at(viewer, layer, np.argwhere(pending)[-1])
    show_entry(viewer, job.layer, 2)
    assert np.shares_memory(job.layer.data, job.layer.metadata["switch"]._shown.values[2])
    model.finish()
    wait_over(qtbot, job)
    np.testing.assert_array_equal(layer.data, job.heatmap.classes().labels)
    assert (layer.data > 0).all()


def test_dense_classes_grow_with_the_run(viewer, slide_layer, qtbot):
    model, job = held(viewer, slide_layer, qtbot, dense_classes, stride=8)
    show_entry(viewer, job.layer, CLASSES)
    layer = labels_in(viewer)
    assert 0 < np.count_nonzero(layer.data) < layer.data.size
    model.finish()
    wait_over(qtbot, job)
    np.testing.assert_array_equal(layer.data, label_cells(job.heatmap.values))


def test_a_labels_layer_that_is_removed_does_not_stop_a_run(viewer, slide_layer, qtbot):
    model, job = held(viewer, slide_layer, qtbot, corners)
    show_entry(viewer, job.layer, CLASSES)
    viewer.layers.remove(labels_in(viewer))
    model.finish()
    wait_over(qtbot, job)
    assert job.state == "done"
    show_entry(viewer, job.layer, CLASSES)
    assert (labels_in(viewer).data > 0).all()


@pytest.fixture
def saved(tmp_path):
    def saving(model=None, **settings):
        out = tmp_path / "a.zarr"
        settings = SETTINGS | {"progress": False} | settings
        wh.compute_heatmap(tissue_slide(96, 128), model or Classes(), out=out, **settings)
        return wh.open_heatmap(out)

    return saving


def test_a_saved_heatmap_is_switched_as_well(viewer, saved, switch):
    heatmap = saved()
    _, layer = view.show(viewer, tissue_slide(96, 128), heatmap)
    assert texts(switch) == [*NAMES, CLASSES]
    switch._shows.value = 1
    np.testing.assert_array_equal(layer.data, heatmap.values[1])
    assert layer.name == "Classes: stroma"
    switch._shows.value = CLASSES
    np.testing.assert_array_equal(labels_in(viewer).data, heatmap.classes().labels)
    switch._shows.value = 0
    assert [one.visible for one in viewer.layers if one.name.startswith("Classes")] == [True, False]


def test_a_name_that_somebody_gave_stays(viewer, saved):
    _, layer = view.show(viewer, tissue_slide(96, 128), saved())
    layer.name = "mine"
    show_entry(viewer, layer, 2)
    assert layer.name == "mine"


def test_uncertainty_has_colours_of_its_own(viewer, slide_layer, qtbot, switch, saved):
    model = {"activation": "softmax", "tta": "flips"}
    job = run(viewer, slide_layer, qtbot, Classes(scale=5.0), **model)
    assert texts(switch) == [*NAMES, "tta_std", "tta_entropy", CLASSES]
    assert tuple(job.layer.contrast_limits) == (0, 1)
    switch._shows.value = 3
    assert job.layer.contrast_limits[1] < 0.6
    switch._shows.value = 0
    assert tuple(job.layer.contrast_limits) == (0, 1)
    viewer.layers.clear()
    layer = view.show(viewer, tissue_slide(96, 128), saved(Classes(scale=5.0), **model))[1]
    assert tuple(layer.contrast_limits) == (0, 1)
    show_entry(viewer, layer, 3)
    assert layer.contrast_limits[1] < 0.6
    assert [text for text, _ in entries_of(layer)][-1] == CLASSES


def test_disagreement_of_a_dense_run_is_a_channel(viewer, slide_layer, qtbot, switch):
    job = run(viewer, slide_layer, qtbot, dense_classes, stride=8, disagreement=True)
    assert texts(switch) == ["0", "1", "2", "disagreement", CLASSES]
    switch._shows.value = 3
    np.testing.assert_array_equal(job.layer.data, job.heatmap.values[3])
    low, high = job.layer.contrast_limits
    assert 0 <= low < high <= job.heatmap.values[3].max()


def test_where_windows_disagree_lies_where_they_overlap(viewer, slide_layer, qtbot, switch):
    job = run(viewer, slide_layer, qtbot, stride=4)
    assert texts(switch) == [*NAMES, CLASSES, DISAGREEMENT]
    switch._shows.value = 1
    switch._shows.value = DISAGREEMENT
    found = job.heatmap.disagreement()
    qtbot.waitUntil(lambda: any("disagreement" in layer.name for layer in viewer.layers))
    layer = next(layer for layer in viewer.layers if "disagreement" in layer.name)
    np.testing.assert_array_equal(layer.data, found.values[1])
    assert not job.layer.visible
    assert switch._shows.value == DISAGREEMENT
    for cell in ((0, 0), (7, 11)):
        level0 = slide_layer.world_to_data(layer.data_to_world(cell))
        np.testing.assert_allclose(level0, np.multiply(cell, 4) + 1.5, atol=1e-6)
    switch._shows.value = DISAGREEMENT
    switch._shows.value = 0
    assert job.layer.visible
    assert not layer.visible


def test_the_legend_names_the_colours_while_they_are_shown(viewer, slide_layer, qtbot, switch):
    run(viewer, slide_layer, qtbot, names=["tumor", "a<b", "other"])
    assert not switch._legend.visible
    switch._shows.value = CLASSES
    assert switch._legend.visible
    assert all(color_of(i) in switch._legend.value for i in range(3))
    assert "a&lt;b" in switch._legend.value
    switch._shows.value = 0
    assert not switch._legend.visible
    assert "…" in legend_of([str(i) for i in range(30)])


def test_colours_are_stable_and_told_apart(viewer, slide_layer, qtbot):
    colors = [color_of(i) for i in range(40)]
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors])
    apart = [np.abs(a - b).max() for a, b in itertools.combinations(rgb, 2)]
    assert min(apart) >= 24
    job = run(viewer, slide_layer, qtbot)
    colormap = ClassLabels(job.layer).layer.colormap
    assert isinstance(colormap, DirectLabelColormap)
    mapped = colormap.map(np.array([0, 1, 2, 3], np.uint8))
    assert mapped[0, 3] == 0
    np.testing.assert_allclose(255 * mapped[1:, :3], rgb[:3], atol=1)


def test_the_heatmap_that_is_selected_is_meant_else_the_topmost(viewer, slide_layer, qtbot, switch):
    jobs = [run(viewer, slide_layer, qtbot, names=list(names)) for names in (NAMES, "abc")]
    viewer.layers.selection = {slide_layer}
    assert texts(switch)[0] == "a"
    viewer.layers.selection = {jobs[0].layer}
    assert texts(switch)[0] == "tumor"
    switch._shows.value = 2
    np.testing.assert_array_equal(jobs[1].layer.data, jobs[1].heatmap.values[0])
    viewer.layers.remove(jobs[0].layer)
    viewer.layers.remove(jobs[1].layer)
    assert not switch._row.visible


def test_the_dock_has_it_and_hands_on_what_is_drawn(viewer, qtbot, slide_layer):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    dock.show()
    assert dock._more.of_model() == {}
    fields = dock._more._outputs
    fields._output.value, fields._activation.value, fields._views.value = " 1 ", "softmax", "flips"
    assert dock._more.of_model() == {"output": 1, "activation": "softmax", "tta": "flips"}
    fields._output.value = "tumor"
    job = run(viewer, slide_layer, qtbot, **dock._more.of_model())
    assert job.heatmap.names == ("tumor", "tta_std", "tta_entropy")
    assert texts(dock._shows) == ["tumor", "tta_std", "tta_entropy"]


def test_a_wrong_name_is_told_in_one_line(viewer, slide_layer, qtbot, notifications):
    job = run(viewer, slide_layer, qtbot, output="tumour")
    assert job.state == "failed"
    assert "choose one of tumor, stroma, other" in notifications()[-1]


def test_the_colour_bar_of_the_dock_goes_while_classes_are_shown(viewer, slide_layer, qtbot):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    dock.show()
    run(viewer, slide_layer, qtbot)
    assert dock._panel._colors.visible
    dock._shows._shows.value = CLASSES
    assert not dock._panel._colors.visible
    assert dock._shows._legend.visible
    dock._shows._shows.value = 1
    assert dock._panel._colors.visible
