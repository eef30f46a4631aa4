"""A saved heatmap over its slide, and the demo, in a viewer."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image

import napari_wsi_heatmap as wh
from made import mean_rgb
from napari_wsi_heatmap._napari import view
from napari_wsi_heatmap.console import DONE, FAILED

QUIET = {"tissue": "none", "progress": False}
no_display = sys.platform.startswith("linux") and not os.environ.get("DISPLAY")


@pytest.fixture
def saved(slide_file, tmp_path):
    """Compute over the slide's file, save, and open what was saved."""

    def saving(model, **settings):
        out = tmp_path / "a.zarr"
        wh.compute_heatmap(slide_file, model, out=out, **QUIET, **settings)
        return wh.open_heatmap(out)

    return saving


@pytest.mark.parametrize("level", [0, 1])
def test_each_cell_lies_over_the_centre_of_its_window(viewer, slide_file, saved, level):
    heatmap = saved(mean_rgb, window=50, stride=37, level=level)
    with wh.open_slide(slide_file) as slide:
        slide_layer, *layers = view.show(viewer, slide, heatmap)
        centres_um = heatmap.centres * np.array(slide.mpp)
    assert list(viewer.layers) == [slide_layer, *layers]
    for layer in layers:
        cells = np.stack(np.indices(heatmap.grid.shape), -1).reshape(-1, 2)
        world = np.array([layer.data_to_world(cell) for cell in cells])
        np.testing.assert_allclose(world, centres_um.reshape(-1, 2), atol=0.01)
        assert layer.units == slide_layer.units


def test_all_outputs_are_one_layer_and_the_first_is_shown(viewer, slide_file, saved):
    heatmap = saved(wh.load_model(mean_rgb, names=["r", "g", "b"], window=100))
    with wh.open_slide(slide_file) as slide:
        (layer,) = view.show(viewer, slide, heatmap)[1:]
    assert layer.visible
    name = heatmap.run["model"]["name"]
    for channel, letter in enumerate("rgb"):
        layer.metadata["switch"].show_channel(channel)
        values = heatmap.values[channel]
        assert layer.name == f"{name}: {letter}"
        np.testing.assert_array_equal(layer.data, values)
        low, high = layer.contrast_limits
        assert values.min() <= low < high <= values.max()


def test_the_models_limits_are_those_of_the_colours(viewer, slide_file, saved):
    heatmap = saved("tissue")
    with wh.open_slide(slide_file) as slide:
        layer = view.show(viewer, slide, heatmap)[1]
    assert tuple(layer.contrast_limits) == tuple(heatmap.run["model"]["limits"])
    assert layer.name == "tissue"
    assert layer.colorbar.visible


def test_each_of_many_outputs_can_be_shown(viewer, slide_file, saved):
    heatmap = saved(lambda batch: batch[:, :, :7].flatten(1)[:, :20], window=100)
    with wh.open_slide(slide_file) as slide:
        (layer,) = view.show(viewer, slide, heatmap)[1:]
    layer.metadata["switch"].show_channel(19)
    np.testing.assert_array_equal(layer.data, heatmap.values[19])


def test_a_slide_alone(viewer, plain_slide_file):
    with wh.open_slide(plain_slide_file) as slide:
        assert len(view.show(viewer, slide)) == 1
    assert not viewer.canvas.overlays.scale_bar.visible


def test_values_that_are_all_the_same_have_limits():
    assert view._limits(np.full((3, 3), 2, np.float32)) == (2, 3)
    assert view._limits(np.full((3, 3), np.nan, np.float32)) == (0, 1)


@pytest.mark.gl
@pytest.mark.skipif(no_display, reason="no display")
def test_the_demo_photographs_its_window_and_closes(qtbot, slide_file, tmp_path):
    from napari_wsi_heatmap._napari.demo import Demo

    picture, out = tmp_path / "demo.png", tmp_path / "demo.zarr"
    demo = Demo(slide_file, "tissue", out, picture)
    demo.job.wait(60)
    qtbot.waitUntil(picture.exists, timeout=20_000)
    assert demo.exit_code == DONE
    assert wh.open_heatmap(out).run["status"] == "done"
    with Image.open(picture) as image:
        assert np.array(image).std() > 10
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["demo.png"]


@pytest.mark.gl
@pytest.mark.skipif(no_display, reason="no display")
def test_a_demo_that_fails_says_why(qtbot, slide_file, tmp_path, capsys):
    from napari_wsi_heatmap._napari.demo import Demo

    (tmp_path / "notes.txt").touch()
    demo = Demo(slide_file, "tissue", tmp_path, tmp_path / "demo.png")
    qtbot.waitUntil(lambda: demo.job.over, timeout=60_000)
    qtbot.waitUntil(lambda: not demo.viewer.layers, timeout=20_000)
    assert demo.exit_code == FAILED
    assert "something else" in capsys.readouterr().err
    assert not (tmp_path / "demo.png").exists()
