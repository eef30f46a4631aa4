"""The dock's section of features: folded, then buttons that do what they say."""

from __future__ import annotations

import numpy as np
import pytest
from feature_maps import LENGTH, finished_job
from live import no_worker_left
from test_similarity_tool import centre_of, click, listens

from napari_wsi_heatmap._napari.feature_fields import (
    NONE_YET,
    FeatureSection,
)


@pytest.fixture
def section(qtbot, viewer):
    section = FeatureSection(viewer)
    qtbot.addWidget(section.native)
    section.show()
    yield section
    qtbot.waitUntil(no_worker_left)


def layers_with(viewer, word):
    return [layer for layer in viewer.layers if word in layer.name]


def test_it_is_folded_until_somebody_asks(section):
    assert not section.unfolded
    assert not section._pca.native.isVisible()
    section._button.changed.emit(True)
    assert section.unfolded
    assert section._pca.native.isVisible()


def test_without_features_it_says_what_gives_some(section):
    assert section._line.tooltip == NONE_YET
    assert not any(f.enabled for f in (section._pca, section._clusters, section._similar))


def test_the_buttons(qtbot, viewer, section):
    job = finished_job(qtbot, viewer)
    assert section._pca.enabled
    assert not section._line.tooltip
    assert section._number.max == LENGTH - 1
    section._pca.changed.emit(True)
    qtbot.waitUntil(lambda: layers_with(viewer, "PCA") != [])
    assert "% of the variance" in section._line.tooltip
    section._k.value = 3
    section._clusters.changed.emit(True)
    qtbot.waitUntil(lambda: layers_with(viewer, "3 clusters") != [])
    section._number.value = 4
    section._latent.changed.emit(True)
    qtbot.waitUntil(lambda: layers_with(viewer, "latent 4") != [])
    section._artefacts.changed.emit(True)
    qtbot.waitUntil(lambda: "x or y: latent" in section._line.tooltip)
    assert job.layer in viewer.layers


def test_similar_windows_until_it_is_switched_off(qtbot, viewer, section):
    job = finished_job(qtbot, viewer)
    section._similar.value = True
    click(viewer, centre_of(job, 3, 3))
    qtbot.waitUntil(lambda: layers_with(viewer, "similarity") != [])
    found = layers_with(viewer, "similarity")[0].data
    np.testing.assert_allclose(found, job.heatmap.similarity((3, 3)), atol=1e-6)
    section._similar.value = False
    assert not listens(viewer)
    assert not section._line.tooltip


def test_the_tool_goes_with_its_heatmap(qtbot, viewer, section):
    job = finished_job(qtbot, viewer)
    section._similar.value = True
    assert listens(viewer)
    viewer.layers.remove(job.layer)
    assert not section._similar.value
    assert not listens(viewer)
    assert section._line.tooltip == NONE_YET


def test_what_cannot_be_done_is_said(qtbot, viewer, section):
    finished_job(qtbot, viewer, roi=(0, 0, 30, 60))
    section._k.value = 50
    section._clusters.changed.emit(True)
    qtbot.waitUntil(lambda: "50 are needed" in section._line.tooltip)


def test_a_closed_dock_leaves_nothing_behind(qtbot, viewer):
    finished_job(qtbot, viewer)
    section = FeatureSection(viewer)
    section._similar.value = True
    section.native.close()
    section.native.deleteLater()
    qtbot.waitUntil(lambda: section._gone)
    assert not listens(viewer)
    viewer.layers.clear()
