"""A gallery as one picture: windows side by side, each with its place and value below.

The PNG's text chunk ``napari-wsi-heatmap`` says as JSON which windows they are.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.errors import ExportError, one_line
from napari_wsi_heatmap.exports.png import KEY
from napari_wsi_heatmap.exports.target import check_target, refuse_foreign, written_at_once
from napari_wsi_heatmap.inspecting.gallery import gallery
from napari_wsi_heatmap.inspecting.numbers import short_number
from napari_wsi_heatmap.inspecting.patches import each_patch
from napari_wsi_heatmap.inspecting.pictures import fitted
from napari_wsi_heatmap.lettering import GREY, INK, LINE, PAPER, Lettering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.inspecting.gallery import Gallery
    from napari_wsi_heatmap.slides.base import Rgb, Slide

LARGEST, SMALLEST = 256, 96
"""px of a window's longer side on the sheet: larger ones are shrunk, smaller ones enlarged."""
MOST = 400
"""Windows on a sheet."""
WORDS = {"top": "highest", "bottom": "lowest", "random": "random"}


def save_gallery(
    heatmap: Heatmap,
    path: str | Path,
    slide: Slide | str | Path | None = None,
    *,
    n: int = 16,
    which: str = "top",
    seed: int = 0,
    channel: int | str = 0,
    apart: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write windows of a map as a PNG, each with its place and value.

    Parameters
    ----------
    heatmap : Heatmap
    path : path-like
        The file; an earlier export of that name is replaced.
    slide : Slide or path, optional
        That the heatmap was computed on; by default where it lay then.
    n, which, seed, channel, apart
        As for `napari_wsi_heatmap.inspecting.gallery.gallery`.
    overwrite : bool
        Replace a file of that name also if no export of ours wrote it.

    Raises
    ------
    ExportError
        If there is nothing to show, or the target may not be written.
    SlideError
        If the slide is missing, another one, or cannot be read.

    Notes
    -----
    Memory bound: the sheet, and a window.
    """
    path = Path(path)
    _check(path, n, overwrite=overwrite)
    chosen = gallery(heatmap, n, which, seed, channel=channel, apart=apart)
    if not len(chosen):
        raise ExportError("no window is done", heatmap.path, "compute some first")
    found = each_patch(heatmap, slide, chosen.index)
    pictures = [fitted(patch, LARGEST) for patch in found]
    sheet = draw_sheet(pictures, captions(chosen), *headings(heatmap, chosen))
    with written_at_once(path) as part:
        _save(sheet, part, about(heatmap, chosen))
    return path


def _check(path: Path, n: int, *, overwrite: bool) -> None:
    if path.suffix.lower() != ".png":
        raise ExportError(f"a gallery does not end in {path.suffix!r}", path, "end it in .png")
    if n > MOST:
        raise ExportError(f"n is {n}", path, f"give at most {MOST}")
    check_target(path)
    if not overwrite:
        refuse_foreign(path, KEY.encode())


def _save(sheet: Image, path: Path, facts: dict[str, Any]) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", f"{KEY} {__version__}")
    text.add_text(KEY, json.dumps(facts))
    sheet.save(path, "PNG", pnginfo=text)


def captions(chosen: Gallery) -> list[str]:
    """Place and value of each window of a gallery."""
    pairs = zip(chosen.places.tolist(), chosen.values.tolist(), strict=True)
    return [f"{place:,} · {short_number(value)}" for place, value in pairs]


def headings(heatmap: Heatmap, chosen: Gallery) -> tuple[str, str, str]:
    """What is shown, of which slide, and how many there are."""
    unit = heatmap.run["model"].get("unit") or ""
    summary = f"{len(chosen)} {WORDS[chosen.which]} of {chosen.of:,} windows; place · value"
    return chosen.name, heatmap.run["slide"]["name"], f"{summary} {unit}".rstrip()


def about(heatmap: Heatmap, chosen: Gallery) -> dict[str, Any]:
    """Which windows a sheet shows, as plain values."""
    return {
        "slide": heatmap.run["slide"]["name"],
        "output": chosen.name,
        "which": chosen.which,
        "index": chosen.index.tolist(),
        "positions_level0_yx": chosen.positions.tolist(),
        "size_level0": list(chosen.size),
        "values": chosen.values.tolist(),
        "places": chosen.places.tolist(),
        "of": chosen.of,
    }


def draw_sheet(
    pictures: Sequence[Rgb], texts: Sequence[str], title: str, beside: str = "", below: str = ""
) -> Image:
    """Draw pictures (h, w, 3) side by side.

    Parameters
    ----------
    texts : sequence of str
        One below each.
    title, beside, below : str
        Headings: bold, in grey after it, small in the next line.
    """
    from PIL import Image, ImageDraw

    cell = min(LARGEST, max(SMALLEST, *(max(p.shape[:2]) for p in pictures)))
    em = max(13.0, cell / 10)
    across = math.ceil(math.sqrt(len(pictures)))
    down, gap = math.ceil(len(pictures) / across), round(0.8 * em)
    head, step = round(4.4 * em), (cell + gap, cell + round(1.7 * em))
    width = max(2 * gap + across * step[0] - gap, round(24 * em))
    page = Image.new("RGB", (width, head + down * step[1] + gap), PAPER)
    pen, small = ImageDraw.Draw(page), Lettering(0.95 * em)
    _draw_head(page, (title, beside, below), em, gap)
    for number, (pixels, text) in enumerate(zip(pictures, texts, strict=True)):
        row, col = divmod(number, across)
        left, top = gap + col * step[0], head + row * step[1]
        picture = _enlarged(Image.fromarray(pixels), cell)
        page.paste(picture, (left, top))
        pen.rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=LINE)
        small.draw(pen, (left, top + cell + 1.15 * em), small.fitted(text, cell), INK)
    return page


def _draw_head(page: Image, texts: tuple[str, str, str], em: float, gap: int) -> None:
    from PIL import ImageDraw

    pen, room = ImageDraw.Draw(page), page.width - 2 * gap
    bold, plain, small = Lettering(1.25 * em, bold=True), Lettering(1.25 * em), Lettering(0.95 * em)
    title, beside, below = (one_line(text, 120) for text in texts)
    name = bold.fitted(title, room)
    bold.draw(pen, (gap, 1.9 * em), name, INK)
    after = bold.width(name) + 0.6 * em
    plain.draw(pen, (gap + after, 1.9 * em), plain.fitted(beside, max(0.0, room - after)), GREY)
    small.draw(pen, (gap, 3.4 * em), small.fitted(below, room), GREY)


def _enlarged(picture: Image, cell: int) -> Image:
    """Bring a small picture to the size of a cell; its pixels stay squares."""
    from PIL.Image import Resampling

    factor = cell / max(picture.size)
    if factor <= 1:
        return picture
    wanted = round(factor * picture.width), round(factor * picture.height)
    return picture.resize((max(1, wanted[0]), max(1, wanted[1])), Resampling.NEAREST)
