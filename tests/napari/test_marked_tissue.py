"""Tissue drawn or painted in the viewer, in the dock and from the console."""

from __future__ import annotations

import numpy as np
import pytest
from live import add_slide, tissue_slide, wait_over
from napari.layers import Labels

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.marked_tissue import marked_tissue, painted_mask
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.states import BACKGROUND, DONE, state_of


def mean_grey(batch):
    return batch.mean((1, 2, 3))


@pytest.fixture
def slide_layer(viewer):
    return add_slide(viewer, tissue_slide())


def quarter():
    """A painting of 40 x 60 px: the top left quarter."""
    painted = np.zeros((40, 60), np.int32)
    painted[:20, :30] = 7
    return painted


def test_a_painting_over_the_whole_slide_becomes_its_mask(slide_layer):
    # 0.5 µm per pixel: a pixel of the painting is 5 µm, its centre at 2.25 µm from that of pixel 0.
    labels = Labels(quarter(), scale=(5, 5), translate=(2.25, 2.25), units=("um", "um"))
    np.testing.assert_array_equal(painted_mask(labels, slide_layer), quarter() != 0)


def test_a_moved_and_turned_painting_counts_where_it_is_seen(slide_layer):
    labels = Labels(np.ones((100, 100), np.int32), rotate=30, translate=(60, 90), units=("um",) * 2)
    mask = painted_mask(labels, slide_layer)
    down = 400 / mask.shape[0]
    places = (np.argwhere(np.ones_like(mask)) + 0.5) * down - 0.5
    inside = [
        ((at >= -0.5) & (at < 99.5)).all()
        for at in (labels.world_to_data(slide_layer.data_to_world(p)) for p in places)
    ]
    np.testing.assert_array_equal(mask.ravel(), inside)
    assert mask.sum() * down**2 == pytest.approx(200**2, rel=0.02)


def test_what_is_not_painted_or_has_no_two_dimensions_is_told(slide_layer):
    for labels, message in [
        (Labels(np.zeros((9, 9), int)), "nothing of the slide is painted"),
        (Labels(np.ones((9, 9), int), translate=(5000, 5000)), "nothing of the slide"),
        (Labels(np.ones((2, 9, 9), int)), "3 dimensions"),
    ]:
        with pytest.raises(GridError, match=message):
            marked_tissue(labels, slide_layer)
    assert marked_tissue("variance:9", slide_layer) == "variance:9"


@pytest.mark.parametrize("kind", ["labels", "shapes", "variance:80", "none"])
def test_a_live_run_uses_what_is_marked(kind, viewer, slide_layer, qtbot):
    rule = kind
    if kind == "labels":
        rule = viewer.add_labels(quarter(), scale=(5, 5), translate=(2.25, 2.25), units=("um",) * 2)
    if kind == "shapes":
        box = [(-0.5, -0.5), (199.5, -0.5), (199.5, 299.5), (-0.5, 299.5)]
        corners = [slide_layer.data_to_world(p) for p in box]
        rule = viewer.add_shapes([corners], shape_type="polygon", units=("um", "um"))
    job = start_job(
        viewer, slide_layer, mean_grey, window=50, level=0, tissue=rule, tissue_min=0.5,
        batch_size=4, roi=(0, 0, 400, 600),
    )  # fmt: skip
    wait_over(qtbot, job)
    states = state_of(job.heatmap.state)
    if kind in ("labels", "shapes"):
        assert (states[:4, :6] == DONE).all()
        assert (states[4:] == BACKGROUND).all()
        assert (states[:, 6:] == BACKGROUND).all()
    else:
        assert (states == DONE).all()


def test_the_dock_offers_rules_and_layers(viewer, slide_layer, qtbot):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    labels = viewer.add_labels(quarter(), scale=(5, 5), translate=(2.25, 2.25), units=("um",) * 2)
    shapes = viewer.add_shapes([[(0, 0), (0, 9), (9, 9)]], shape_type="polygon", name="drawn")
    dock.reset_choices()
    offered = dock._form._tissue.choices
    assert offered == ("otsu", "none", "variance", "variance2", labels, shapes)
    for choice in offered[:4]:
        dock._form._tissue.value = choice
        assert dock._form.settings()["tissue"] == choice
    dock._form._tissue.value = labels
    np.testing.assert_array_equal(dock._form.settings()["tissue"], quarter() != 0)
    dock._form._tissue.value = shapes
    assert np.shape(dock._form.settings()["tissue"]) == (1, 3, 2)
    dock._form._tissue.value = "otsu"
    assert wh.RunSettings().tissue == dock._form.settings()["tissue"]
