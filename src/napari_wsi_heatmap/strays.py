"""Threads that are still in torch when Python ends.

Python ends such a thread when it comes back from C++, by `pthread_exit`; glibc then unwinds
through frames that must not throw, and the whole process is aborted. Here it sleeps instead, until
the process is gone a moment later.
"""

from __future__ import annotations

import atexit
import ctypes
import sys
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from threading import Thread

_watched: WeakSet[Thread] = WeakSet()


def watch(thread: Thread) -> None:
    """Let Python end without an abort, whatever this thread is doing then."""
    _watched.add(thread)


def interrupt(thread: Thread) -> None:
    """End a thread at its next step in Python, whatever it is doing: only as Python ends."""
    if thread.is_alive() and sys.implementation.name == "cpython":
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


def _sleep_rather_than_abort() -> None:
    if sys.platform != "linux" or sys.version_info >= (3, 14):  # nothing is unwound there
        return
    if not any(thread.is_alive() for thread in _watched):
        return
    with suppress(OSError, AttributeError):  # another C++ library than GCC's
        set_terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt13set_terminatePFvvE"]
        set_terminate.argtypes, set_terminate.restype = (ctypes.c_void_p,), ctypes.c_void_p
        set_terminate(ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p))


atexit.register(_sleep_rather_than_abort)
