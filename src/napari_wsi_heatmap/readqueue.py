"""Reads in the background of which only the newest wishes count.

Threads live while there is something to read, and no longer; whoever wishes is not kept alive.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakMethod, ref

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

logger = logging.getLogger(__name__)

Job = TypeVar("Job", bound="Hashable")

NICENESS = 5
"""How far these threads stand back where the viewer wants the same core."""

THREADS = max(2, min(8, os.cpu_count() or 2))
"""Tiles decoded at the same time."""


class ReadQueue(Generic[Job]):
    """Reads the newest list of wishes, first things first, in a few daemon threads.

    Parameters
    ----------
    read : callable
        ``read(job) -> result``. What it raises is logged and ends nothing.
    owner : object
        For whom is read; it is not kept alive, and without it nothing more is read. `read` must
        not hold it: of two threads one would always be in the middle of a read.
    threads : int
        At most so many at once.
    name : str
        Of the threads.
    deliver : callable, optional
        Bound method ``deliver(job, result)`` of the owner, called from the thread that read it
        if it is still among the newest wishes. What it raises is logged as well.
    """

    def __init__(
        self,
        read: Callable[[Job], Any],
        owner: object,
        *,
        threads: int,
        name: str,
        deliver: Callable[[Job, Any], None] | None = None,
    ) -> None:
        self._read, self._owner = read, ref(owner)
        self._threads, self._name = threads, name
        self._deliver = None if deliver is None else WeakMethod(deliver)
        self._lock = threading.Lock()
        self._wished: frozenset[Job] = frozenset()
        self._waiting: list[Job] = []
        self._at_work: list[Job] = []
        self._alive = 0

    def replace(self, jobs: Sequence[Job]) -> None:
        """Forget what waits, and read these in this order.

        What is being read at the moment is read to its end, and not begun a second time.
        """
        with self._lock:
            self._wished = frozenset(jobs)
            self._waiting = [job for job in reversed(jobs) if job not in self._at_work]
            missing = min(self._threads, len(self._waiting) + len(self._at_work)) - self._alive
            self._alive += max(0, missing)
        for _ in range(missing):
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def clear(self) -> None:
        """Forget what waits."""
        self.replace(())

    def wished(self, job: Job) -> bool:
        """Whether a job is on the newest list."""
        return job in self._wished

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being read."""
        return self._alive == 0

    def _work(self) -> None:
        stand_back()
        while (job := self._take()) is not None:
            self._do(job)

    def _take(self) -> Job | None:
        """Take the next job; None, and count the thread as gone, if there is none."""
        with self._lock:
            if not self._waiting or self._owner() is None:
                self._alive -= 1
                return None
            self._at_work.append(self._waiting.pop())
            return self._at_work[-1]

    def _do(self, job: Job) -> None:
        result = _quietly(self._read, job)
        # In one step: a wish that comes now must either find it at work or begin it again.
        with self._lock:
            self._at_work.remove(job)
            wished = job in self._wished
        deliver = None if self._deliver is None else self._deliver()
        if wished and result is not None and deliver is not None:
            _quietly(deliver, job, result)


def _quietly(call: Callable[..., Any], *args: Any) -> Any:
    """Call it; None if it raises."""
    try:
        return call(*args)
    # Slides of the user's own may raise anything; nobody waits here to be told.
    except Exception:
        logger.debug("read in the background failed", exc_info=True)


def stand_back() -> None:
    """Let the calling thread yield to others, as far as the system knows such a thing."""
    # Only on Linux does a thread have a priority of its own by this call.
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
