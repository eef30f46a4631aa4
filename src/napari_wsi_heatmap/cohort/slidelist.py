"""The slides of a cohort: a folder, a table, or a list."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import SlideError
from napari_wsi_heatmap.mil.slidelist import bare, slides_in
from napari_wsi_heatmap.slidetable import ENDINGS, read_slide_table

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class CohortSlide:
    """One slide of a cohort.

    Attributes
    ----------
    name : str
        The file's name without its ending; names its output.
    path : str
        Absolute; the workers must find it there, too.
    mpp : float or None
        µm per level-0 pixel, where the file states none or a wrong one.
    """

    name: str
    path: str
    mpp: float | None = None


def list_slides(slides: Any) -> list[CohortSlide]:
    """List the slides of a cohort.

    Parameters
    ----------
    slides : path, or sequence of path or CohortSlide
        A folder (its slides, by name); a .csv with a column ``slide`` or ``path`` (and perhaps
        ``mpp``), or of one column without a heading, relative paths being relative to it; one
        slide; or a list of slides.

    Raises
    ------
    SlideError
        If there is none, or two have one name.
    """
    where = "the list" if isinstance(slides, (list, tuple)) else slides
    found = [_given(one) for one in slides] if where == "the list" else _found(slides)
    if not found:
        raise SlideError("no slide", where, f"slides end with {', '.join(ENDINGS)}")
    _refuse_doubles(found)
    return found


def _given(slide: Any) -> CohortSlide:
    if isinstance(slide, CohortSlide):
        return slide
    try:
        path = Path(os.path.abspath(os.path.expanduser(os.fsdecode(slide))))
    except TypeError as error:
        what = f"a {type(slide).__name__} cannot be sent to workers"
        raise SlideError(what, do="give the slide's file") from error
    return CohortSlide(bare(path.name, ENDINGS), str(path))


def _found(slides: Any) -> list[CohortSlide]:
    path = Path(_given(slides).path)
    if path.suffix.lower() == ".csv":
        return _listed(path)
    if path.is_dir() and not path.name.lower().endswith(".zarr"):
        return [_given(path / name) for name in slides_in(path, ENDINGS)]
    return [_given(slides)]


def _listed(path: Path) -> list[CohortSlide]:
    table = read_slide_table(path)
    at = table.heading.index("mpp") if "mpp" in table.heading else None
    found = []
    for place, row in table.slides():
        stated = row[at].strip() if at is not None and at < len(row) else ""
        found.append(replace(_given(place), mpp=_mpp(stated, path) if stated else None))
    return found


def _mpp(text: str, table: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise SlideError(f"mpp is {text!r}", table, "give µm per pixel, above 0")
    return value


def _refuse_doubles(slides: Iterable[CohortSlide]) -> None:
    """Names are compared without case: some file systems know none."""
    seen: dict[str, CohortSlide] = {}
    for slide in slides:
        other = seen.setdefault(slide.name.casefold(), slide)
        if other is not slide:
            what = f"two slides are called {slide.name!r}: {other.path}, {slide.path}"
            raise SlideError(what, do="name each once; outputs are named by them")
