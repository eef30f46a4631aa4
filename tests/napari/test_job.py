"""A live run from its start to each of its ends, in a viewer without a window."""

from __future__ import annotations

import errno
import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from live import SLOW, Failing, Slow, add_slide, no_worker_left, tissue_slide, wait_over, wait_shown
from napari.layers import Image
from qtpy.QtCore import QTimer

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap.errors import (
    HeatmapError,
    ModelRunError,
    SlideReadError,
    StoreFullError,
    StoreLockedError,
)
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.store import HeatmapStore, read_record


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


def same(a, b) -> bool:
    return np.array_equal(a.values, b.values, equal_nan=True)


@pytest.mark.parametrize(
    "settings", [{}, {"window": 32, "stride": 16}, {"level": 0, "roi": (0, 100, 200, 300)}]
)
def test_a_live_run_gives_what_a_script_gives(start, viewer, settings):
    slide = tissue_slide()
    job = start(slide, "hematoxylin", tissue="none", **settings)
    heatmap = job.wait()
    assert same(
        heatmap, wh.compute_heatmap(slide, "hematoxylin", tissue="none", progress=False, **settings)
    )
    assert (job.state, heatmap.run["status"]) == ("done", "done")
    assert job.line.startswith(f"done: {job.progress.done:,} windows in ")
    assert [layer.name for layer in viewer.layers] == ["pink", "hematoxylin"]


def test_the_layer(start, viewer):
    job = start(tissue_slide(), "hematoxylin", tissue="none")
    job.wait()
    layer, slide_layer = job.layer, viewer.layers["pink"]
    assert np.shares_memory(layer.data, job.heatmap.values)
    assert layer.metadata["heatmap"] is job.heatmap
    assert layer.metadata["job"] is job
    assert layer.metadata["names"] == ("hematoxylin",)
    assert layer.units == slide_layer.units
    assert tuple(layer.contrast_limits) == (0.0, 0.6)
    assert layer.interpolation2d == "nearest"
    assert 0.5 <= layer.opacity <= 0.6
    assert layer.colorbar.visible
    assert layer.colormap.map(np.array([np.nan]))[0, 3] == 0  # what is not computed is not drawn


def where(shape: tuple[int, int], base: tuple[int, int]):
    """Pixels that hold the place of their centre at level 0: R row, G column, B the rests."""
    down = np.divide(base, shape)
    rows, cols = (np.arange(n) * d + (d - 1) / 2 for n, d in zip(shape, down, strict=True))
    out = np.zeros((*shape, 3), np.uint8)
    out[..., 0], out[..., 1] = np.floor(rows)[:, None], np.floor(cols)[None]
    rests = (np.round(rows % 1 * 12)[:, None], np.round(cols % 1 * 12)[None])
    out[..., 2] = rests[0] * 16 + rests[1]
    return out


def place_of(batch):
    """(N, 3, H, W) -> (N, 2): mean place of the pixels."""
    red, green, blue = (batch.double() * 255).round().unbind(1)
    rests = torch.stack([torch.div(blue, 16, rounding_mode="floor"), blue % 16], 1) / 12
    return (torch.stack([red, green], 1) + rests).mean((2, 3))


@pytest.mark.parametrize("mpp", [0.25, (0.25, 0.5), None])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 6), (9, 12)])
@pytest.mark.parametrize("edge", ["drop", "flush"])
def test_every_cell_shows_what_lies_below_it(start, viewer, mpp, level, window, stride, edge):
    base = (240, 225)
    shapes = [base, (80, 75), (96, 60)]  # downsamples 1, 3, and (2.5, 3.75)
    slide = ArraySlide([where(shape, base) for shape in shapes], mpp=mpp, name="places")
    settings = {"tissue": "none", "level": level, "edge": edge, "window": window, "stride": stride}
    job = start(slide, place_of, **settings)
    heatmap, slide_layer = job.wait(), viewer.layers["places"]
    rows, cols = heatmap.grid.shape
    if edge == "flush":
        rows, cols = rows - 1, cols - 1
    for row, col in np.ndindex(rows, cols):
        seen = job.layer.data_to_world((row, col))
        below = slide_layer.data_to_world(heatmap.values[:, row, col])
        assert np.abs(np.subtract(seen, below)).max() < 0.01


