"""Pause, resume and cancel a run from another thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from collections.abc import Callable

X = TypeVar("X")
Y = TypeVar("Y")

POLL_S = 0.1


class RunControl:
    """The flags that a run looks at before every read and every batch.

    Parameters
    ----------
    pauses_on_trouble : bool
        Whether a full disk pauses the run (somebody watches and can resume it) rather than ends
        it with an error.
    """

    def __init__(self, *, pauses_on_trouble: bool = False) -> None:
        self.pauses_on_trouble = pauses_on_trouble
        self.cancelled = threading.Event()
        self.reason = ""
        self._going = threading.Event()
        self._going.set()

    @property
    def paused(self) -> bool:
        """Whether the run waits, or will at its next batch."""
        return not self._going.is_set()

    def pause(self, reason: str = "paused by the user") -> None:
        """Hold the run at its next batch."""
        self.reason = reason
        self._going.clear()

    def resume(self) -> None:
        """Let the run go on."""
        self.reason = ""
        self._going.set()

    def cancel(self) -> None:
        """End the run at its next batch; what is computed is kept, and can be resumed."""
        self.cancelled.set()

    def wait_while_paused(self) -> bool:
        """Block while paused; return whether to go on (False: cancelled)."""
        while not self._going.wait(POLL_S):
            if self.cancelled.is_set():
                return False
        return not self.cancelled.is_set()


def stop_if(cancelled: threading.Event | None, doing: str, where: object = None) -> None:
    """Raise a HeatmapError if what is being done is not wanted any more."""
    if cancelled is not None and cancelled.is_set():
        raise HeatmapError(f"cancelled while {doing}", where)


def while_wanted(
    call: Callable[[X], Y], cancelled: threading.Event | None, doing: str
) -> Callable[[X], Y]:
    """`call`, but a HeatmapError instead once it is not wanted any more."""

    def calling(given: X) -> Y:
        stop_if(cancelled, doing)
        return call(given)

    return calling
