"""A click on the slide: everything that looks like it, where it lies, soon."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from feature_maps import finished_job
from live import no_worker_left, tissue_slide
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from made import FaultySlide
from napari_wsi_heatmap._napari import similarity
from napari_wsi_heatmap._napari.similarity import NO_WINDOW, SimilarityTool


@pytest.fixture
def job(qtbot, viewer):
    yield finished_job(qtbot, viewer, FaultySlide(tissue_slide(), bad={(5, 5)}))
    qtbot.waitUntil(no_worker_left)


class Told(list):
    def __call__(self, text):
        self.append(text)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def tool(qtbot, viewer, job, told):
    tool = SimilarityTool(viewer, job.layer, told)
    tool.begin()
    qtbot.waitUntil(lambda: "windows are compared" in told[-1])
    yield tool
    tool.end()


def click(viewer, position, moved=0, button=1):
    """Press and release the mouse at a place of the world, moved so many pixels meanwhile."""
    options = {"position": position, "button": button}
    mouse_press_callbacks(viewer, read_only_mouse_event("mouse_press", **options))
    away = np.array([0.0, moved])
    if moved:
        mouse_move_callbacks(viewer, read_only_mouse_event("mouse_move", pos=away, **options))
    release = read_only_mouse_event("mouse_release", pos=away, **options)
    mouse_release_callbacks(viewer, release)


def listens(viewer):
    """Whether a tool takes clicks; napari has callbacks of its own."""
    return any(call.__name__ == "_on_press" for call in viewer.mouse_drag_callbacks)


def centre_of(job, row, col):
    return job.slide_layer.data_to_world(job.heatmap.centres[row, col])


def answered(qtbot, told, count):
    qtbot.waitUntil(lambda: sum("most similar" in text for text in told) >= count)


def test_a_click_is_answered(qtbot, viewer, job, tool, told):
    click(viewer, centre_of(job, 4, 7))
    answered(qtbot, told, 1)
    wanted = job.heatmap.similarity((4, 7))
    np.testing.assert_allclose(tool.layer.data, wanted, atol=1e-6)
    assert tool.layer.name == "bands: similarity"
    assert np.isnan(tool.layer.data[0, 0])
    for row, col in ((2, 2), (10, 11)):
        assert np.allclose(tool.layer.data_to_world((row, col)), centre_of(job, row, col))
    assert not job.layer.visible


def test_the_next_click_changes_the_same_layers(qtbot, viewer, job, tool, told):
    click(viewer, centre_of(job, 4, 7))
    answered(qtbot, told, 1)
    layer, count = tool.layer, len(viewer.layers)
    click(viewer, centre_of(job, 9, 3))
    answered(qtbot, told, 2)
    assert tool.layer is layer
    assert len(viewer.layers) == count
    np.testing.assert_allclose(layer.data, job.heatmap.similarity((9, 3)), atol=1e-6)
    low, high = np.nanpercentile(layer.data, (1, 99))
    assert np.allclose(layer.contrast_limits, (low, high))
    layer.contrast_limits = (0.2, 0.4)
    click(viewer, centre_of(job, 1, 1))
    answered(qtbot, told, 3)
    assert np.allclose(layer.contrast_limits, (0.2, 0.4))


def test_the_window_and_those_most_like_it_are_framed(qtbot, viewer, job, tool, told):
    click(viewer, centre_of(job, 4, 7))
    answered(qtbot, told, 1)
    frames, found = tool.frames, job.heatmap.similarity((4, 7)).ravel()
    assert len(frames.data) == 11
    assert np.allclose(frames.data_to_world(frames.data[0]), centre_of(job, 4, 7))
    width = job.heatmap.grid.shape[1]
    found[4 * width + 7] = np.nan
    best = set(np.argsort(-np.nan_to_num(found, nan=-2))[:10].tolist())
    centres = [centre_of(job, *divmod(window, width)) for window in best]
    seen = [frames.data_to_world(place) for place in frames.data[1:]]
    assert {tuple(np.round(c, 3)) for c in centres} == {tuple(np.round(c, 3)) for c in seen}
    assert (frames.size == 32).all()


def test_dragging_and_other_buttons_are_not_clicks(qtbot, viewer, job, tool, told):
    click(viewer, centre_of(job, 4, 7), moved=30)
    click(viewer, centre_of(job, 4, 7), button=2)
    qtbot.wait(50)
    assert tool.layer is None
    click(viewer, centre_of(job, 4, 7), moved=2)
    answered(qtbot, told, 1)


def test_where_there_is_no_window_it_says_so(qtbot, viewer, job, tool, told):
    click(viewer, (-4000.0, 0.0))
    qtbot.waitUntil(lambda: told[-1] == NO_WINDOW)
    click(viewer, centre_of(job, 0, 0))  # it could not be read
    qtbot.waitUntil(lambda: told.count(NO_WINDOW) == 2)
    assert tool.layer is None


def test_of_many_clicks_the_last_counts(qtbot, viewer, job, tool, told):
    for col in range(12):
        click(viewer, centre_of(job, 5, col))
    wanted = job.heatmap.similarity((5, 11))
    qtbot.waitUntil(
        lambda: tool.layer is not None and np.allclose(tool.layer.data, wanted, equal_nan=True)
    )
    assert sum("most similar" in text for text in told) < 12


def test_clicks_before_all_is_read_are_answered(qtbot, viewer, job, told):
    tool = SimilarityTool(viewer, job.layer, told)
    tool.begin()
    click(viewer, centre_of(job, 6, 6))
    answered(qtbot, told, 1)
    np.testing.assert_allclose(tool.layer.data, job.heatmap.similarity((6, 6)), atol=1e-6)
    tool.end()


def test_switched_off_it_lets_go_of_the_features(qtbot, viewer, job, tool, told):
    click(viewer, centre_of(job, 4, 7))
    answered(qtbot, told, 1)
    held = weakref.ref(tool._held.similarity)
    tool.end()
    gc.collect()
    assert held() is None
    assert not listens(viewer)
    count = len(told)
    click(viewer, centre_of(job, 1, 1))
    qtbot.wait(50)
    assert len(told) == count
    assert tool.layer in viewer.layers


def test_what_cannot_be_compared_is_told(qtbot, viewer, job, told, monkeypatch):
    monkeypatch.setattr(job.heatmap, "_features", job.heatmap.features * np.nan)
    tool = SimilarityTool(viewer, job.layer, told)
    tool.begin()
    qtbot.waitUntil(lambda: "0 windows have features" in told[-1])
    tool.end()


def test_frames_follow_the_slide(qtbot, viewer, job):
    frames = similarity.frames_layer(job.layer, job.heatmap.centres[2, 3][None])
    job.slide_layer.translate = (70.0, -20.0)
    assert np.allclose(frames.data_to_world(frames.data[0]), centre_of(job, 2, 3))
