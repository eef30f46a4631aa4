"""Where pixels come from: one file per backend, imported when it is used."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import SlideOpenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.slides.base import Slide

SLIDE_EXTENSIONS = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu",
    ".dcm", ".czi",
)  # fmt: skip
"""Endings of files that hold slides, lower case."""


@dataclass(frozen=True)
class Backend:
    """A row of the table of backends."""

    name: str
    module: str
    """Imported when the backend is used; holds `cls`."""
    cls: str
    """Called as ``cls(path, mpp=mpp)``."""
    needs: str
    """Distribution to install where the import fails."""


BACKENDS = (
    Backend("openslide", "napari_wsi_heatmap.slides.openslide", "OpenSlideSlide", "openslide-bin"),
)
"""In the order in which they are preferred."""


def open_slide(
    path: str | bytes | os.PathLike[str] | Slide,
    backend: str | None = None,
    *,
    mpp: float | Sequence[float] | None = None,
) -> Slide:
    """Open a slide.

    Parameters
    ----------
    path : str, bytes, Path or Slide
        The file; a Slide is handed back as it is.
    backend : str, optional
        Name of the backend that must read it.
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x), where the file states none or a wrong one.

    Returns
    -------
    Slide

    Raises
    ------
    SlideOpenError
        With the true cause in one line, and what to do.
    """
    from napari_wsi_heatmap.slides.base import Slide

    if isinstance(path, Slide):
        if mpp is not None or backend not in (None, path.backend):
            raise SlideOpenError(
                "an open slide takes no other backend or mpp", path.path, "open its file again"
            )
        return path
    row = _row(backend)
    try:
        cls = getattr(importlib.import_module(row.module), row.cls)
    except ImportError as error:
        raise SlideOpenError(
            f"backend {row.name!r} cannot be imported: {error}", do=f"pip install {row.needs}"
        ) from error
    opened: Slide = cls(_absolute(path), mpp=mpp)
    return opened


def looks_like_slide(path: Any) -> bool:
    """Tell cheaply whether a path can be a slide, without importing OpenSlide.

    Parameters
    ----------
    path : object
        What was dropped or typed.

    Returns
    -------
    bool
        True for a regular file with an ending of `SLIDE_EXTENSIONS` whose first bytes are not
        those of something else (an LFS pointer, a web page, nothing). A file without read
        permission passes, so that opening it says why it fails.
    """
    from napari_wsi_heatmap.slides import diagnose

    try:
        name = os.fsdecode(path)
    except TypeError:
        return False
    if not name.lower().endswith(SLIDE_EXTENSIONS) or not os.path.isfile(name):
        return False
    try:
        head = diagnose.read_head(name)
    except OSError:
        return True
    return diagnose.plausible(name, head)


def _row(name: str | None) -> Backend:
    if name is None:
        return BACKENDS[0]
    for row in BACKENDS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in BACKENDS)
    raise SlideOpenError(f"no backend {name!r}", do=f"known: {known}")


def _absolute(path: str | bytes | os.PathLike[str]) -> str:
    try:
        name = os.fsdecode(path)
    except TypeError as error:
        raise SlideOpenError(
            f"a {type(path).__name__} is not a path", do="give a file, or a Slide"
        ) from error
    if not name or "://" in name:
        return name
    if name.startswith("~") and not os.path.lexists(name):
        name = os.path.expanduser(name)
    return os.path.abspath(name)
