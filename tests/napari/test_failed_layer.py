"""Windows that failed: hatched where they lie, with the reason in the status bar."""

from __future__ import annotations

import numpy as np
import pytest
from live import Slow, add_slide, no_worker_left, tissue_slide, wait_over

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_grey, mean_rgb, quarter_means
from napari_wsi_heatmap._napari import failed_layer, view
from napari_wsi_heatmap._napari.failed_layer import GROUND, STRIPE, FailedLayer, hatching
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.states import FAILED, state_of

REASON = "a tile is damaged"


@pytest.fixture
def torn(qtbot):
    """A slide of which three places cannot be read; runs over it wait for nothing afterwards."""
    slide = FaultySlide(tissue_slide(), bad={(5, 5), (200, 300), (399, 599)})
    yield slide
    qtbot.waitUntil(no_worker_left)


def hatched_windows(layer, shape):
    """(Y, X) bool: whether all pixels of a window are hatched; none may be in part."""
    side = layer.data.shape[0] // shape[0]
    some = (layer.data != 0).reshape(shape[0], side, shape[1], side)
    assert (some.all((1, 3)) == some.any((1, 3))).all()
    return some.any((1, 3))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (mean_grey, {"window": 50, "level": 0}),
        (mean_rgb, {"window": 64, "stride": 20, "level": 0}),
        (quarter_means, {"window": 32, "stride": 16, "level": 0}),
    ],
    ids=["one value", "overlapping", "dense"],
)
def test_windows_that_fail_are_hatched_where_they_lie(qtbot, viewer, torn, model, settings):
    job = start_job(viewer, torn, model, tissue="none", **settings)
    wait_over(qtbot, job)
    heatmap, layer = job.heatmap, viewer.layers[f"{job.model_name}: failed"]
    failed = state_of(heatmap.state) == FAILED
    assert 3 <= failed.sum() < failed.size / 2
    assert np.array_equal(hatched_windows(layer, heatmap.grid.shape), failed)
    side = layer.data.shape[0] // heatmap.grid.shape[0]
    for row, col in zip(*np.nonzero(failed), strict=True):
        middle = np.array([row, col]) * side + (side - 1) / 2
        wanted = job.slide_layer.data_to_world(heatmap.centres[row, col])
        assert np.allclose(layer.data_to_world(middle), wanted)


def test_the_layer_comes_once_beside_the_heatmap_and_goes_along(qtbot, viewer, torn):
    job = start_job(viewer, torn, mean_grey, tissue="none", window=50, level=0)
    wait_over(qtbot, job)
    name = job.model_name
    assert [layer.name for layer in viewer.layers] == ["pink", name, f"{name}: failed"]
    assert viewer.layers.selection.active is job.layer
    job.slide_layer.translate = (100.0, 50.0)
    layer = viewer.layers[f"{name}: failed"]
    side = layer.data.shape[0] // job.heatmap.grid.shape[0]
    wanted = job.slide_layer.data_to_world(job.heatmap.centres[4, 6])
    assert np.allclose(layer.data_to_world(np.array([4, 6]) * side + (side - 1) / 2), wanted)
    assert layer.units == job.layer.units


def test_without_failures_there_is_no_such_layer(qtbot, viewer):
    job = start_job(viewer, tissue_slide(), mean_grey, tissue="none", window=50, level=0)
    wait_over(qtbot, job)
    assert len(viewer.layers) == 2
    qtbot.waitUntil(no_worker_left)


def test_the_reason_is_said_under_the_cursor(qtbot, viewer, torn):
    job = start_job(viewer, torn, mean_grey, tissue="none", window=50, level=0)
    wait_over(qtbot, job)
    viewer.layers[-1].visible = True
    for layer in (job.layer, viewer.layers[-1]):
        for point, word in (((20, 20), f"failed: {REASON}"), ((90, 90), "")):
            status = layer.get_status(job.slide_layer.data_to_world(point), world=True)
            assert status["coordinates"].endswith(word)
            assert ("failed" in status["value"]) == bool(word)


def test_removing_it_neither_ends_the_run_nor_brings_it_again(qtbot, viewer):
    bad = {(y, x) for y in range(5, 400, 50) for x in range(5, 600, 50)} - {(205, 305)}
    slide = FaultySlide(tissue_slide(), bad=bad)
    job = start_job(viewer, slide, Slow(), tissue="none", batch_size=2)
    qtbot.waitUntil(lambda: len(viewer.layers) == 3 or job.over)
    assert not job.over
    viewer.layers.remove(viewer.layers[-1])
    wait_over(qtbot, job)
    assert job.state == "done"
    assert len(viewer.layers) == 2
    qtbot.waitUntil(no_worker_left)


@pytest.fixture
def saved(torn, tmp_path):
    out = tmp_path / "a.zarr"
    wh.compute_heatmap(torn, mean_rgb, window=50, level=0, tissue="none", out=out, progress=False)
    return wh.open_heatmap(out)


def test_an_output_that_is_opened_again_shows_them(viewer, torn, saved):
    layers = view.show(viewer, torn, saved)
    assert [layer.name for layer in layers][-1] == f"{saved.run['model']['name']}: failed"
    failed = state_of(saved.state) == FAILED
    assert np.array_equal(hatched_windows(layers[-1], saved.grid.shape), failed)
    for layer in (layers[1], layers[-1]):
        status = layer.get_status(layers[0].data_to_world((20, 20)), world=True)
        assert status["coordinates"].endswith(f"failed: {REASON}")


def test_a_continued_run_shows_those_of_the_session_before(qtbot, viewer, torn, saved):
    job = start_job(viewer, torn, mean_rgb, window=50, level=0, tissue="none", out=saved.path)
    wait_over(qtbot, job)
    failed = state_of(saved.state) == FAILED
    assert np.array_equal(hatched_windows(viewer.layers[-1], saved.grid.shape), failed)
    status = job.layer.get_status(job.slide_layer.data_to_world((20, 20)), world=True)
    assert status["value"].endswith(f"failed: {REASON}")


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_hatching_goes_on_from_window_to_window(side):
    tiled = np.tile(hatching(side), (3, 3))
    assert set(np.unique(tiled)) == ({STRIPE} if side == 1 else {GROUND, STRIPE})
    assert np.array_equal(tiled[1:, :-1], tiled[:-1, 1:])


def test_a_lattice_of_millions_is_hatched_coarsely(viewer, monkeypatch):
    monkeypatch.setattr(failed_layer, "MOST_BYTES", 10_000)
    spec = WindowSpec(0, (1.0, 1.0), (8, 8), (8, 8), (8, 8))
    grid = lay_grid(spec, (400, 400))
    state = np.zeros(grid.shape, np.uint8)
    slide_layer = add_slide(viewer, tissue_slide())
    made = FailedLayer(grid, state, slide_layer, "a", {})
    made.add(np.array([51]))
    assert made.layer.data.nbytes <= 10_000
    assert hatched_windows(made.layer, grid.shape).sum() == 1
