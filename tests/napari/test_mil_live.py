"""Encoder and MIL model as a live run in the dock: what is drawn, said, kept, and how it ends."""

from __future__ import annotations

import numpy as np
import pytest
from live import add_slide, no_worker_left, tissue_slide, wait_over
from mil_parts import Encoder, clam_mb, dsmil, errors_in, save

from napari_wsi_heatmap._napari.mil_job import MilJob
from napari_wsi_heatmap._napari.mil_section import MilSection, WhatRuns
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap.mil import compute_mil, open_mil, to_display
from napari_wsi_heatmap.models import load_model

TIMEOUT = 30_000
SETTINGS = {"tissue": "none", "stride": 16, "batch_size": 8, "device": "cpu", "level": 0}
NAME = "encoder of a test"


@pytest.fixture
def slide():
    return tissue_slide(160, 240)


@pytest.fixture
def slide_layer(viewer, slide):
    return add_slide(viewer, slide)


@pytest.fixture
def start(qtbot, viewer, slide_layer, tmp_path, caplog):
    """Makes a section that runs, and presses its button."""
    sections = []

    def begin(state, seconds=0.0, *, keep=True, **settings):
        MODELS.register(NAME, load_model(Encoder(seconds), window=32))
        section = MilSection(
            viewer, lambda: WhatRuns(slide_layer, NAME, lambda: SETTINGS | settings)
        )
        if keep:
            qtbot.addWidget(section.native)
        sections.append(section)
        section.show()
        section.unfolded = True
        section._fields.choose_checkpoint(save(state, tmp_path / "a.pt"))
        qtbot.waitUntil(lambda: section._fields.checkpoint is not None, timeout=TIMEOUT)
        section._score.changed.emit(True)
        return section, JOBS.running(viewer)

    yield begin
    MODELS.unregister(NAME)
    running = JOBS.running(viewer)
    if running is not None:
        running.cancel()
        wait_over(qtbot, running)
    for section in sections:
        if not section._left:
            section.unfolded = False
    qtbot.waitUntil(no_worker_left, timeout=TIMEOUT)
    assert errors_in(caplog) == []


def wait_scored(qtbot, section, job):
    wait_over(qtbot, job)
    assert job.error is None, job.error
    qtbot.waitUntil(lambda: section.layer is not None, timeout=TIMEOUT)


@pytest.mark.parametrize("state", [clam_mb(), dsmil()], ids=["clam_mb", "dsmil"])
def test_the_end_is_the_whole_bag(qtbot, start, slide, tmp_path, viewer, state):
    section, job = start(state)
    assert isinstance(job, MilJob)
    assert not section._score.enabled
    wait_scored(qtbot, section, job)
    options = SETTINGS | {"progress": False, "window": 32}
    result = compute_mil(slide, Encoder(), tmp_path / "a.pt", **options)
    found = section.scored.result
    np.testing.assert_array_equal(found.bag.scores, result.bag.scores)
    np.testing.assert_array_equal(found.probabilities, result.probabilities)
    np.testing.assert_allclose(
        np.ravel(section.layer.data), to_display(result.patch_score).astype("f4"), rtol=1e-6
    )
    assert f"class {result.prediction}" in section._outcome._says.tooltip
    # It is the layer that grew; the encoder's is there, not seen, and scored from now on.
    assert section.layer is job.mil_layer
    assert [layer.visible for layer in viewer.layers[1:3]] == [False, True]
    assert section._fields.source is job.layer
    assert section._score.enabled
    np.testing.assert_allclose(section.layer.scale, job.layer.scale)
    np.testing.assert_allclose(section.layer.translate, job.layer.translate)


def test_it_grows(qtbot, start):
    section, job = start(clam_mb(), seconds=0.02)
    qtbot.waitUntil(lambda: job.mil_layer is not None, timeout=TIMEOUT)
    layer = job.mil_layer
    qtbot.waitUntil(lambda: np.isfinite(layer.data).any(), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: "of the bag" in section._outcome._says.tooltip, timeout=TIMEOUT)
    assert not job.over
    assert tuple(layer.contrast_limits) == (0, 1)
    job.pause()
    section._fields._how.value = "raw"
    section._fields._branch.value = 1
    scores = job._task.mil_run.scores

    def drawn():
        seen = np.isfinite(layer.data)
        return seen.any() and np.isin(layer.data[seen], scores[1]).all()

    qtbot.waitUntil(drawn, timeout=TIMEOUT)
    qtbot.waitUntil(
        lambda: np.allclose(layer.contrast_limits, (np.nanmin(scores[1]), np.nanmax(scores[1]))),
        timeout=TIMEOUT,
    )
    assert section._outcome._table.rowCount() == 3
    job.resume()
    wait_scored(qtbot, section, job)
    qtbot.waitUntil(lambda: layer.name.endswith("for class 1"), timeout=TIMEOUT)
    np.testing.assert_array_equal(np.ravel(layer.data), section.scored.result.score_of(1))


def test_what_is_kept_is_scored_again_without_the_slide(qtbot, start, viewer, tmp_path):
    out = tmp_path / "out.zarr"
    section, job = start(clam_mb(), out=out)
    wait_scored(qtbot, section, job)
    kept = open_mil(out)
    np.testing.assert_array_equal(kept.bag.scores, section.scored.result.bag.scores)
    section._fields.choose_checkpoint(save(dsmil(), tmp_path / "other.pt"))
    qtbot.waitUntil(lambda: section._fields._score.visible, timeout=TIMEOUT)
    section._fields.choose_features(out / "run.json")
    section.score()
    qtbot.waitUntil(lambda: section.layer is not None, timeout=TIMEOUT)
    result = section.scored.result
    assert result.path.parent == out / "mil"
    np.testing.assert_array_equal(open_mil(result.path).patch_score, result.patch_score)
    assert len(list((out / "mil").iterdir())) >= 2


def test_vectors_of_another_length_are_told(qtbot, start):
    section, job = start(clam_mb(length=9))
    wait_over(qtbot, job)
    assert "trained on 9 numbers" in str(job.error)
    assert section.line == str(job.error)
    assert section._score.enabled


def test_it_is_cancelled(qtbot, start, viewer):
    section, job = start(clam_mb(), seconds=0.02)
    qtbot.waitUntil(lambda: job.so_far is not None, timeout=TIMEOUT)
    job.cancel()
    wait_over(qtbot, job)
    assert job.state == "cancelled"
    assert section.scored is None
    assert section._score.enabled


def test_closed_and_opened_again_the_dock_shows_it(qtbot, start, viewer, slide_layer):
    section, job = start(clam_mb(), seconds=0.01, keep=False)
    qtbot.waitUntil(lambda: job.so_far is not None, timeout=TIMEOUT)
    section.native.deleteLater()
    qtbot.waitUntil(lambda: section._left, timeout=TIMEOUT)
    again = MilSection(viewer, lambda: WhatRuns(slide_layer, NAME, dict))
    qtbot.addWidget(again.native)
    wait_scored(qtbot, again, job)
    assert again.scored.result is job.result


def test_the_viewer_is_closed_in_the_middle(qtbot, start, viewer):
    section, job = start(clam_mb(), seconds=0.02, keep=False)
    qtbot.waitUntil(lambda: job.so_far is not None, timeout=TIMEOUT)
    section.native.deleteLater()
    viewer.layers.clear()
    wait_over(qtbot, job)
    assert job.state == "cancelled"
