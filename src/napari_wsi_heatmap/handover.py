"""Python handed from thread to thread more often while a run goes on."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL_S: Final = 0.0005
"""For which a thread may keep Python from others; Python's own 5 ms is as long as a batch."""


class _Interval:
    """One for the whole process: the last run to end puts back what was there before the first."""

    lock = threading.Lock()
    users = 0
    before = 0.0


@contextmanager
def quick_handover() -> Iterator[None]:
    """Let readers, workers and a viewer wait less for each other."""
    with _Interval.lock:
        if not _Interval.users:
            _Interval.before = sys.getswitchinterval()
            sys.setswitchinterval(min(INTERVAL_S, _Interval.before))
        _Interval.users += 1
    try:
        yield
    finally:
        with _Interval.lock:
            _Interval.users -= 1
            if not _Interval.users:
                sys.setswitchinterval(_Interval.before)
