"""The worker's thread: what it leaves behind, and what it never swallows."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from live import SLOW, Slow, add_slide, tissue_slide

from napari_wsi_heatmap._napari.colors import ValueSample, widened
from napari_wsi_heatmap._napari.guarded import bare, guarded
from napari_wsi_heatmap._napari.pace import LONGEST_S, Pace
from napari_wsi_heatmap._napari.polite import polite_threads, polite_torch, run_politely
from napari_wsi_heatmap._napari.slide_source import source_of
from napari_wsi_heatmap._napari.worker import RunTask, start_worker
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.readqueue import NICENESS


@pytest.fixture
def run_task(qtbot, viewer):
    """Run a task to its end; what its signals brought."""

    def run(model, quit_at_once=False, **settings):
        source = source_of(add_slide(viewer, tissue_slide()))
        task = RunTask("a title", source, model, RunControl(), settings)
        came = []
        worker = start_worker(
            task,
            planned=lambda: came.append("planned"),
            errored=came.append,
            aborted=lambda: came.append("aborted"),
            finished=lambda: came.append("finished"),
        )
        if quit_at_once:
            worker.quit()
        qtbot.waitUntil(lambda: "finished" in came, timeout=60_000)
        return task, worker, came

    return run


def test_a_run_is_planned_once_and_finishes(run_task):
    task, worker, came = run_task("tissue", tissue="none")
    assert came == ["planned", "finished"]
    assert task.progress.done == task.progress.planned > 0
    assert not worker.is_running


@pytest.mark.parametrize("error", [RuntimeError("torn"), KeyError("torn"), SystemExit(1)])
def test_every_error_arrives_as_one_of_ours(run_task, error):
    def model(batch):
        raise error

    _, worker, came = run_task(model, tissue="none")
    came = [what for what in came if what != "planned"]
    assert len(came) == 2
    assert isinstance(came[0], HeatmapError)
    assert not isinstance(came[0], RuntimeError)
    assert type(error).__name__ in str(came[0])
    assert came[1] == "finished"
    assert not worker.is_running


def test_quitting_ends_it_and_napari_is_told(run_task):
    task, _, came = run_task(Slow(), quit_at_once=True, **SLOW)
    assert came[-2:] == ["aborted", "finished"]
    assert task.progress is None or task.progress.done < task.progress.planned


def test_an_empty_task_keeps_nothing(run_task):
    task, _, _ = run_task("tissue", tissue="none")
    task.clear()
    assert repr(task) == "a title"
    held = [v for v in vars(task).values() if type(v).__module__.startswith("napari_wsi_heatmap")]
    kinds = {type(value).__name__ for value in held}
    assert kinds == {"RunControl", "Progress"}


def test_warnings_go_to_the_log(run_task, caplog):
    def model(batch):
        warnings.warn("a library complains", UserWarning, stacklevel=2)
        return batch.mean((1, 2, 3))

    with caplog.at_level(logging.WARNING):
        run_task(model, tissue="none")
    assert "UserWarning: a library complains" in caplog.text


def test_a_sample_is_even_however_the_values_come():
    values = np.random.default_rng(0).normal(size=(200_000, 2)).astype(np.float32)
    values[:, 1] += 100
    sample = ValueSample(2)
    taken = 0
    for n in np.random.default_rng(1).integers(1, 300, 5000):
        sample.add(values[taken : taken + n])
        taken += n
        if taken > len(values):
            break
    for channel, middle in enumerate((0, 100)):
        low, high = sample.limits(channel)
        assert np.allclose((low - middle, high - middle), (-2.33, 2.33), atol=0.15)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([], None),
        ([np.nan, np.inf], None),
        ([3.0, 3.0], (3.0, 4.0)),
        ([0.0] * 500 + [1.0], (0.0, 1.0)),
        ([0.0, np.nan, 1.0, -np.inf], (0.01, 0.99)),
    ],
)
def test_limits_of_few_values(values, limits):
    sample = ValueSample(1)
    sample.add(np.array(values, np.float32)[:, None])
    found = sample.limits(0)
    assert found is None if limits is None else found == pytest.approx(limits, abs=1e-3)


def test_limits_of_dense_values():
    sample = ValueSample(1)
    sample.add(np.linspace(0, 1, 2 * 64 * 64, dtype=np.float32).reshape(2, 1, 64, 64))
    low, high = sample.limits(0)
    assert 0 <= low < 0.1
    assert 0.9 < high <= 1


def test_limits_only_widen_and_not_for_a_trifle():
    assert widened(None, (0, 1)) == (0, 1)
    assert widened((0, 1), (0.2, 0.8)) == (0, 1)
    assert widened((0, 1), (-0.01, 1.01)) == (0, 1)
    assert widened((0, 1), (0.5, 2.0)) == (0, 2.0)


def test_two_runs_at_once_give_torch_its_threads_back():
    before = torch.get_num_threads()
    with polite_torch():
        with polite_torch():
            assert torch.get_num_threads() <= polite_threads()
        assert torch.get_num_threads() <= polite_threads()
    assert torch.get_num_threads() == before


def test_a_polite_thread_raises_where_it_is_waited_for():
    def fail():
        raise ValueError("there")

    with pytest.raises(ValueError, match="there"):
        run_politely(fail)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_only_the_polite_thread_stands_back():
    seen = []
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    run_politely(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert seen == [min(19, max(own, NICENESS))]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_a_slow_picture_is_followed_by_a_rest(qtbot):
    pace = Pace()
    assert pace.due
    pace._through(10.0)
    assert not pace.due
    qtbot.waitUntil(lambda: pace.due, timeout=int(20_000 * LONGEST_S))


def test_guarded_slots_log_what_they_raise(caplog):
    @guarded
    def slot(value):
        raise KeyError(value)

    assert slot(3) is None
    assert "KeyError: 3" in caplog.text


def test_bare_takes_off_napari_s_proxy(viewer):
    from napari.utils._proxies import PublicOnlyProxy

    assert bare(PublicOnlyProxy(viewer)) is viewer
    assert bare(viewer) is viewer
    assert bare(None) is None
