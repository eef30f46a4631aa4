"""npe2 reader: a slide's file, or OME-Zarr folder, becomes a lazy multiscale layer in micrometres.

`get_reader` decides by the name and a look at the first bytes, or at the folder's JSON; nothing
heavy is imported before the slide is opened. napari offers every dropped folder: plates, labels,
heatmaps and what else is no RGB image are left to other readers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.slides import looks_like_slide
from napari_wsi_heatmap.slides.diagnose import obvious_cause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_wsi_heatmap.slides.base import Slide

    Path = str | os.PathLike[str]
    LayerData = tuple[list[Any], dict[str, Any], str]

ONLY_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")
"""Endings that no other kind of file bears."""


def get_reader(path: Path | Sequence[Path]) -> Callable[[Any], list[LayerData]] | None:
    """Return the function that reads these slides, or None if one of them is no slide.

    Parameters
    ----------
    path : str or list of str
        As napari hands it over; several slides give a layer each.
    """
    paths = _paths(path)
    refused = [one for one in paths if not looks_like_slide(one)]
    if paths and not refused:
        return read_slides
    for one in refused:
        _say_why(one)
    return None


def _say_why(path: str) -> None:
    """Tell why a file is refused whose ending promises a slide.

    napari itself says only that it was refused. Other readers may know what a TIFF is.
    """
    cause = obvious_cause(path) if path.lower().endswith(ONLY_SLIDES) else None
    if cause is not None:
        from napari_wsi_heatmap._napari.notify import tell_warning

        tell_warning(f"{os.path.basename(path)} is not a slide: {cause}")


def read_slides(path: Path | Sequence[Path]) -> list[LayerData]:
    """Open one slide or several and return a layer for each.

    Raises
    ------
    SlideOpenError
        With the reason in one line, if a file is no slide after all.
    """
    from napari_wsi_heatmap._napari.slide_layer import slide_layer

    return [slide_layer(slide) for slide in _open_each_once(_paths(path))]


def _open_each_once(paths: list[str]) -> list[Slide]:
    """Open slides; the files of one DICOM series, dropped together, are one slide."""
    from napari_wsi_heatmap.slides import open_slide

    slides: dict[str, Slide] = {}
    for path in paths:
        slide = open_slide(path)
        if slides.setdefault(_identity(slide, path), slide) is not slide:
            slide.close()
    return list(slides.values())


def _identity(slide: Slide, path: str) -> str:
    return slide.fingerprint if path.lower().endswith(".dcm") else path


def _paths(path: Path | Sequence[Path]) -> list[str]:
    several = isinstance(path, (list, tuple))
    return [os.fspath(one) for one in (path if several else [path])]
