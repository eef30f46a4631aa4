"""A heatmap as a picture: over its slide, with a colour bar and a scale bar.

Drawn with NumPy and Pillow alone: it needs neither Qt nor a display.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import one_line
from napari_wsi_heatmap.lettering import GREY, INK, LINE, PAPER, Lettering
from napari_wsi_heatmap.overlay import colours_of, overlay, usual_cmap
from napari_wsi_heatmap.scalebar import draw_scale_bar, nice_length
from napari_wsi_heatmap.states import count_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from napari_wsi_heatmap.canvas import Canvas
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.overlay import Cmap
    from napari_wsi_heatmap.slides.base import Mask, Rgb, Slide

    Limits = tuple[float, float]


@dataclass(frozen=True)
class Composite:
    """A finished picture, and where the slide lies on it."""

    image: Image
    canvas: Canvas
    corner: tuple[int, int]
    """(y, x) of the canvas on the page, px."""
    limits: Limits
    """Values at the ends of the colour bar."""


@dataclass(frozen=True)
class _Look:
    """What the page is drawn with."""

    heatmap: Heatmap
    channel: int
    lut: Rgb
    limits: Limits
    em: float
    """px of the text's size; all distances follow from it."""


def compose(
    heatmap: Heatmap,
    slide: Slide | None = None,
    *,
    channel: int | str = 0,
    cmap: Cmap | None = None,
    opacity: float = 0.5,
    limits: Limits | None = None,
    side: int = 2000,
) -> Composite:
    """Draw a heatmap.

    Parameters
    ----------
    heatmap : Heatmap
    slide : Slide, optional
        Drawn below the map; without it the map stands alone.
    channel : int or str
        Index or name of the output to draw.
    cmap : str or sequence, optional
        Name of a colour map that `cmap` knows, or its colours (n, 3 or 4) in 0…1; default turbo,
        of a difference coolwarm.
    opacity : float
        Of the map over the slide, 0…1.
    limits : (float, float), optional
        Values at the ends of the colour map; default the model's own, else
        the 1st and 99th percentile of what is drawn.
    side : int
        Longer side of the slide's picture, px.

    Returns
    -------
    Composite

    Raises
    ------
    ExportError
        If an argument makes no sense, or the slide is another one.

    Notes
    -----
    Memory bound: the map, 64 MB of a slide without small levels, and some pictures of `side`.
    """
    laid = overlay(
        heatmap, slide, channel=channel, cmap=cmap, opacity=opacity, limits=limits, side=side
    )
    em = max(13.0, max(laid.canvas.shape) / 66)
    look = _Look(heatmap, laid.channel, colours_of(cmap or usual_cmap(heatmap)), laid.limits, em)
    return _page(look, laid.picture, laid.canvas, laid.drawn)


def _page(look: _Look, picture: Rgb, canvas: Canvas, drawn: Mask) -> Composite:
    """Put title, picture and colour bar on a page."""
    from PIL import Image, ImageDraw

    em, (height, width) = look.em, canvas.shape
    bar = _Bar.of(look, height)
    top, left = round(4.6 * em), round(1.6 * em)
    page_height = top + max(height, bar.height) + left
    page_width = max(left + width + round(bar.room), round(22 * em))
    page = Image.new("RGB", (page_width, round(page_height)), PAPER)
    page.paste(Image.fromarray(picture), (left, top))
    pen = ImageDraw.Draw(page)
    box = left - 1, top - 1, left + width, top + height
    pen.rectangle(box, outline=LINE, width=max(1, round(em / 16)))
    _draw_title(pen, look, left, page.width - 2 * left)
    bar.draw(page, pen, (left + width, top))
    if look.heatmap.grid.spec.mpp is not None:
        draw_scale_bar(page, canvas, (left, top), look.heatmap.grid.spec.mpp[1], em, drawn)
    return Composite(page, canvas, (top, left), look.limits)


def _draw_title(pen: ImageDraw, look: _Look, left: float, room: float) -> None:
    heatmap, em = look.heatmap, look.em
    bold, plain, small = Lettering(1.25 * em, bold=True), Lettering(1.25 * em), Lettering(0.95 * em)
    name = bold.fitted(one_line(heatmap.names[look.channel], 80), room)
    bold.draw(pen, (left, 2.0 * em), name, INK)
    after = bold.width(name) + 0.6 * em
    slide = plain.fitted(one_line(heatmap.run["slide"]["name"], 120), max(0.0, room - after))
    plain.draw(pen, (left + after, 2.0 * em), slide, GREY)
    small.draw(pen, (left, 3.6 * em), small.fitted(_summary(heatmap), room), GREY)


def _summary(heatmap: Heatmap) -> str:
    """What was computed, in one line."""
    counts, spec = count_states(heatmap.state), heatmap.grid.spec
    windows = "window" if counts["done"] == 1 else "windows"
    text = f"{counts['done']:,} {windows} of {spec.window[0]} × {spec.window[1]} px"
    if spec.mpp is not None:
        text += f" at {spec.footprint_level0[0] * spec.mpp[0] / spec.window[0]:.3g} µm/px"
    if counts["failed"]:
        text += f" · {counts['failed']:,} failed"
    if counts["pending"]:
        text += f" · {counts['pending']:,} still to come"
    return text


@dataclass(frozen=True)
class _Bar:
    """The colour bar right of the picture."""

    look: _Look
    ticks: tuple[float, ...]
    text: Lettering
    height: int

    @classmethod
    def of(cls, look: _Look, picture_height: int) -> _Bar:
        height = round(max(8 * look.em, min(picture_height, 26 * look.em)))
        return cls(look, tuple(nice_ticks(*look.limits)), Lettering(0.95 * look.em), height)

    @property
    def room(self) -> float:
        """Width of the column on the page, px."""
        em, unit = self.look.em, self.look.heatmap.run["model"]["unit"]
        labels = max(self.text.width(label) for label in tick_labels(self.ticks))
        return max(1.2 * em + 2.0 * em + labels, 1.2 * em + self.text.width(unit)) + 1.6 * em

    def draw(self, page: Image, pen: ImageDraw, corner: tuple[int, int]) -> None:
        """Draw it right of `corner` (x, y), the picture's top right."""
        from PIL import Image

        em, (low, high) = self.look.em, self.look.limits
        x, y, width = round(corner[0] + 1.2 * em), corner[1], round(1.1 * em)
        self.text.draw(pen, (x, y - em), self.look.heatmap.run["model"]["unit"], INK)
        shade = np.linspace(255, 0, self.height).round().astype(np.uint8)
        column = np.repeat(self.look.lut[shade][:, None], width, axis=1)
        page.paste(Image.fromarray(column), (x, y))
        for tick, label in zip(self.ticks, tick_labels(self.ticks), strict=True):
            at = y + (self.height - 1) * (high - tick) / (high - low)
            pen.line((x + width, at, x + width + 0.35 * em, at), GREY, max(1, round(em / 12)))
            self.text.draw(pen, (x + width + 0.65 * em, at), label, INK, "lm")


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Write numbers with as many decimals as the one that needs most."""
    texts = [f"{tick:,.6g}" for tick in ticks]
    if not any("e" in text for text in texts):
        decimals = max(len(text.partition(".")[2]) for text in texts)
        texts = [f"{tick:,.{decimals}f}" for tick in ticks]
    return [text.replace("-", "−") for text in texts]


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Return round numbers in low…high, `about` as many of them."""
    step = nice_length((high - low) / about * 1.5)
    first = math.ceil(low / step - 1e-9)
    ticks = [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return ticks or [low, high]
