"""Layers of features: what the analyses say, exactly where the windows lie."""

from __future__ import annotations

import numpy as np
import pytest
from feature_maps import LENGTH, finished_job
from live import add_slide, no_worker_left, tissue_slide
from napari.layers import Image

import napari_wsi_heatmap as wh
from made import FaultySlide
from made_embedding import list_map
from napari_wsi_heatmap._napari import feature_layers as layers
from napari_wsi_heatmap._napari.view import heatmap_layers
from napari_wsi_heatmap.embedding.cells import cells_of
from napari_wsi_heatmap.embedding.colours import as_rgba


@pytest.fixture
def job(qtbot, viewer):
    yield finished_job(qtbot, viewer, FaultySlide(tissue_slide(), bad={(5, 5), (200, 300)}))
    qtbot.waitUntil(no_worker_left)


def shown(viewer, of, computed):
    layer = computed.make()
    layers.put(viewer, of, layer)
    return layer


def assert_over(layer, job):
    """Each pixel lies at the centre of its window."""
    for row, col in ((0, 0), (3, 5), (job.heatmap.grid.shape[0] - 1, 2)):
        wanted = job.slide_layer.data_to_world(job.heatmap.centres[row, col])
        assert np.allclose(layer.data_to_world((row, col)), wanted)
    assert layer.units == job.slide_layer.units


def test_pca_as_colours(viewer, job):
    computed = layers.show_pca(job.layer)
    layer = shown(viewer, job.layer, computed)
    found = job.heatmap.pca(3)
    assert layer.rgb
    assert np.array_equal(layer.data, as_rgba(found.scores))
    assert not layer.data[0, 0].any()  # it could not be read
    assert_over(layer, job)
    shares = " + ".join(f"{100 * share:.0f}" for share in found.explained)
    assert f"hold {shares} % of the variance of {found.windows:,} windows" in computed.says


def test_clusters_as_labels(viewer, job):
    layer = shown(viewer, job.layer, layers.show_clusters(job.layer, 4))
    found = job.heatmap.clusters(4)
    assert np.array_equal(layer.data, found.labels)
    assert_over(layer, job)
    row, col = np.argwhere(found.labels == 2)[0]
    status = layer.get_status(layer.data_to_world((row, col)), world=True)
    assert f"cluster 2: {found.counts[1]:,} windows" in status["value"]


def test_a_latent(viewer, job):
    layer = shown(viewer, job.layer, layers.show_latent(job.layer, 3))
    wanted = job.heatmap.latents(3)[0]
    assert np.array_equal(layer.data, wanted, equal_nan=True)
    assert layer.name == "bands: latent 3"
    low, high = np.nanpercentile(wanted, (1, 99))
    assert np.allclose(layer.contrast_limits, (low, high))
    assert_over(layer, job)


def test_what_follows_x_or_y(viewer, job):
    _, cols = np.indices(job.heatmap.grid.shape)
    assert layers.say_artefacts(job.layer).says.startswith("nothing follows x or y: latent")
    job.heatmap.features[..., 2] += cols
    computed = layers.say_artefacts(job.layer)
    assert computed.make is None
    assert computed.says.startswith("follow x or y: latent 2 with x (r = 1.00)")


def test_a_dense_map_has_its_windows_too(qtbot, viewer):
    import torch

    def dense(batch):
        cells = torch.nn.functional.avg_pool2d(batch, (8, 8))[:, :1]
        return cells, torch.nn.functional.adaptive_avg_pool2d(batch, (2, 1)).flatten(1)

    from napari_wsi_heatmap._napari.start import start_job

    slide_layer = add_slide(viewer, tissue_slide())
    model = wh.load_model(dense, output=0, features=1, window=32)
    job = start_job(viewer, slide_layer, model, level=0, tissue="none", stride=16)
    qtbot.waitUntil(lambda: job.over)
    assert job.heatmap.frame.dense
    layer = shown(viewer, job.layer, layers.show_latent(job.layer, 0))
    assert layer.data.shape == job.heatmap.grid.shape
    assert_over(layer, job)


def test_they_are_shown_instead_of_the_heatmap_and_go_along(viewer, job):
    first = shown(viewer, job.layer, layers.show_latent(job.layer, 0))
    assert not job.layer.visible
    second = shown(viewer, job.layer, layers.show_latent(job.layer, 1))
    assert not first.visible
    assert list(viewer.layers.selection) == [second]
    again = shown(viewer, job.layer, layers.show_latent(job.layer, 1))
    assert second not in viewer.layers
    assert again.name == "bands: latent 1"
    job.slide_layer.translate = (50.0, 20.0)
    job.slide_layer.scale = (0.25, 0.5)
    for layer in (first, again):
        assert_over(layer, job)


def test_the_heatmap_that_is_selected_is_meant(qtbot, viewer):
    assert layers.heatmap_meant(viewer) is None
    one = finished_job(qtbot, viewer, stride=64)
    two = finished_job(qtbot, viewer)
    viewer.layers.selection = set()
    assert layers.heatmap_meant(viewer) is two.layer
    viewer.layers.selection = {one.layer}
    assert layers.heatmap_meant(viewer) is one.layer
    picture = shown(viewer, one.layer, layers.show_latent(one.layer, 0))
    viewer.layers.selection = {picture}
    assert layers.heatmap_meant(viewer) is one.layer
    viewer.layers.remove(one.layer)
    assert layers.heatmap_meant(viewer) is two.layer


def test_a_list_of_windows_on_no_lattice(viewer):
    made = list_map(200, coords=np.random.default_rng(0).integers(0, 1500, (200, 2)), window=100)
    slide_layer = add_slide(viewer, tissue_slide())
    of = heatmap_layers(made, slide_layer)[0]
    viewer.add_layer(of)
    layer = shown(viewer, of, layers.show_clusters(of, 3))
    cells, found = cells_of(made), made.clusters(3)
    assert np.array_equal(layer.data, cells.paint(found.labels, 0))
    for row, col in np.argwhere(layer.data > 0)[::50]:
        place = np.array(cells.offset) + np.array([row, col]) * cells.scale
        assert np.allclose(layer.data_to_world((row, col)), slide_layer.data_to_world(place))
    assert layers.heatmap_meant(viewer) is of
    assert made.features.shape[1] == LENGTH
    assert isinstance(of, Image)
