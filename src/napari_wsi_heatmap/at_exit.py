"""What is still open when Python ends is closed while threads can still work.

A generator that nobody finished would be closed when modules are torn down. By then threads stand
still: nothing can be saved, and waiting for the one that saves would last for ever.
"""

from __future__ import annotations

import atexit

# Its pool is shut down when Python ends, and saving needs it: who registers later is called first.
import concurrent.futures.thread  # noqa: F401
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_open: dict[Callable[[], None], tuple[int, threading.Thread]] = {}


def remember(close: Callable[[], None]) -> None:
    """Call `close` when Python ends, and after the calling thread if Python waits for that."""
    _open[close] = os.getpid(), threading.current_thread()


def forget(close: Callable[[], None]) -> None:
    """It is closed; forgetting again does nothing."""
    _open.pop(close, None)


def _close_all() -> None:
    for close, (pid, thread) in tuple(_open.items()):
        if pid != os.getpid():  # a fork: it belongs to the parent
            continue
        if not thread.daemon and thread not in (
            threading.main_thread(),
            threading.current_thread(),
        ):
            thread.join()
        if close in _open:
            close()


# atexit's own functions come too late for threads; a Python without the other loses a few seconds
# of work, no more.
getattr(threading, "_register_atexit", atexit.register)(_close_all)
