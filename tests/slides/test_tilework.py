"""Work that a caller shares with idle threads: all of it done once, errors, forks, references."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import weakref
from collections import Counter

import pytest

from napari_wsi_heatmap.slides import tilework
from napari_wsi_heatmap.slides.tilework import share_out

SOON = 20
"""Seconds after which a thread that should have ended hangs."""
MANY = 10**6
"""Pieces of work that are always worth sharing."""


@pytest.fixture(scope="module")
def three_threads():
    return tilework._Threads(3)


@pytest.fixture(autouse=True)
def four_cores(monkeypatch, three_threads):
    """Three threads beside the caller, whatever the machine has."""
    monkeypatch.setattr(tilework, "_cores", 4)
    monkeypatch.setattr(tilework, "_threads", three_threads)


def in_threads(number, job):
    """Run `job(index)` in threads, and fail if one does not end or raises."""
    errors = []

    def run(index):
        try:
            job(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


class TestEveryTaskOnce:
    @pytest.mark.parametrize("number", [0, 1, 2, 3, 100])
    @pytest.mark.parametrize("pieces", [0, 1, 5, MANY])
    def test_whatever_their_number(self, number, pieces):
        done = []
        share_out(list(range(number)), done.append, pieces)
        assert sorted(done) == list(range(number))

    def test_with_many_callers_at_once(self):
        done = [[] for _ in range(8)]

        def call(index):
            for start in range(0, 2000, 50):
                share_out(list(range(start, start + 50)), done[index].append, MANY)

        in_threads(8, call)
        for one in done:
            assert Counter(one) == Counter(range(2000))

    def test_a_task_may_share_out_itself(self):
        done = []

        def outer(task):
            share_out([(task, i) for i in range(5)], done.append, MANY)

        share_out(list(range(5)), outer, MANY)
        assert sorted(done) == [(i, j) for i in range(5) for j in range(5)]

    def test_is_done_when_it_returns(self):
        slow, done = threading.Event(), []

        def work(task):
            if threading.current_thread().name.startswith("tiles-"):
                slow.wait(0.05)
            done.append(task)

        for _ in range(20):
            done.clear()
            share_out(list(range(8)), work, MANY)
            assert len(done) == 8

    def test_others_help(self):
        """Two tasks that wait for each other are done by two threads."""
        together = threading.Barrier(2, timeout=SOON)
        share_out([1, 2], lambda _: together.wait(), MANY)

    def test_little_is_not_shared(self):
        names = set()
        share_out(list(range(50)), lambda _: names.add(threading.current_thread().name), 3)
        assert names == {threading.current_thread().name}


class TestIdle:
    def test_callers_keep_their_cores(self):
        threads = tilework._common_threads()
        assert (threads.number, threads.idle()) == (3, 3)
        left = []
        for _ in range(5):
            threads.count(1)
            left.append(threads.idle())
        assert left == [3, 2, 1, 0, -1]
        threads.count(-5)
        assert threads.idle() == 3

    def test_nobody_is_asked_where_all_cores_call(self):
        threads, done = tilework._common_threads(), []
        threads.count(3)
        share_out(list(range(9)), done.append, MANY)
        assert threads.offered.empty()
        threads.count(-3)
        assert done == list(range(9))  # by the caller alone, in order

    def test_an_error_counts_the_caller_out(self):
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                share_out([1, 2, 3], lambda _: 1 / 0, MANY)
        assert tilework._common_threads().idle() == 3


class TestErrors:
    @pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
    def test_the_first_is_raised_in_the_caller(self, error):
        def work(task):
            if task == 4:
                raise error

        with pytest.raises(type(error)) as caught:
            share_out(list(range(50)), work, MANY)
        assert caught.value is error

    def test_of_a_helper_too(self):
        together = threading.Barrier(2, timeout=SOON)

        def work(_):
            together.wait()
            if threading.current_thread().name.startswith("tiles-"):
                raise ValueError("of a helper")

        with pytest.raises(ValueError, match="of a helper"):
            share_out([1, 2], work, MANY)

    def test_ends_the_rest(self):
        done = []

        def work(task):
            done.append(task)
            raise ValueError(task)

        with pytest.raises(ValueError, match=r"\d"):
            share_out(list(range(1000)), work, MANY)
        assert len(done) <= 4  # at most one by each thread

    def test_leave_no_thread_waiting(self):
        def call(index):
            for _ in range(100):
                with pytest.raises(ValueError, match="no"):
                    share_out(list(range(9)), fail, MANY)

        def fail(task):
            raise ValueError("no")

        in_threads(8, call)
        TestEveryTaskOnce().test_others_help()

    def test_an_interrupt_waits_for_those_who_still_work(self):
        """Else the file could be closed under them, and its number given to another."""
        began, ended = threading.Barrier(2, timeout=SOON), []

        def work(_):
            began.wait()
            if threading.current_thread() is threading.main_thread():
                os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.1)
            ended.append(threading.current_thread().name)

        with pytest.raises(KeyboardInterrupt):
            share_out([1, 2], work, MANY)
        assert len(ended) == 1


class Work:
    """What a share must not keep alive."""

    def __init__(self, error=None):
        self.error = error

    def __call__(self, task):
        if self.error:
            raise self.error


class TestNothingIsKept:
    def test_of_a_share_that_waits_for_a_stuck_thread(self):
        """A stalled disk holds the threads; what is read meanwhile must not pile up."""
        free, stuck = threading.Event(), threading.Barrier(5, timeout=SOON)

        def stall(_):
            stuck.wait()
            free.wait(SOON)

        with contextlib.ExitStack() as at_end:
            at_end.callback(free.set)
            stalled = threading.Thread(
                target=share_out, args=([1, 2, 3, 4], stall, MANY), daemon=True
            )
            stalled.start()
            stuck.wait()
            work = Work()
            known = weakref.ref(work)
            share_out([1, 2, 3], work, MANY)
            assert not tilework._common_threads().offered.empty()
            del work
            assert known() is None
        stalled.join(SOON)

    def test_of_an_error(self):
        gc.disable()
        try:
            work = Work(ValueError("x"))
            known = weakref.ref(work)
            with contextlib.suppress(ValueError):
                share_out([1], work, 1)
            work.error = None
            del work
            assert known() is None
        finally:
            gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestFork:
    def test_the_child_has_threads_of_its_own(self):
        share_out(list(range(50)), lambda _: None, MANY)
        assert in_child(TestEveryTaskOnce().test_others_help) == 0

    def test_in_the_middle_of_work(self):
        stop = threading.Event()

        def call(_):
            while not stop.is_set():
                share_out(list(range(20)), lambda _: None, MANY)

        callers = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(4)]
        for caller in callers:
            caller.start()
        try:
            codes = [in_child(TestEveryTaskOnce().test_others_help) for _ in range(10)]
        finally:
            stop.set()
        for caller in callers:
            caller.join(SOON)
        assert codes == [0] * 10


def in_child(job):
    """Exit status of a forked child that does `job`; a hang is ended by a signal."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(SOON)
        try:
            job()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]
