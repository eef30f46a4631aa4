"""Tiles shared out among threads: the one that asks works too, idle ones help.

Decoding releases the GIL, so a region is done sooner by several threads. Who reads from several
threads already keeps them all busy: then nobody is idle, and nobody waits for help.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Task = TypeVar("Task")

FEWEST = 2
"""Pieces of work for each further thread; less is done before that thread has woken up."""


class _Share(Generic[Task]):
    """Tasks of one caller, taken one by one by whoever is free."""

    def __init__(self, tasks: Iterable[Task], work: Callable[[Task], None]) -> None:
        self._left, self._work = deque(tasks), work
        self._error: BaseException | None = None
        self._helping = 0
        self._ended = False
        self._changed = threading.Condition()

    def do(self) -> None:
        """Take tasks until there are none; the first error ends it for all."""
        while self._error is None:
            try:
                task = self._left.popleft()
            except IndexError:
                return
            try:
                self._work(task)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                self._error = error

    def help(self) -> None:
        """Take tasks as a further thread, unless the caller has ended."""
        with self._changed:
            if self._ended:
                return
            self._helping += 1
        try:
            self.do()
        finally:
            with self._changed:
                self._helping -= 1
                self._changed.notify_all()

    def end(self) -> None:
        """Wait for the tasks that others still do, and raise what went wrong."""
        with self._changed:
            self._ended = True
            self._left.clear()  # there are some only if the caller was interrupted
            while self._helping:
                self._changed.wait()
        # A share may wait long for a thread that is stuck elsewhere: it must not keep a region.
        self._work = _nothing
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error


def _nothing(_: object) -> None:
    """Do what is left of a share that has ended."""


class _Threads:
    """Daemon threads of one process that wait for shares.

    Not an executor: its threads would be joined at the end, also one whose disk is stalled.
    """

    def __init__(self, number: int) -> None:
        self.pid, self.number = os.getpid(), number
        self.offered: SimpleQueue[_Share[object]] = SimpleQueue()
        self._callers = 0
        self._counting = threading.Lock()
        for index in range(number):
            threading.Thread(target=self._run, name=f"tiles-{index}", daemon=True).start()

    def count(self, callers: int) -> None:
        """Count a caller, who is a working thread himself: 1 when he begins, -1 at his end."""
        with self._counting:
            self._callers += callers

    def idle(self) -> int:
        """How many threads could help now without taking a core from a caller."""
        return min(self.number, _cores - self._callers)

    def _run(self) -> None:
        while True:
            self.offered.get().help()


_threads: _Threads | None = None
_starting = threading.Lock()
_cores = os.cpu_count() or 2


def share_out(tasks: list[Task], work: Callable[[Task], None], pieces: int) -> None:
    """Call ``work(task)`` for each task, by this thread and by idle ones.

    Parameters
    ----------
    tasks : list
    work : callable
    pieces : int
        How much work that is, in units worth some 0.1 ms; little is not shared.

    Raises
    ------
    BaseException
        The first that `work` raised; tasks not begun by then are left undone.
    """
    threads = _common_threads()
    further = min(len(tasks), pieces // FEWEST) - 1
    threads.count(1)
    try:
        helpers = min(further, threads.idle())
        if helpers > 0:
            _with_help(threads, helpers, _Share(tasks, work))
        else:
            for task in tasks:
                work(task)
    finally:
        threads.count(-1)


def _with_help(threads: _Threads, helpers: int, share: _Share[Task]) -> None:
    for _ in range(helpers):
        threads.offered.put(share)  # type: ignore[arg-type]
    try:
        share.do()
    finally:  # an interrupt must not release what others still write to
        share.end()


def _common_threads() -> _Threads:
    global _threads, _starting
    if _threads is None or _threads.pid != os.getpid():
        if _threads is not None:
            _starting = threading.Lock()  # a fork: the parent's may be held for ever
        with _starting:
            if _threads is None or _threads.pid != os.getpid():
                _threads = _Threads(max(1, _cores - 1))
    return _threads
