"""What a stream could not read: told once, kept, and the rest goes on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap.errors import GridError, SlideError, SlideReadError, one_line

if TYPE_CHECKING:
    from napari_wsi_heatmap.streams.settings import StreamSettings

MOST_LISTED: Final = 10_000
"""Windows that are named with their reasons."""
logger = logging.getLogger(__name__)


@dataclass
class Failures:
    """Slides and windows that could not be read.

    Memory bound: `MOST_LISTED` windows.
    """

    slides: dict[Any, str] = field(default_factory=dict)
    """Slide -> why."""
    windows: dict[tuple[Any, int, int], str] = field(default_factory=dict)
    """(slide, y, x), level-0 pixels -> why."""
    told: set[Any] = field(default_factory=set)
    """Slides of which a window was told."""
    others_read: bool = False
    """Whether slides that are left out as done were readable: the rest may all be broken."""

    def slide(self, name: Any, error: Exception) -> None:
        """Note a slide that cannot be opened, and tell it once."""
        if name not in self.slides:
            self.slides[name] = str(error)
            logger.warning("%s is left out: %s", name, error)

    def window(self, name: Any, place: tuple[int, int], why: str) -> None:
        """Note a window; the first of each slide is told."""
        key = (name, *place)
        if key in self.windows:
            return
        if name not in self.told:
            self.told.add(name)
            logger.warning("%s: windows cannot be read, %s the first: %s", name, place, why)
        if len(self.windows) < MOST_LISTED:
            self.windows[key] = one_line(why)


def may_be_left_out(error: Exception, settings: StreamSettings) -> bool:
    """Whether a slide's error is only reported; errors of hooks and settings never are."""
    return settings.on_error == "report" and isinstance(error, (SlideError, GridError))


def unreadable(name: Any, place: tuple[int, int], why: str) -> SlideReadError:
    """Error for a window that cannot be read, where that ends the stream."""
    return SlideReadError(
        why,
        f"{name}, window at (y, x) = {place}",
        "repair the slide, or go on without it by on_error='report'",
    )
