"""A rough map of the whole slide after a few windows, replaced by what is computed."""

from __future__ import annotations

import numpy as np
import pytest
from live import Slow, no_worker_left, wait_over, wait_shown

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import view
from napari_wsi_heatmap._napari.job import COARSE
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap._napari.window_words import NEARBY, PENDING_YET
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, PENDING, state_of

SIDE = 9000
SETTINGS = {"tissue": "none", "batch_size": 2, "window": 100, "level": 0, "readers": 1}


def sloping_slide():
    """Brighter downwards, with a dark part that no region of interest holds."""

    def read(level, y, x, height, width):
        rows = (np.arange(y, y + height) * 200 // SIDE).astype(np.uint8)
        return np.broadcast_to(rows[:, None, None], (height, width, 3)).copy()

    return ArraySlide.from_callable(read, [(SIDE, SIDE)], mpp=0.5, name="sloping")


@pytest.fixture
def start(qtbot, viewer):
    """Start jobs over one slide, seen whole; end them with the test."""
    jobs, slide = [], sloping_slide()

    def start(model, **settings):
        jobs.append(start_job(viewer, slide, model, **SETTINGS | settings))
        return jobs[-1]

    yield start
    for job in jobs:
        job.cancel()
        wait_over(qtbot, job)
    qtbot.waitUntil(no_worker_left)


def seen_whole(qtbot, job):
    """Wait until nothing on the slide is left empty."""
    wait_shown(qtbot, job)
    qtbot.waitUntil(lambda: bool(np.isfinite(job.layer.data).all()) or job.over, timeout=60_000)
    assert not job.over, job.line


def word(job, y, x):
    place = job.slide_layer.data_to_world((y, x))
    return job.layer.get_status(place, world=True)["value"].partition("; ")[2]


def test_the_whole_slide_is_seen_long_before_it_is_computed(start, qtbot):
    job = start(Slow(0.05))
    seen_whole(qtbot, job)
    done = np.isfinite(job.heatmap.values[0])
    assert done.mean() < 0.05
    assert np.array_equal(job.layer.data[done], job.heatmap.values[0][done])
    rows = job.layer.data.mean(1)
    assert (np.diff(rows) >= 0).all()
    assert rows[-1] > 4 * rows[10] > 0
    drawn = []
    job.layer.events.set_data.connect(lambda event: drawn.append(1))
    qtbot.waitUntil(lambda: len(drawn) >= 2, timeout=20_000)


def test_of_a_region_of_interest_nothing_else_is_filled(start, qtbot):
    job = start(Slow(0.02), roi=(2000, 3000, 8000, 7000))
    wait_shown(qtbot, job)
    wanted = np.zeros((90, 90), bool)
    wanted[20:80, 30:70] = True
    qtbot.waitUntil(lambda: bool(np.isfinite(job.layer.data[wanted]).all()), timeout=60_000)
    assert np.isfinite(job.heatmap.values[0]).sum() < 200
    assert np.isnan(job.layer.data[~wanted]).all()


def test_a_whole_run_shows_the_map_itself(start, qtbot):
    job = start(Slow(0.0), batch_size=64)
    job.wait()
    assert np.shares_memory(job.layer.data, job.heatmap.values)
    assert COARSE not in job.line
    assert word(job, 4000, 4000) == ""


def test_a_stopped_run_stays_a_coarse_map_and_its_values_exact(start, qtbot, tmp_path):
    job = start(Slow(0.05), out=tmp_path / "a.zarr")
    seen_whole(qtbot, job)
    job.cancel()
    wait_over(qtbot, job)
    assert np.isfinite(job.layer.data).all()
    done = state_of(job.heatmap.state) == DONE
    assert 0 < done.sum() < 1000
    assert np.array_equal(np.isfinite(job.heatmap.values[0]), done)
    assert job.line.endswith(COARSE)
    row, col = np.argwhere(~done)[len(done) // 2]
    assert word(job, row * 100 + 50, col * 100 + 50) == NEARBY
    row, col = np.argwhere(done)[0]
    assert word(job, row * 100 + 50, col * 100 + 50) == ""


def test_a_window_that_shows_nothing_says_so(start, qtbot):
    job = start(Slow(0.05))
    wait_shown(qtbot, job)
    job.cancel()
    wait_over(qtbot, job)
    empty = np.argwhere(np.isnan(job.layer.data))
    assert len(empty)
    row, col = empty[-1]
    assert word(job, row * 100 + 50, col * 100 + 50) == PENDING_YET


def test_a_continued_run_begins_with_the_coarse_map(start, qtbot, tmp_path):
    out, model = tmp_path / "a.zarr", Slow(0.05)
    first = start(model, out=out)
    seen_whole(qtbot, first)
    first.cancel()
    wait_over(qtbot, first)
    second = start(model, out=out)
    wait_shown(qtbot, second)
    assert np.isfinite(second.layer.data).all()
    assert np.isfinite(second.heatmap.values[0]).mean() < 0.2


def test_channels_are_switched_while_it_is_rough(start, qtbot):
    def three(batch):
        slow(batch)
        return batch.mean((2, 3)) * batch.new_tensor([1, 2, 3])

    slow = Slow(0.05)
    job = start(three)
    seen_whole(qtbot, job)
    for channel in (2, 1, 0):
        job.channel = channel
        assert np.isfinite(job.layer.data).all()
        done = np.isfinite(job.heatmap.values[channel])
        assert np.array_equal(job.layer.data[done], job.heatmap.values[channel][done])
    job.channel = 2
    bright = job.layer.data[-1, -1]
    job.channel = 0
    assert bright == pytest.approx(3 * job.layer.data[-1, -1], rel=1e-5)


def test_rows_that_come_one_after_the_other_are_shown_as_they_are(start, qtbot):
    job = start(Slow(0.05), order="raster")
    wait_shown(qtbot, job)
    assert np.shares_memory(job.layer.data, job.heatmap.values)


def stopped(out, **settings):
    run = wh.run(sloping_slide(), Slow(0.0), out=out, **SETTINGS, **settings)
    for _ in range(40):
        next(run)
    run.close()
    return wh.open_heatmap(out)


def test_a_stopped_run_that_is_opened_again(viewer, tmp_path, notifications):
    heatmap = stopped(tmp_path / "a.zarr", order="viewport")
    layer = view.show(viewer, sloping_slide(), heatmap)[1]
    done = state_of(heatmap.state) == DONE
    assert np.isfinite(layer.data).all()
    assert np.array_equal(layer.data[done], heatmap.values[0][done])
    assert np.array_equal(np.isfinite(heatmap.values[0]), done)
    assert any("80 of 8,100 windows are computed" in text for text in notifications())


def test_rows_of_a_stopped_run_are_shown_as_they_are(viewer, tmp_path, notifications):
    heatmap = stopped(tmp_path / "a.zarr", order="raster")
    layer = view.show(viewer, sloping_slide(), heatmap)[1]
    pending = state_of(heatmap.state) == PENDING
    assert np.isnan(layer.data[pending]).all()
    assert not any("was stopped" in text for text in notifications())
