"""A run's bar in napari's activity dock; it outlives the dock widget."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

from napari.utils import progress

if TYPE_CHECKING:
    from napari_wsi_heatmap.engine import Progress


class ActivityBar:
    """Created, updated and closed on the GUI thread.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: progress | None = None

    def show(self, state: Progress | None) -> None:
        """Bring the bar to a state of the run."""
        if state is None:
            return
        if self._bar is None:
            # napari's bars are tqdm's, which would also write to a terminal.
            self._bar = progress(total=state.planned, desc=self._title, file=_Nowhere())
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
