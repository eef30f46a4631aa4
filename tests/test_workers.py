"""Threads that work off batches: in order, in turn, side by side, through every kind of end."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from napari_wsi_heatmap.workers import Plant, Workers

CPU = torch.device("cpu")


class Task:
    """Notes what is done with it, and when."""

    def __init__(self, number, log, *, raises=None, wait=None):
        self.number, self.log, self.raises, self.wait = number, log, raises, wait

    def prepare(self):
        self._note("prepare")

    def compute(self):
        self._note("compute")

    def arrive(self):
        self._note("arrive")

    def _note(self, step):
        self.log.append((step, self.number, threading.current_thread().name))
        if step == "compute" and self.wait is not None:
            self.wait(self.number)
        if self.raises == step:
            raise ValueError(f"{step} {self.number}")


def working(tasks, workers=3, *, in_turn=True, threads=1, stopped=lambda: False):
    return Workers([Plant(iter(tasks), workers, in_turn, threads, CPU)], stopped)


def numbers(tasks):
    return [task.number for task in tasks]


@pytest.mark.parametrize("in_turn", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_work(workers, in_turn):
    log = []
    tasks = [Task(n, log, wait=lambda n: time.sleep(0.002 * (n % 3))) for n in range(40)]
    crew = working(tasks, workers, in_turn=in_turn)
    assert numbers(crew) == list(range(40))
    assert crew.close(5)
    for step in ("prepare", "compute", "arrive"):
        assert sorted(n for s, n, _ in log if s == step) == list(range(40))


def test_the_model_is_run_in_turn_while_others_prepare():
    log, inside, most = [], [], []

    def alone(n):
        inside.append(n)
        time.sleep(0.005)
        most.append(len(inside))
        inside.pop()

    crew = working([Task(n, log, wait=alone) for n in range(20)], 3)
    assert numbers(crew) == list(range(20))
    assert max(most) == 1
    assert [n for s, n, _ in log if s == "compute"] == list(range(20))
    # The one after it is prepared before a batch's values are there.
    steps = [(step, n) for step, n, _ in log]
    ahead = [steps.index(("prepare", n + 1)) < steps.index(("arrive", n)) for n in range(19)]
    assert sum(ahead) >= 15


def test_side_by_side_where_the_model_allows_it():
    together = threading.Barrier(3, timeout=10)
    crew = working([Task(n, [], wait=lambda _: together.wait()) for n in range(3)], in_turn=False)
    assert numbers(crew) == [0, 1, 2]


@pytest.mark.parametrize("step", ["prepare", "compute", "arrive"])
@pytest.mark.parametrize("in_turn", [True, False])
def test_an_error_comes_after_all_that_was_before_it(step, in_turn):
    log, done = [], []
    tasks = [Task(n, log, raises=step if n == 7 else None) for n in range(20)]
    crew = working(tasks, in_turn=in_turn)
    with pytest.raises(ValueError, match=f"{step} 7"):
        done.extend(task.number for task in crew)
    assert crew.close(5)
    found = list(dict.fromkeys(n for _, n, _ in log))
    assert set(range(8)) <= set(found)
    assert max(found) < 20


def test_results_before_an_error_are_yielded():
    done = []
    crew = working([Task(n, [], raises="compute" if n == 7 else None) for n in range(20)])
    results = iter(crew)
    done.extend(next(results).number for _ in range(7))
    with pytest.raises(ValueError, match="compute 7"):
        next(results)
    assert done == list(range(7))
    assert crew.close(5)


def test_even_an_exit_of_a_model_is_carried_over():
    def leave(_):
        raise SystemExit(3)

    crew = working([Task(0, [], wait=leave)])
    with pytest.raises(SystemExit):
        list(crew)
    assert crew.close(5)


def test_an_error_of_the_source_is_carried_over():
    def source():
        yield Task(0, [])
        raise KeyError("no region")

    done = []
    with pytest.raises(KeyError, match="no region"):
        done.extend(task.number for task in working(source()))


def test_few_batches_are_ahead_of_who_takes_them():
    taken, seen = [], []

    def source():
        for n in range(100):
            taken.append(n)
            yield Task(n, [])

    for task in working(source(), 2):
        time.sleep(0.001)
        seen.append(len(taken) - task.number)
    assert len(seen) == 100
    assert max(seen) <= 2 + 1 + 1


def test_stopped_from_elsewhere_it_ends_at_once():
    stop, blocked = threading.Event(), threading.Event()

    def hang(n):
        if n == 3:
            blocked.set()
            stop.wait(20)
            time.sleep(0.3)  # a batch that is still in the model

    crew = working([Task(n, [], wait=hang) for n in range(10)], 2, stopped=stop.is_set)
    found = []
    for task in crew:
        found.append(task.number)
        if task.number == 2:
            assert blocked.wait(10)
            stop.set()
    assert found == [0, 1, 2]
    assert not crew.close(0.0)  # it waits no longer than it may
    assert crew.close(5)


def test_every_device_has_its_work_and_all_of_it_is_yielded():
    logs = [], []
    shared = iter(range(50))
    lock = threading.Lock()

    def source(log):
        while True:
            with lock:
                n = next(shared, None)
            if n is None:
                return
            yield Task(n, log, wait=lambda _: time.sleep(0.001))

    crew = Workers([Plant(source(log), 2, True, 1, CPU) for log in logs], lambda: False)
    assert sorted(numbers(crew)) == list(range(50))
    assert all(logs)
    assert crew.close(5)


def test_threads_of_torch_are_those_asked_for_and_the_callers_stay():
    before, found = torch.get_num_threads(), []
    tasks = [Task(n, [], wait=lambda _: found.append(torch.get_num_threads())) for n in range(8)]
    list(working(tasks, 2, threads=1))
    assert found == [1] * 8
    assert torch.get_num_threads() == before
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]
