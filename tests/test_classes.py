"""Most likely classes: exact, where the cells are, and the same whether they grew or not."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from dense_reference import add, frame_of, outputs
from made import mean_grey, mean_rgb, noise_slide, quarter_means
from napari_wsi_heatmap.classes import GrowingClasses, label_cells
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import ModelOutputError
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.states import DONE, state_of

SETTINGS = {"window": 32, "level": 0, "batch_size": 4, "tissue": "none"}


def computed(model, **settings):
    return wh.compute_heatmap(noise_slide(96, 160), model, progress=False, **SETTINGS | settings)


def test_labels_by_hand():
    values = np.array(
        [[[0.1, 0.5, np.nan, 2]], [[0.9, 0.5, 1, np.nan]], [[0.0, 0.2, 1, 0]]], np.float32
    )
    assert label_cells(values).tolist() == [[2, 1, 0, 0]]
    assert label_cells(np.array([[np.inf], [1.0]], np.float32)).tolist() == [1]


@pytest.mark.parametrize("model", [mean_rgb, quarter_means])
def test_of_a_heatmap_each_cell_has_the_class_of_its_largest_value(model):
    heatmap = computed(model, stride=16)
    labels, names = heatmap.classes()
    assert names == ("0", "1", "2")
    assert labels.shape == heatmap.values.shape[1:]
    assert labels.dtype == np.uint8
    cells = np.indices(labels.shape)
    assert labels.min() >= 1
    np.testing.assert_array_equal(
        heatmap.values[labels.astype(int) - 1, *cells], heatmap.values.max(0)
    )


def test_what_is_not_computed_is_no_class(tmp_path):
    out = tmp_path / "a.zarr"
    pieces = wh.run(noise_slide(96, 160), mean_rgb, out=out, roi=(0, 0, 96, 100), **SETTINGS)
    next(pieces)
    pieces.close()
    heatmap = wh.open_heatmap(out)
    labels, _ = heatmap.classes()
    np.testing.assert_array_equal(labels != 0, state_of(heatmap.state) == DONE)
    assert 0 < np.count_nonzero(labels) < labels.size


def test_more_classes_than_a_byte_holds():
    heatmap = computed(lambda batch: batch[:, :, :10, :10].flatten(1)[:, :300], names=None)
    labels = heatmap.classes().labels
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, heatmap.values.argmax(0) + 1)


def test_of_a_list_of_windows(tmp_path):
    out, where = tmp_path / "a.zarr", [(0, 0), (0, 32), (60, 91)]
    values = wh.predict_windows(noise_slide(), mean_rgb, where, window=32, level=0, out=out)
    heatmap = wh.open_heatmap(out)
    labels = heatmap.classes().labels
    assert set(np.unique(labels)) - {0} == set(values.argmax(1) + 1)


@pytest.mark.parametrize("dense", [False, True])
def test_growing_windows_in_any_order_end_as_the_whole(dense, monkeypatch):
    monkeypatch.setattr("napari_wsi_heatmap.classes.TILE", 8)
    monkeypatch.setattr(DenseMap, "tile", 8)
    monkeypatch.setattr(DenseMap, "chunk", 16)
    frame = frame_of(channels=3) if dense else frame_of(channels=3, cells=None)
    values = outputs(frame) if dense else outputs(frame)[:, :, 0, 0]
    state = np.zeros(frame.grid.shape, np.uint8)
    growing = DenseMap(frame, state) if dense else GrowingMap(frame, state)
    classes = GrowingClasses(growing.values, frame, 3)
    order = np.random.default_rng(3).permutation(frame.grid.size)
    for part in np.array_split(order, 9):
        add(growing, part, values)
        classes.add(part)
        np.testing.assert_array_equal(classes.labels, label_cells(growing.values))
    assert (classes.labels > 0).all()
    assert classes.version == 9


def test_one_output_alone_is_no_choice():
    heatmap = computed(mean_grey, tta="flips")
    with pytest.raises(ModelOutputError, match="no classes to choose from") as caught:
        heatmap.classes()
    assert len(str(caught.value).splitlines()) == 1


def test_a_difference_has_none():
    heatmap = computed(mean_rgb)
    with pytest.raises(ModelOutputError, match="no classes"):
        heatmap.minus(heatmap).classes()


def test_of_a_table_read_back_the_classes_are_known(tmp_path):
    heatmap = computed(mean_rgb, activation="softmax", tta="flips")
    heatmap.export(tmp_path / "a.csv")
    read = wh.open_heatmap(tmp_path / "a.csv", slide=noise_slide(96, 160))
    assert read.uncertainty == heatmap.uncertainty == ("tta_std", "tta_entropy")
    assert read.classes().names == heatmap.classes().names
    np.testing.assert_array_equal(read.classes().labels, heatmap.classes().labels)
