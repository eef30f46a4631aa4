"""The dock shows beside a window of an autoencoder what the model makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from live import add_slide, tissue_slide

import napari_wsi_heatmap as wh
from made_vae import write_checkpoint
from napari_wsi_heatmap._napari import inspect_sections
from napari_wsi_heatmap._napari.view import heatmap_layers
from napari_wsi_heatmap.inspecting.reconstruction import decoder_of, reconstruct, side_by_side

TIMEOUT = 30_000


@pytest.fixture
def panel(qtbot, viewer):
    sections = inspect_sections.InspectSections(viewer)
    qtbot.addWidget(sections.native)
    sections.native.resize(280, 900)
    sections.show()
    sections.inspector.unfolded = True
    yield sections.inspector
    sections.inspector.unfolded = False


@pytest.fixture
def slide():
    return tissue_slide()


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "M2_WEIGHTS.PT")


@pytest.fixture
def layer(viewer, slide, checkpoint):
    slide_layer = add_slide(viewer, slide)
    heatmap = wh.compute_heatmap(slide, checkpoint, tissue="none", progress=False)
    (layer,) = heatmap_layers(heatmap, slide_layer)
    viewer.add_layer(layer)
    return layer


def shown_pixels(panel):
    image = panel._picture._image
    bits = image.constBits()
    bits.setsize(image.sizeInBytes())
    rows = np.frombuffer(bits, np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3)


def wait_patch(qtbot, panel):
    qtbot.waitUntil(lambda: not panel._picture._image.isNull(), timeout=TIMEOUT)


def test_a_reconstruction_beside_the_patch(panel, layer, slide, qtbot):
    panel.inspect_window(layer, 7)
    wait_patch(qtbot, panel)
    heatmap = layer.metadata["heatmap"]
    patch = heatmap.patch(7, slide)
    expected = side_by_side(patch, reconstruct(decoder_of(heatmap), patch))
    np.testing.assert_array_equal(shown_pixels(panel), expected)
    error = float(heatmap.values.ravel()[7])
    said = float(panel._trouble.value.rpartition("error ")[2].rstrip(")"))
    assert said == pytest.approx(error, abs=2e-3)


def test_without_the_file_the_patch_is_shown_alone(panel, layer, slide, checkpoint, qtbot):
    checkpoint.unlink()
    panel.inspect_window(layer, 7)
    wait_patch(qtbot, panel)
    np.testing.assert_array_equal(shown_pixels(panel), layer.metadata["heatmap"].patch(7, slide))
    assert panel._trouble.tooltip.startswith("No reconstruction: ")
    assert "M2_WEIGHTS.PT" in panel._trouble.tooltip
