"""Which slides a stream goes over, and what each is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.mil.slidelist import slides_in
from napari_wsi_heatmap.slides.base import Slide
from napari_wsi_heatmap.slidetable import ENDINGS, read_slide_table

if TYPE_CHECKING:
    from collections.abc import Callable

LISTS = (".csv", ".txt")
"""Endings of files that list slides."""


@dataclass(frozen=True)
class Source:
    """A slide of a stream."""

    id: Any
    """What batches call it."""
    place: str | Slide
    """Its path, or the slide itself, which is then the caller's to close."""


def sources_of(slides: Any, path_of: Callable[[Any], Any] | None = None) -> tuple[Source, ...]:
    """Name the slides of a stream.

    Parameters
    ----------
    slides : path, Slide, iterable or mapping of these
        A slide; a folder of slides; a csv or txt file that lists some; several; or names and
        slides. A path is called as it was given, an open slide by its path, one from memory by
        its name.
    path_of : callable, optional
        Gives the path or Slide of each of `slides`, which may then be anything that tells a case:
        it is what batches call the slide.

    Raises
    ------
    SlideOpenError
        If there is none, or two are called the same.
    """
    if path_of is not None:
        found = [Source(case, _place(path_of(case))) for case in slides]
    elif isinstance(slides, Mapping):
        found = [Source(name, _place(slide)) for name, slide in slides.items()]
    else:
        found = [_named(slide) for slide in _each(slides)]
    _refuse_doubles(found)
    return tuple(found)


def _each(slides: Any) -> Iterable[Any]:
    if not isinstance(slides, (str, bytes, os.PathLike, Slide)):
        if isinstance(slides, Iterable):
            return slides
        raise SlideOpenError(f"{slides!r} is no slide", do="give paths or open slides")
    if isinstance(slides, Slide):
        return [slides]
    path = Path(os.fsdecode(slides))
    if path.suffix.lower() in LISTS:
        return _listed(path)
    if path.is_dir() and not (path / "zarr.json").exists() and not (path / ".zattrs").exists():
        return [path / name for name in slides_in(path, ENDINGS)]
    return [slides]


def _listed(path: Path) -> list[str]:
    """Slides of a table, or of the lines of a text; relative paths are relative to it."""
    if path.suffix.lower() != ".txt":
        return [str(slide) for slide, _ in read_slide_table(path).slides()]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise SlideOpenError(f"the list cannot be read: {error}", path) from error
    return [str(path.parent / line.strip()) for line in lines if line.strip()]


def _named(slide: Any) -> Source:
    place = _place(slide)
    if isinstance(place, Slide):
        return Source(place.name if place.path.startswith("<") else place.path, place)
    return Source(place, place)


def _place(slide: Any) -> str | Slide:
    if isinstance(slide, Slide):
        return slide
    try:
        return os.fsdecode(slide)
    except TypeError as error:
        raise SlideOpenError(f"{slide!r} is no slide", do="give a path or an open slide") from error


def _refuse_doubles(sources: list[Source]) -> None:
    if not sources:
        raise SlideOpenError("there are no slides", do="give at least one")
    name, times = Counter(source.id for source in sources).most_common(1)[0]
    if times > 1:
        raise SlideOpenError(
            f"{times} slides are called {name!r}",
            do="give each once, or names of your own: {name: slide}",
        )


def file_names(ids: Iterable[Any]) -> dict[Any, str]:
    """Give each slide a name for its files: that of its own file, numbered where two are alike."""
    names: dict[Any, str] = {}
    taken: Counter[str] = Counter()
    for name in ids:
        stem = Path(str(name)).stem if isinstance(name, str) else str(name)
        safe = (
            "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in stem).strip(" .") or "slide"
        )
        chosen, key = safe, safe.casefold()
        while taken[key]:
            taken[safe.casefold()] += 1
            chosen = f"{safe}-{taken[safe.casefold()]}"
            key = chosen.casefold()
        taken[key] += 1
        names[name] = chosen
    return names
