"""Text on pictures: one typeface on every machine, and texts cut to the room there is."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

PAPER, INK, GREY, LINE = "#ffffff", "#18181b", "#71717a", "#d4d4d8"

FACES = {False: "OpenSans-Regular.ttf", True: "OpenSans-Bold.ttf"}
"""Open Sans comes with vispy, on which napari stands; it has µ and ²."""
PLAIN = str.maketrans(
    {"µ": "u", "²": "2", "³": "3", "×": "x", "–": "-", "·": "-", "…": ".", "−": "-"}
)
"""For Pillow's own face, which lacks these."""


class Lettering:
    """A size of text to draw with.

    Parameters
    ----------
    size : float
        px of an em.
    bold : bool
    """

    def __init__(self, size: float, *, bold: bool = False) -> None:
        self.size = size
        self._font, self._complete = _font(round(size), bold)

    def width(self, text: str) -> float:
        """Length of a text, px."""
        return float(self._font.getlength(self._spelled(text)))

    def fitted(self, text: str, room: float) -> str:
        """Return `text`, cut with an ellipsis to at most `room` px."""
        if self.width(text) <= room:
            return text
        while text and self.width(text + "…") > room:
            text = text[:-1]
        return text + "…"

    def draw(
        self,
        on: ImageDraw,
        at: tuple[float, float],
        text: str,
        colour: str,
        anchor: str = "ls",
    ) -> None:
        """Draw a text at (x, y), with Pillow's `anchor`: ``ls`` is left, on the baseline."""
        on.text(at, self._spelled(text), colour, self._font, anchor)

    def _spelled(self, text: str) -> str:
        if self._complete:
            return text
        return text.translate(PLAIN).encode("ascii", "replace").decode()


@cache
def _font(size: int, bold: bool) -> tuple[Font, bool]:
    from PIL import ImageFont

    vispy = importlib.util.find_spec("vispy")  # found, not imported
    for folder in (vispy and vispy.submodule_search_locations) or ():
        try:
            face = Path(folder, "util", "fonts", "data", FACES[bold])
            return ImageFont.truetype(face, size), True
        except OSError:
            continue
    return ImageFont.load_default(size), False
