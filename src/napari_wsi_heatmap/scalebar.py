"""The scale bar of a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.lettering import INK, PAPER, Lettering

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_wsi_heatmap.canvas import Canvas
    from napari_wsi_heatmap.slides.base import Mask


def nice_length(most: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not above `most`."""
    power = 10.0 ** math.floor(math.log10(most) + 1e-9)
    return max(f * power for f in (1, 2, 5) if f * power <= most * (1 + 1e-9))


def draw_scale_bar(
    page: Image, canvas: Canvas, corner: tuple[int, int], mpp: float, em: float, drawn: Mask
) -> None:
    """Draw it on a patch of paper into a lower corner of the picture, if there is room.

    Parameters
    ----------
    page : PIL.Image.Image
    canvas : Canvas
    corner : (int, int)
        (x, y) of the picture's top left on the page, px.
    mpp : float
        µm per level-0 pixel, across.
    em : float
        px of the text's size.
    drawn : (height, width) bool
        Pixels of the picture that show a cell: the corner with fewer of them is taken.
    """
    pixel_um = canvas.scale[1] * mpp
    length_um = nice_length(max(canvas.shape[1] / 5, 4 * em) * pixel_um)
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    text, gap = Lettering(0.95 * em, bold=True), round(0.6 * em)
    width = round(max(length_um / pixel_um, text.width(label)) + 1.4 * em)
    height = round(2.4 * em)
    top, left = canvas.shape[0] - gap - height, canvas.shape[1] - gap - width
    if top < gap or left < gap:
        return
    covered = [np.count_nonzero(drawn[top:, x : x + width]) for x in (gap, left)]
    x, y = corner[0] + (left if covered[1] < covered[0] else gap), corner[1] + top
    _draw_patch(page, (x, y, x + width, y + height), 0.35 * em)
    _draw_bar(page, text, label, (x + width / 2, y + height), round(length_um / pixel_um), em)


def _draw_patch(page: Image, box: tuple[int, int, int, int], radius: float) -> None:
    from PIL import Image, ImageDraw

    shade = Image.new("L", page.size)
    ImageDraw.Draw(shade).rounded_rectangle(box, radius, fill=215)
    page.paste(PAPER, (0, 0), shade)


def _draw_bar(
    page: Image, text: Lettering, label: str, foot: tuple[float, float], length: int, em: float
) -> None:
    from PIL import ImageDraw

    pen, (middle, bottom) = ImageDraw.Draw(page), foot
    text.draw(pen, (middle, bottom - 1.05 * em), label, INK, "ms")
    left, low, thick = round(middle - length / 2), round(bottom - 0.5 * em), round(0.28 * em)
    pen.rectangle((left, low - max(2, thick), left + length - 1, low - 1), fill=INK)
