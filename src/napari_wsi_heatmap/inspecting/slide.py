"""The slide that a heatmap was computed on, in the colours that the model saw."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import SlideChangedError, SlideOpenError
from napari_wsi_heatmap.slides import BACKENDS, open_slide
from napari_wsi_heatmap.slides.base import AS_STORED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide


def slide_seen(heatmap: Heatmap, slide: Slide) -> Slide:
    """Return a slide as the model saw it: converted to sRGB if the run was.

    Raises
    ------
    SlideChangedError
        If the heatmap was computed on another one, or on other colours of it.
    """
    record = heatmap.run["slide"]
    seen = open_slide(slide, icc=record.get("colours", AS_STORED) != AS_STORED)
    if seen.fingerprint != record["fingerprint"]:
        raise SlideChangedError(
            f"the heatmap was computed on {record['name']}, and this is not it",
            slide.path,
            "give the slide, in the colours, that it was computed on",
        )
    return seen


@contextmanager
def slide_of(heatmap: Heatmap, slide: Slide | str | Path | None = None) -> Iterator[Slide]:
    """Yield the slide of a heatmap as the model saw it.

    Parameters
    ----------
    heatmap : Heatmap
    slide : Slide or path, optional
        Where it lies now; by default where it lay when the run began. A path is opened for as
        long as it is needed, a Slide belongs to the caller.

    Raises
    ------
    SlideOpenError
        If it is not there; SlideChangedError if it is another one.
    """
    if slide is None or isinstance(slide, (str, Path)):
        opened = open_recorded(heatmap, slide)
        try:
            yield slide_seen(heatmap, opened)
        finally:
            opened.close()
    else:
        yield slide_seen(heatmap, slide)


def open_recorded(heatmap: Heatmap, path: str | Path | None = None) -> Slide:
    """Open the slide of a heatmap, by the backend that read it, as it is stored.

    Raises
    ------
    SlideOpenError
        Saying why not, and where it was looked for.
    """
    record = heatmap.run["slide"]
    if path is None and str(record["path"]).startswith("<"):
        raise SlideOpenError(
            "its pixels were in memory, in no file", record["name"], "hand the slide over"
        )
    known = [row.name for row in BACKENDS]
    backend = record["backend"] if path is None and record["backend"] in known else None
    return open_slide(record["path"] if path is None else path, backend)