def test_the_layer_grows_while_the_run_goes_on(start, qtbot):
    job = start(tissue_slide(), Slow(), **SLOW)
    wait_shown(qtbot, job)
    drawn, before = [], np.isfinite(job.layer.data).sum()
    job.layer.events.set_data.connect(lambda event: drawn.append(1))
    qtbot.waitUntil(lambda: len(drawn) >= 3)
    assert before < np.isfinite(job.layer.data).sum() < job.layer.data.size
    assert job.state == "running"


def test_limits_follow_the_values_and_the_user_wins(start, qtbot):
    job = start(tissue_slide(), Slow(), **SLOW)
    wait_shown(qtbot, job)
    job.layer.contrast_limits = (0.1, 0.9)
    job.pause()
    job.resume()
    before = job.progress.done
    qtbot.waitUntil(lambda: job.progress.done > before + 50)
    assert tuple(job.layer.contrast_limits) == (0.1, 0.9)


def test_pause_resume_cancel(start, qtbot, tmp_path):
    out = tmp_path / "a.zarr"
    job = start(tissue_slide(), Slow(), out=out, **SLOW)
    wait_shown(qtbot, job)
    job.pause()
    assert job.state == "paused"
    qtbot.wait(300)
    stopped = job.progress.done
    qtbot.wait(300)
    assert job.progress.done == stopped
    assert job.line.endswith("; paused")
    job.resume()
    qtbot.waitUntil(lambda: job.progress.done > stopped)
    job.cancel()
    assert job.line == "cancelling…"
    wait_over(qtbot, job)
    assert job.state == "cancelled"
    assert job.line.startswith("cancelled: ")
    assert read_record(out)["status"] == "paused"
    assert job.wait() is job.heatmap  # what there is of it


def test_a_cancelled_run_goes_on_where_it_stopped(start, qtbot, tmp_path, viewer):
    out, slide, model = tmp_path / "a.zarr", tissue_slide(), Slow()
    first = start(slide, model, out=out, **SLOW)
    wait_shown(qtbot, first)
    first.cancel()
    wait_over(qtbot, first)
    done, model.seconds = first.progress.done, 0.0
    second = start(slide, model, out=out, **SLOW)
    assert same(second.wait(), wh.compute_heatmap(slide, model, progress=False, **SLOW))
    assert 0 < done < second.progress.done == second.progress.planned
    again = start(slide, model, out=out, **SLOW)
    assert same(again.wait(), second.heatmap)
    assert again.layer in viewer.layers


@pytest.mark.parametrize("which", ["heatmap", "slide"])
def test_removing_a_layer_ends_the_run_and_saves_it(start, qtbot, viewer, tmp_path, which):
    out = tmp_path / "a.zarr"
    job = start(tissue_slide(), Slow(), out=out, **SLOW)
    wait_shown(qtbot, job)
    viewer.layers.remove(job.layer if which == "heatmap" else job.slide_layer)
    wait_over(qtbot, job)
    assert "layer was removed" in job.line
    assert read_record(out)["status"] == "paused"
    assert HeatmapStore.open(out).state.any()
    qtbot.wait(700)
    assert (job.layer in viewer.layers) == (which == "slide")  # never added again


def test_removing_the_slide_before_there_is_a_layer(start, qtbot, viewer):
    slide_layer = add_slide(viewer, tissue_slide())
    job = start(slide_layer, Slow(), **SLOW)
    viewer.layers.remove(slide_layer)
    wait_over(qtbot, job)
    assert (job.state, job.layer, len(viewer.layers)) == ("cancelled", None, 0)
    with pytest.raises(HeatmapError, match="cancelled before its first window"):
        job.wait()


