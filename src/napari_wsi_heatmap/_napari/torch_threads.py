"""How many threads torch may use while a viewer must stay alive."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock = threading.Lock()
_runs = 0
_before = 0


def polite_threads() -> int:
    """All cores but one, which draws and answers the mouse."""
    return max(1, (os.cpu_count() or 2) - 1)


@contextmanager
def polite_torch() -> Iterator[None]:
    """Leave a core to the viewer; the last run that ends puts the number of threads back.

    Called in the thread that computes: a part of torch's number is that thread's own.
    """
    global _runs, _before
    import torch

    with _lock:
        _before = torch.get_num_threads() if _runs == 0 else _before
        _runs += 1
        torch.set_num_threads(min(_before, polite_threads()))
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            torch.set_num_threads(polite_threads() if _runs else _before)
