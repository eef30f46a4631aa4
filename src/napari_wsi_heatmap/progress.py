"""How far a run has come, for displays."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

STALLED_S = 5.0
"""Seconds of waiting for a read after which the user is told."""
TELL_S = 1.0
"""Seconds between looks at whether there is something to tell."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    planned: int
    """Windows to compute in all, those of earlier sessions included."""
    done: int
    failed: int
    per_second: float
    """Windows per second of this session, pauses left out."""
    seconds_left: float | None
    waiting_s: float = 0.0
    """Seconds for which the run has waited by now for the slide to be read; 0 if it does not."""
    shares: str = ""
    """What this session spends its time on, in a few words."""
    bottleneck: str = ""
    """What limits it, in a sentence; empty if nothing is to be said."""


def stalled_notice(waiting_s: float) -> str:
    """Say that a read hangs, once it has for `STALLED_S`; empty before."""
    if waiting_s < STALLED_S:
        return ""
    return f"waiting for the slide: a read has taken {waiting_s:.0f} s"


@contextmanager
def telling(bar: Any, notice: Callable[[], str]) -> Iterator[None]:
    """Keep a notice on a tqdm bar, from a thread: a run that waits cannot say so itself."""
    over = threading.Event()

    def watch() -> None:
        told = ""
        while not over.wait(TELL_S):
            if told != (text := notice()):
                bar.set_postfix_str(told := text)

    watcher = threading.Thread(target=watch, name="wsi-bar", daemon=True)
    if not bar.disable:
        watcher.start()
    try:
        yield
    finally:
        over.set()
        if not bar.disable:
            watcher.join()  # a bar that is closed must not be drawn again
