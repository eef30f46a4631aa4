"""A run's bar in napari's activity dock; it outlives the dock widget."""

from __future__ import annotations

import contextlib
import io
import time
from typing import TYPE_CHECKING

from napari.utils import progress

if TYPE_CHECKING:
    from napari_wsi_heatmap.progress import Progress

EVERY_S = 0.5
"""Seconds between updates: each lets napari serve all events, in the middle of ours."""


class ActivityBar:
    """Created, updated and closed on the GUI thread.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: progress | None = None
        self._updated = 0.0

    def begin(self) -> None:
        """Show that something begins whose length is not known yet."""
        # napari's bars are tqdm's, which would also write to a terminal.
        self._bar = progress(total=0, desc=self._title, file=_Nowhere())

    def show(self, state: Progress | None) -> None:
        """Bring the bar to a state of the run, now and then."""
        now = time.monotonic()
        if self._bar is None or state is None or now - self._updated < EVERY_S:
            return
        self._updated = now
        if self._bar.total != state.planned:
            self._bar.total = state.planned
        self._bar.update(state.done + state.failed - self._bar.n)

    def close(self) -> None:
        """Take the bar away; its window may be gone already."""
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(RuntimeError):
                bar.close()


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)
