"""Several models in one live run: a layer each, and of two what they differ by."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from live import SLOW, Slow, add_slide, needs_display, no_worker_left, tissue_slide, wait_over

import napari_wsi_heatmap as wh
from made import FaultySlide, quarter_means
from napari_wsi_heatmap._napari import view
from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.diverging import SymmetricSample
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.models import BUILTIN
from napari_wsi_heatmap.show import register_model
from napari_wsi_heatmap.states import DONE, FAILED, state_of

BOTH = ["hematoxylin", "eosin"]
DIFFERENCE = "hematoxylin − eosin"


class Slower(Slow):
    """Another model than `Slow`."""

    name = "slower"

    def __call__(self, batch):
        return 1 - 2 * super().__call__(batch)


@pytest.fixture
def start(qtbot, viewer):
    """Start jobs, and end them with the test."""
    jobs = []

    def start(slide, model, **settings):
        jobs.append(start_job(viewer, slide, model, **settings))
        return jobs[-1]

    yield start
    for job in jobs:
        job.cancel()
        wait_over(qtbot, job)
    qtbot.waitUntil(no_worker_left)
    assert JOBS.running(viewer) is None


def names_of(layers):
    return [layer.name for layer in layers]


def visible(viewer):
    return [layer.name for layer in viewer.layers if layer.visible]


def wait_all_shown(qtbot, job):
    """Serve Qt until there is something to see in every layer."""

    def shown():
        layers = job.layers
        return bool(layers) and all(np.isfinite(layer.data).any() for layer in layers)

    qtbot.waitUntil(lambda: shown() or job.over, timeout=60_000)
    assert not job.over, job.line


def test_each_model_has_a_layer_and_two_have_their_difference(start, viewer):
    slide = tissue_slide()
    job = start(slide, BOTH, tissue="none")
    first = job.wait()
    assert job.title == "hematoxylin, eosin on pink"
    windows = first.run["counts"]["done"]
    assert job.line.startswith(f"done: {windows:,} windows × 2 models in ")
    assert names_of(job.layers) == [*BOTH, DIFFERENCE]
    assert list(viewer.layers)[1:] == list(job.layers)
    assert job.layer is job.layers[0]
    assert job.heatmap is first is job.heatmaps[0]
    singles = [wh.compute_heatmap(slide, m, tissue="none", progress=False) for m in BOTH]
    for heatmap, single, layer in zip(job.heatmaps, singles, job.layers, strict=False):
        np.testing.assert_array_equal(heatmap.values, single.values)
        np.testing.assert_array_equal(layer.data, single.values[0])
        assert layer.metadata["heatmap"] is heatmap
        assert heatmap.run["status"] == "done"
    expected = singles[0].minus(singles[1])
    shown = job.layers[2]
    np.testing.assert_array_equal(shown.data, expected.values[0])
    assert shown.metadata["job"] is job
    assert shown.metadata["heatmap"].run["model"] == expected.run["model"]
    assert shown.metadata["heatmap"].run["counts"] == expected.run["counts"]


def test_the_difference_is_seen_first_in_colours_about_0(start, viewer):
    job = start(tissue_slide(), BOTH, tissue="none")
    job.wait()
    layer = job.layers[2]
    assert visible(viewer) == ["pink", DIFFERENCE]
    assert [each.colorbar.visible for each in job.layers] == [False, False, True]
    job.layer.visible = True
    assert job.layer.colorbar.visible
    low, high = layer.contrast_limits
    assert low == -high < 0
    below, middle, above = layer.colormap.map(np.array([0.0, 0.5, 1.0]))[:, :3]
    assert below[2] > below[0]
    assert above[0] > above[2]
    assert np.ptp(middle) < 0.02
    assert layer.colormap.map(np.array([np.nan]))[0, 3] == 0
    assert layer.units == viewer.layers["pink"].units
    np.testing.assert_array_equal(layer.scale, job.layer.scale)
    np.testing.assert_array_equal(layer.translate, job.layer.translate)


def test_all_layers_grow_while_the_run_goes_on(start, qtbot):
    job = start(tissue_slide(), [Slow(), Slower()], **SLOW)
    wait_all_shown(qtbot, job)
    maps = [layer.metadata["heatmap"].values for layer in job.layers]
    before, drawn = np.array([np.isfinite(values).sum() for values in maps]), []
    job.layers[2].events.set_data.connect(lambda event: drawn.append(1))

    def grown():
        return all(np.isfinite(maps[i]).sum() > before[i] for i in range(3))

    # Models take turns, a region each.
    qtbot.waitUntil(lambda: (grown() and len(drawn) >= 3) or job.over, timeout=60_000)
    job.pause()
    qtbot.wait(300)
    assert np.isfinite(maps[2]).sum() < maps[2].size
    np.testing.assert_array_equal(maps[2], maps[0] - maps[1])
    done = np.isfinite(maps[2][0])
    np.testing.assert_array_equal(job.layers[2].data[done], maps[2][0][done])


def test_pause_resume_and_cancel_act_on_all(start, qtbot, tmp_path):
    models, out = [Slow(), Slower()], tmp_path / "both"
    job = start(tissue_slide(), models, out=out, **SLOW)
    wait_all_shown(qtbot, job)
    job.pause()
    qtbot.wait(300)
    calls = [model.calls for model in models]
    qtbot.wait(300)
    assert [model.calls for model in models] == calls
    job.resume()
    qtbot.waitUntil(lambda: all(m.calls > n for m, n in zip(models, calls, strict=True)))
    job.cancel()
    wait_over(qtbot, job)
    assert job.state == "cancelled"
    stores = [wh.open_heatmap(out / f"{name}.zarr") for name in ("slow", "slower")]
    assert [store.run["status"] for store in stores] == ["paused", "paused"]
    done = [int((state_of(store.state) == DONE).sum()) for store in stores]
    assert min(done) > 0
    again = start(tissue_slide(), [Slow(0.0), Slower(0.0)], out=out, tissue="none")
    again.wait()
    assert again.state == "done"
    first, second = again.heatmaps
    np.testing.assert_array_equal(again.layers[2].data, (first.values - second.values)[0])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_layer_that_is_removed_leaves_the_run_to_the_others(start, viewer, qtbot, number):
    job = start(tissue_slide(), [Slow(), Slower()], **SLOW)
    wait_all_shown(qtbot, job)
    removed = job.layers[number]
    viewer.layers.remove(removed)
    before = job.progress.done
    qtbot.waitUntil(lambda: job.progress.done > before + 20 or job.over, timeout=60_000)
    assert not job.over
    assert removed not in viewer.layers
    for layer in job.layers:
        if layer in viewer.layers:
            viewer.layers.remove(layer)
    wait_over(qtbot, job)
    assert job.state == "cancelled"
    assert "removed" in job.line
    assert names_of(viewer.layers) == ["pink"]


def test_windows_that_fail_are_hatched_once(start, viewer):
    slide = FaultySlide(tissue_slide(), bad=[(100, 100)])
    job = start(slide, BOTH, tissue="none")
    job.wait()
    assert names_of(viewer.layers)[1:] == [*BOTH, DIFFERENCE, "hematoxylin: failed"]
    failed = state_of(job.heatmaps[1].state) == FAILED
    assert failed.any()
    np.testing.assert_array_equal(np.isnan(job.layers[2].data), failed)


def test_three_models_have_no_difference(start, viewer):
    job = start(tissue_slide(), [*BOTH, "tissue"], tissue="none", window=64, mpp=0.5)
    job.wait()
    assert names_of(job.layers) == [*BOTH, "tissue"]
    assert visible(viewer) == ["pink", "hematoxylin"]
    assert len(job.heatmaps) == 3


def test_models_that_cannot_be_compared_are_shown_beside_each_other(start, viewer, notifications):
    def two(batch):
        return batch.mean((2, 3))[:, :2]

    job = start(tissue_slide(), [Slow(0.0), two], window=8, tissue="none")
    job.wait()
    assert names_of(job.layers) == ["slow", "two: 0"]
    assert visible(viewer) == ["pink", "slow"]
    (notice,) = job.notices
    assert notice.startswith("no difference is shown: one heatmap has 1 outputs and the other 2")
    assert any("no difference is shown" in text for text in notifications())


def test_dense_models_and_their_channels(start):
    def inverse(batch):
        return 1 - quarter_means(batch)

    slide = tissue_slide()
    job = start(slide, [quarter_means, inverse], window=32, stride=16, level=0, tissue="none")
    job.wait()
    names = ["quarter_means: ", "inverse: ", "quarter_means − inverse: "]
    for channel in (0, 2, 1):
        job.channel = channel
        assert names_of(job.layers) == [f"{name}{channel}" for name in names]
        a, b, difference = (layer.data for layer in job.layers)
        np.testing.assert_array_equal(difference, a - b)
        low, high = job.layers[2].contrast_limits
        assert low == -high


def test_models_of_one_name_are_told_apart(start):
    nets = [torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()) for _ in "ab"]
    job = start(tissue_slide(), nets, window=32, level=0, tissue="none")
    job.wait()
    assert len({layer.name for layer in job.layers}) == 3
    assert job.layers[2].name == "Sequential − Sequential-2: 0"


def test_limits_about_0_of_few_values():
    sample = SymmetricSample(1)
    assert sample.limits(0) is None
    sample.add(np.array([[0.5], [-0.2], [0.1]], np.float32))
    low, high = sample.limits(0)
    assert low == -high
    assert 0.45 < high <= 0.5


# the dock


@pytest.fixture
def dock(qtbot, viewer):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    viewer.layers.events.inserted.connect(dock.reset_choices)
    dock.show()
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: dock._form._window.value != "")
    yield dock
    job = JOBS.running(viewer)
    if job is not None:
        job.cancel()
        wait_over(qtbot, job)


def pressed(dock, viewer):
    dock._panel._run.native.click()
    return JOBS.running(viewer)


def offered(dock):
    return list(dock._more._beside.choices)


def test_a_second_model_is_chosen_in_the_dock(dock, viewer, qtbot, tmp_path):
    add_slide(viewer, tissue_slide())
    assert dock._more.beside is None
    dock._more._beside.value = "eosin"
    dock._form._tissue.value, dock._form._out.value = "none", tmp_path
    job = pressed(dock, viewer)
    wait_over(qtbot, job)
    assert job.state == "done"
    assert names_of(job.layers) == [*BOTH, DIFFERENCE]
    stores = sorted(tmp_path.glob("*/*.zarr"))
    assert [store.name for store in stores] == ["eosin.zarr", "hematoxylin.zarr"]
    assert stores[0].parent.name == "pink-hematoxylin-eosin"


def test_none_is_chosen_until_somebody_does(dock, viewer, qtbot):
    add_slide(viewer, tissue_slide())
    dock._form._tissue.value = "none"
    job = pressed(dock, viewer)
    wait_over(qtbot, job)
    assert names_of(job.layers) == ["hematoxylin"]


def test_a_model_is_not_compared_with_itself(dock, viewer, notifications):
    add_slide(viewer, tissue_slide())
    dock._more._beside.value = "hematoxylin"
    assert pressed(dock, viewer) is None
    assert "compared with itself" in notifications()[-1]


def test_models_that_come_and_go_are_offered(dock):
    assert offered(dock)[: 1 + len(BUILTIN)] == [None, *BUILTIN]
    register_model("mine", Slow())
    try:
        assert "mine" in offered(dock)
        dock._more._beside.value = "eosin"
    finally:
        MODELS.unregister("mine")
    assert "mine" not in offered(dock)
    assert dock._more.beside == "eosin"


def test_the_dock_says_what_the_colours_mean_that_are_seen(dock, viewer, qtbot):
    add_slide(viewer, tissue_slide())
    dock._more._beside.value, dock._form._tissue.value = "eosin", "none"
    job = pressed(dock, viewer)
    wait_over(qtbot, job)

    def told():
        colors = dock._panel._colors
        return colors._low.value, float(colors._high.value.split()[0])

    _, high = job.layers[2].contrast_limits
    assert told()[1] == pytest.approx(high, rel=1e-3)
    job.layers[2].visible, job.layers[1].visible = False, True
    qtbot.waitUntil(lambda: told()[0] == "0")
    assert told()[1] == pytest.approx(job.layers[1].contrast_limits[1], rel=1e-3)


# what was saved


@pytest.fixture
def saved(slide_file, tmp_path):
    wh.compute_heatmap(slide_file, BOTH, out=tmp_path, tissue="none", progress=False)
    return [wh.open_heatmap(tmp_path / f"{name}.zarr") for name in BOTH]


def test_saved_heatmaps_are_shown_with_their_difference(viewer, slide_file, saved):
    with wh.open_slide(slide_file) as slide:
        layers = view.show(viewer, slide, *saved)
    assert names_of(layers)[1:] == [*BOTH, DIFFERENCE]
    assert [layer.visible for layer in layers] == [True, False, False, True]
    first, second, difference = (layer.data for layer in layers[1:])
    np.testing.assert_array_equal(difference, first - second)
    low, high = layers[3].contrast_limits
    assert low == -high


def test_saved_heatmaps_that_cannot_be_compared(viewer, slide_file, saved, notifications):
    other = wh.compute_heatmap(slide_file, "eosin", tissue="none", stride=32, progress=False)
    with wh.open_slide(slide_file) as slide:
        layers = view.show(viewer, slide, saved[0], other)
    assert names_of(layers)[1:] == BOTH
    assert [layer.visible for layer in layers] == [True, True, False]
    assert any("no difference is shown" in text for text in notifications())


VIEW = """
import sys
from qtpy.QtCore import QTimer
import napari
from napari_wsi_heatmap.cli import main

def look():
    viewer = napari.current_viewer()
    if viewer is None or len(viewer.layers) < 4:
        QTimer.singleShot(100, look)
        return
    print([layer.name for layer in viewer.layers], flush=True)
    viewer.close()

from napari.qt import get_qapp
get_qapp()
QTimer.singleShot(100, look)
sys.exit(main(["view", *sys.argv[1:]]))
"""


@pytest.mark.gl
@needs_display
def test_view_opens_a_folder(slide_file, saved):
    command = [sys.executable, "-c", VIEW, slide_file, str(saved[0].path.parent)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert str(["a.svs", *BOTH, "hematoxylin − eosin"]) in ended.stdout
