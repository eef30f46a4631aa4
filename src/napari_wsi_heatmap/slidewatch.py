"""Whether a slide's file is still the one that was opened."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import SlideChangedError

if TYPE_CHECKING:
    from napari_wsi_heatmap.slides.base import Slide

CHECK_S = 5.0
"""Seconds between looks."""


class SlideWatch:
    """Looks at a slide's file now and then."""

    def __init__(self, slide: Slide) -> None:
        self._slide, self._looked = slide, time.monotonic()

    def look(self, *, now: bool = False) -> None:
        """Look if it is time, or at once.

        Raises
        ------
        SlideChangedError
            If the file is another one.
        """
        if not now and time.monotonic() - self._looked < CHECK_S:
            return
        self._looked = time.monotonic()
        reason = self._slide.changed()
        if reason is not None:
            raise SlideChangedError(
                reason, self._slide.path, "what was computed before is kept; begin a new output"
            )
