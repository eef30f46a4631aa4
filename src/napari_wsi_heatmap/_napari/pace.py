"""How often a run may be drawn: where drawing is slow, less often than the timer asks."""

from __future__ import annotations

import time

from qtpy.QtCore import QTimer

REST = 3.0
"""Times as long as a picture took, nothing is drawn: without a graphics card a picture costs
50 ms of all cores, which the run could use as well."""
LONGEST_S = 0.5


class Pace:
    """Measures what it takes until the GUI is through with a picture, and makes it rest then."""

    def __init__(self) -> None:
        self._not_before = 0.0

    @property
    def due(self) -> bool:
        """Whether a picture may be drawn now."""
        return time.monotonic() >= self._not_before

    def drawing(self) -> None:
        """Say that a picture was just asked for."""
        began = time.monotonic()
        QTimer.singleShot(0, lambda: self._through(time.monotonic() - began))

    def _through(self, took: float) -> None:
        self._not_before = time.monotonic() + min(LONGEST_S, REST * took)