class OutOfMemory(torch.OutOfMemoryError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OutOfMemory("CUDA out of memory"),
        StopIteration("no more"),
        ValueError("a <class 'tensor'> in a message"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_model_is_told_once_and_keeps_what_was_done(
    start, qtbot, notifications, error, tmp_path
):
    out = tmp_path / "a.zarr"
    job = start(tissue_slide(), Failing(error), out=out, **SLOW)
    wait_over(qtbot, job)
    assert job.state == "failed"
    assert isinstance(job.error, ModelRunError)
    assert not isinstance(job.error, RuntimeError)
    (told,) = notifications()
    assert type(error).__name__ in told
    assert "Traceback" not in told
    assert "<" not in told
    with pytest.raises(ModelRunError):
        job.wait()
    assert job.layer is not None
    record = read_record(out)
    assert record["status"] == "failed"
    assert record["counts"]["done"] > 0


def test_even_an_exit_of_the_model_is_only_an_error(start, qtbot, notifications):
    job = start(tissue_slide(), Failing(SystemExit(3)), **SLOW)
    wait_over(qtbot, job)
    assert job.state == "failed"
    assert "SystemExit" in notifications()[0]


def test_an_error_before_the_first_window_leaves_no_layer(start, qtbot, viewer, notifications):
    job = start(tissue_slide(), lambda batch: "nothing", tissue="none")
    wait_over(qtbot, job)
    assert [layer.name for layer in viewer.layers] == ["pink"]
    assert len(notifications()) == 1
    assert job.line == str(job.error)


def test_a_store_that_another_writes_leaves_no_layer(start, qtbot, viewer, tmp_path):
    out = tmp_path / "a.zarr"
    wh.compute_heatmap(tissue_slide(), "tissue", out=out, tissue="none", progress=False)
    store = HeatmapStore.open(out)
    store.lock()
    job = start(tissue_slide(), "tissue", out=out, tissue="none")
    wait_over(qtbot, job)
    store.release()
    assert isinstance(job.error, StoreLockedError)
    assert len(viewer.layers) == 1


def test_an_unreadable_slide_is_told_in_one_line(start, qtbot, notifications):
    def read(level, y, x, height, width):
        raise OSError("the drive is gone")

    job = start(ArraySlide.from_callable(read, [(400, 600)], mpp=0.5), "tissue")
    wait_over(qtbot, job)
    assert job.state == "failed"
    assert "the drive is gone" in notifications()[-1]


def test_windows_that_cannot_be_read_are_counted(start):
    good = tissue_slide().read_region(0, 0, 0, 400, 600)

    def read(level, y, x, height, width):
        if y < 50 and y + height > 20 and x < 60:
            raise SlideReadError("torn")
        return good[y : y + height, x : x + width]

    slide = ArraySlide.from_callable(read, [(400, 600)], mpp=0.5)
    job = start(slide, "tissue", tissue="none")
    job.wait()
    assert job.state == "done"
    assert "could not be read" in job.line


def test_a_full_disk_pauses_and_resume_goes_on(start, qtbot, tmp_path, monkeypatch, notifications):
    full = threading.Event()
    write = HeatmapStore.write_values

    def write_values(self, *args):
        if full.is_set():
            cause = OSError(errno.ENOSPC, "No space left on device")
            raise StoreFullError("disk full", self.path, "make room") from cause
        return write(self, *args)

    monkeypatch.setattr(HeatmapStore, "write_values", write_values)
    full.set()
    out, model = tmp_path / "a.zarr", Slow()
    job = start(tissue_slide(), model, out=out, **SLOW)
    qtbot.waitUntil(lambda: job.state == "paused", timeout=30_000)
    assert "disk full" in job.line
    assert next(text for text in notifications() if "disk full" in text).count("paused") == 1
    qtbot.waitUntil(lambda: read_record(out)["status"] == "paused", timeout=30_000)
    full.clear()
    model.seconds = 0.0
    job.resume()
    assert same(job.wait(), wh.compute_heatmap(tissue_slide(), model, progress=False, **SLOW))
    assert same(wh.open_heatmap(out), job.heatmap)


def test_one_run_at_a_time(start, qtbot):
    slide = tissue_slide()
    job = start(slide, Slow(), **SLOW)
    with pytest.raises(HeatmapError, match="another run goes on") as refused:
        start(slide, "tissue")
    assert "slow on pink" in str(refused.value)
    job.cancel()
    wait_over(qtbot, job)
    assert start(slide, "tissue").wait().names == ("tissue",)


def test_outputs_share_one_layer(start, viewer):
    job = start(tissue_slide(), lambda batch: batch.mean((2, 3)), tissue="none", window=16)
    job.wait()
    assert job.names == ("0", "1", "2")
    assert job.layer.ndim == 2
    calls = []
    for channel in range(3):
        job.channel = channel
        assert np.array_equal(job.layer.data, job.heatmap.values[channel], equal_nan=True)
        assert job.layer.name.endswith(f": {channel}")
        calls.append(tuple(job.layer.contrast_limits))
    assert calls[0] != calls[1]
    assert len(viewer.layers) == 2


def test_a_dense_model_grows_too(start):
    from made import quarter_means

    slide = tissue_slide()
    job = start(slide, quarter_means, window=32, stride=16, tissue="none")
    heatmap = job.wait()
    scripted = wh.compute_heatmap(
        slide, quarter_means, window=32, stride=16, tissue="none", progress=False
    )
    assert same(heatmap, scripted)
    assert job.layer.data.shape == heatmap.values.shape[1:]


def test_the_view_comes_first_and_panning_changes_the_order(start, qtbot, viewer):
    slide = tissue_slide(4000, 4000)
    layer = add_slide(viewer, slide)
    viewer.canvas.size = (200, 200)
    viewer.scene.camera.zoom = 1.0
    viewer.scene.camera.center = layer.data_to_world((3800, 200))
    # One reader: of two, the second may be through with the first window of the sparse pass
    # before the first is with what is looked at.
    settings = {"tissue": "none", "batch_size": 2, "window": 50, "readers": 1}
    job = start(layer, Slow(0.02), **settings)
    wait_shown(qtbot, job)
    rows, cols = np.nonzero(np.isfinite(job.layer.data))
    assert rows.min() > 70
    assert cols.max() < 10
    viewer.scene.camera.center = layer.data_to_world((200, 3800))
    corner = (slice(0, 10), slice(-10, None))
    qtbot.waitUntil(lambda: np.isfinite(job.layer.data[corner]).any(), timeout=30_000)
    assert np.isfinite(job.layer.data).mean() < 0.5


def test_a_moved_slide_takes_its_heatmap_along(start, viewer):
    job = start(tissue_slide(), "tissue", tissue="none")
    heatmap = job.wait()
    job.slide_layer.translate = (100.0, 50.0)
    wanted = job.slide_layer.data_to_world(heatmap.centres[1, 2])
    assert np.allclose(job.layer.data_to_world((1, 2)), wanted)


def test_a_shapes_layer_as_region(start, viewer):
    layer = add_slide(viewer, tissue_slide())
    box = [
        layer.data_to_world(point)
        for point in [(99.5, 99.5), (99.5, 299.5), (199.5, 299.5), (199.5, 99.5)]
    ]
    shapes = viewer.add_shapes([box], shape_type="rectangle", units=("um", "um"))
    heatmap = start(layer, "tissue", roi=shapes, tissue="none", window=20, level=0).wait()
    assert same(
        heatmap,
        start(layer, "tissue", roi=(100, 100, 200, 300), tissue="none", window=20, level=0).wait(),
    )
    assert heatmap.run["counts"]["done"] == 50


def test_notices_of_the_plan_are_told_once(start, notifications):
    grey = ArraySlide([np.full((300, 300, 3), 128, np.uint8)], mpp=0.5, name="grey")
    job = start(grey, "tissue")
    job.wait()
    assert job.notices
    told = [text for text in notifications() if job.notices[0] in text]
    assert len(told) == 1


@pytest.mark.parametrize("settings", [{"colour": 1}, {"edge": "none"}, {"batch_size": 1}])
def test_wrong_settings_are_refused_at_once(start, viewer, settings):
    with pytest.raises((TypeError, HeatmapError)):
        start(tissue_slide(), "tissue", **settings)
    assert len(viewer.layers) == 0


def test_waiting_gives_up_in_time(start):
    job = start(tissue_slide(), Slow(), **SLOW)
    with pytest.raises(TimeoutError):
        job.wait(timeout=0.05)
    assert not job.over


def test_torch_gets_its_threads_back(start):
    before, during = torch.get_num_threads(), []

    def model(batch):
        during.append(torch.get_num_threads())
        return batch.mean((1, 2, 3))

    start(tissue_slide(), model, tissue="none").wait()
    assert torch.get_num_threads() == before
    assert max(during) <= max(1, before)


class Weights(torch.nn.Linear):
    def forward(self, batch):
        return batch.mean((2, 3)) @ self.weight.T


def test_nothing_of_a_run_is_left_when_its_layers_are_gone(start, qtbot, viewer):
    def run():
        model = Weights(3, 2)
        start_job(viewer, tissue_slide(), model, tissue="none", window=16).wait()
        return weakref.ref(model)

    known = run()
    qtbot.wait(700)  # the colour bar comes later
    assert [o for o in gc.get_objects() if type(o) is QTimer and o.isActive()] == []
    assert known() is not None  # offered in the dock as long as its layer is there
    viewer.layers.clear()
    viewer.add_layer(Image(np.zeros((4, 4))))  # napari keeps the layer that was selected last
    gc.collect()
    assert known() is None
