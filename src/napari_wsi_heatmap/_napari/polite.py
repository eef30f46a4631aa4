"""How a run leaves the viewer room to breathe: fewer threads of torch, later in the queue.

Drawing a canvas is a few hundred short steps; each may have to wait for a core that a run keeps
busy.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_wsi_heatmap.readqueue import stand_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def run_politely(work: Callable[[], None]) -> None:
    """Call ``work()`` in a thread of lower priority and wait for it; raises what it raises.

    A thread of its own, since priority once given up cannot be taken back, and threads of a
    pool serve others later. The threads that it starts inherit it.
    """
    raised: list[BaseException] = []

    def call() -> None:
        stand_back()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            raised.append(error)

    thread = threading.Thread(target=call, name="heatmap-run", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
