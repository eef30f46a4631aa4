"""Export from the menu: the selected map, over its slide, told when it is there."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from live import add_slide, wait_over
from PIL import Image
from qtpy.QtWidgets import QFileDialog

from napari_wsi_heatmap._napari import export_map as command
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap.composite import compose
from napari_wsi_heatmap.exports import FORMATS
from napari_wsi_heatmap.slides.array import ArraySlide

SETTINGS = {"window": 32, "level": 0, "batch_size": 4, "tissue": "none"}


@pytest.fixture
def job(viewer, qtbot):
    pixels = np.random.default_rng(1).integers(0, 255, (200, 300, 3), np.uint8)
    slide_layer = add_slide(viewer, ArraySlide([pixels], mpp=0.5, name="noise"))
    job = start_job(viewer, slide_layer, lambda batch: batch.mean((1, 2, 3)), **SETTINGS)
    wait_over(qtbot, job)
    return job


@pytest.fixture
def written(qtbot, viewer, notifications):
    """Export a layer as a format; what is told at the end."""

    def writing(layer, path, name):
        told = len(notifications())
        command.write(viewer, layer, path, next(row for row in FORMATS if row.name == name))
        qtbot.waitUntil(lambda: len(notifications()) > told)
        return notifications()[-1]

    return writing


def map_layer(viewer):
    return next(layer for layer in viewer.layers if "heatmap" in layer.metadata)


def test_a_finished_run_as_a_table(viewer, job, written, tmp_path):
    layer = map_layer(viewer)
    message = written(layer, tmp_path / "map", "csv")
    assert message == f"{layer.name} was exported to {tmp_path / 'map.csv'}"
    values = layer.metadata["heatmap"].values.ravel()
    read = pd.read_csv(tmp_path / "map.csv").iloc[:, 4].to_numpy(np.float32)
    np.testing.assert_array_equal(read, values)


def test_a_picture_looks_as_the_layer_does(viewer, job, written, tmp_path):
    layer = map_layer(viewer)
    layer.contrast_limits, layer.opacity, layer.colormap = (0.25, 0.75), 0.8, "magma"
    written(layer, tmp_path / "map.png", "png")
    heatmap, slide = layer.metadata["heatmap"], job.slide_layer.metadata["slide"]
    wanted = compose(heatmap, slide, cmap="magma", limits=(0.25, 0.75), opacity=0.8).image
    with Image.open(tmp_path / "map.png") as picture:
        about = json.loads(picture.text["napari-wsi-heatmap"])
        np.testing.assert_array_equal(np.array(picture), np.array(wanted))
    assert about["limits"] == [0.25, 0.75]


def test_what_goes_wrong_is_told(viewer, job, written, tmp_path):
    (tmp_path / "map.h5").write_text("precious")
    message = written(map_layer(viewer), tmp_path / "map.h5", "h5")
    assert "cannot be exported: there is something that is no such export of ours" in message
    assert (tmp_path / "map.h5").read_text() == "precious"


def test_without_a_map_it_says_so(viewer, notifications):
    command.export_map(viewer)
    assert "There is no heatmap in this viewer" in notifications()[-1]


def test_the_dialog_offers_every_format(viewer, job, qtbot, notifications, tmp_path, monkeypatch):
    offered = []

    def choose(parent, title, folder, kinds):
        offered.extend(kinds.split(";;"))
        return str(tmp_path / "map"), next(kind for kind in offered if kind.startswith("geojson"))

    class Window:
        _qt_window = None

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    monkeypatch.setattr(type(viewer), "window", Window, raising=False)
    command.export_map(viewer)
    qtbot.waitUntil((tmp_path / "map.geojson").is_file)
    assert [kind.split(":")[0] for kind in offered] == [row.name for row in FORMATS]
    assert all(kind.count("(") == 1 for kind in offered)
