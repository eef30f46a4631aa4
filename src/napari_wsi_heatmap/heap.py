"""Memory that is freed during a run kept for what needs it next.

glibc gives large blocks back to the system as soon as they are freed, and each page that is
touched anew costs an interrupt: a ResNet-50 on two cores spends 30 to 50 % of its time there
(`benchmarks/results/engine.md`). During runs freed blocks stay, in few pools; when the last run
ends, what is free goes back.
"""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIM_THRESHOLD: Final = -1
TOP_PAD: Final = -2
MMAP_THRESHOLD: Final = -3
ARENA_MAX: Final = -8
"""Numbers of glibc's parameters: malloc.h."""

KEPT: Final = 1 << 30
"""Bytes of a block from which on it is given back at once even so."""
PADDED: Final = 64 << 20
"""Bytes by which a pool grows, untouched until needed: a pool that is empty stays."""
USUAL: Final = {MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20, TOP_PAD: 128 << 10}
"""Where glibc's own thresholds end up once large blocks were freed: mallopt(3)."""


class _Users:
    """One heap for the whole process: the first run to begin keeps, the last to end lets go."""

    lock = threading.Lock()
    number = 0


def glibc() -> Any:
    """The C library of this process, if it is glibc."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version, library.mallopt, library.malloc_trim  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return None
    return library


@contextmanager
def kept_memory(*, give_back: bool = True) -> Iterator[None]:
    """Keep what is freed inside this, for the whole process; elsewhere than on glibc nothing.

    Parameters
    ----------
    give_back : bool
        Whether what is free goes back to the system at the end: meanwhile no other thread gets
        memory, a viewer's neither, for some 20 ms.
    """
    library = glibc()
    if library is None:
        yield
        return
    with _Users.lock:
        if not _Users.number:
            _keep(library)
        _Users.number += 1
    try:
        yield
    finally:
        with _Users.lock:
            _Users.number -= 1
            if not _Users.number:
                _let_go(library, give_back=give_back)


def _keep(library: Any) -> None:
    library.mallopt(MMAP_THRESHOLD, KEPT)
    library.mallopt(TRIM_THRESHOLD, KEPT)
    library.mallopt(TOP_PAD, PADDED)
    # Workers run the model in turn: with a pool for each, each would keep as much.
    library.mallopt(ARENA_MAX, 1)


def _let_go(library: Any, *, give_back: bool) -> None:
    for parameter, value in USUAL.items():
        library.mallopt(parameter, value)
    if give_back:
        library.malloc_trim(0)
