"""What arises during a live run, and where its time goes, as the dock says it."""

from __future__ import annotations

import pytest
import torch
from live import SLOW, Slow, no_worker_left, tissue_slide, wait_over

from napari_wsi_heatmap._napari.progress_text import done_line, going_line, progress_line
from napari_wsi_heatmap._napari.run_panel import RunPanel
from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap.progress import Progress

TRIED = 6
"""Calls of a dry run whose batch size is given."""
LIMIT = "the model waits 63 % of the time for reading: add reader threads"


@pytest.fixture
def start(qtbot, viewer):
    jobs = []

    def start(model, **settings):
        jobs.append(start_job(viewer, tissue_slide(), model, **(SLOW | settings)))
        return jobs[-1]

    yield start
    for job in jobs:
        job.cancel()
        wait_over(qtbot, job)
    qtbot.waitUntil(no_worker_left)


class Short(Slow):
    """Out of memory with more than four windows, once it was tried."""

    window = 32

    def __call__(self, batch):
        if self.calls >= TRIED and len(batch) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().__call__(batch)


def told_of_memory(notifications):
    return [text for text in notifications() if "memory ran out" in text]


def test_what_arises_in_a_run_is_told_once_and_shown(start, notifications):
    job = start(Short(0.0), batch_size=8)
    panel = RunPanel()
    panel.follow(job)
    assert job.wait().run["halved"]
    assert len(told_of_memory(notifications)) == 1
    assert [n for n in job.notices if "a batch holds 4 windows, not 8" in n]
    assert "a batch holds 4 windows, not 8" in panel["notice"].tooltip
    panel.leave()


def test_it_is_told_while_the_run_goes_on(start, notifications, qtbot):
    job = start(Short(0.05), batch_size=8)
    qtbot.waitUntil(lambda: bool(told_of_memory(notifications)) or job.over)
    assert not job.over
    job.cancel()
    wait_over(qtbot, job)
    assert len(told_of_memory(notifications)) == 1


def test_a_cancel_while_the_model_is_tried_is_followed_at_its_next_call(start, qtbot):
    model = Slow(0.2)
    job = start(model, batch_size=None)
    qtbot.waitUntil(lambda: model.calls > 0)
    job.cancel()
    calls = model.calls
    assert job.line == "cancelling…"
    wait_over(qtbot, job)
    assert model.calls <= calls + 1  # one may have begun meanwhile
    assert (job.state, job.error) == ("cancelled", None)


def progress(**told):
    return Progress(1000, 250, 0, 50.0, 15.0, **told)


def test_a_line_says_where_the_time_goes():
    shares = "reading 12 % · model 80 %"
    assert going_line(progress(shares=shares), 0) == f"{progress_line(progress())}\n{shares}"
    both = going_line(progress(shares=shares, bottleneck=LIMIT), 0)
    assert both == f"{progress_line(progress())}\n{LIMIT}"
    assert going_line(progress(), 0) == progress_line(progress())
    assert going_line(progress(shares=shares), 7).endswith("; nothing new for 7 s")


def record(**told):
    counts = {"done": 1, "failed": 0, "not_finite": 0}
    return {"counts": counts | told, "seconds": {"active": 12.0}}


def test_the_last_line():
    assert done_line(record()) == "done: 1 window in 12 s"
    line = done_line(record(done=1200, failed=2, not_finite=1))
    assert line == (
        "done: 1,200 windows in 12 s; 2 windows could not be read; "
        "1 window has values that are not finite"
    )
    assert done_line(record() | {"bottleneck": LIMIT}) == f"done: 1 window in 12 s\n{LIMIT}"
