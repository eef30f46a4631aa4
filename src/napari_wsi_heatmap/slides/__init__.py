"""Where pixels come from: one file per backend, imported when it is used."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.slides.file import SlideFile

SLIDE_EXTENSIONS = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu",
    ".dcm", ".czi",
)  # fmt: skip
"""Endings of files that hold slides, lower case."""
PICTURE_EXTENSIONS = (".png", ".jpg", ".jpeg")
"""Endings of ordinary pictures, which are opened as slides of one level when asked for."""


@dataclass(frozen=True)
class Backend:
    """A row of the table of backends."""

    name: str
    reads: str
    """Kind of path that it reads, as `kind_of` names it."""
    module: str
    """Imported when the backend is used; holds `cls`."""
    cls: str
    """Called as ``cls(file, mpp=mpp)``: `SlideFile` for a "file", else the path.

    It raises `NotSureError` where the next row should read the slide.
    """
    needs: str
    """Distribution to install where the import fails."""
    asked: bool = False
    """Used only if it is asked for by name."""


class MissingBackendError(SlideOpenError):
    """A backend's library is not installed."""


_HERE = "napari_wsi_heatmap.slides"
BACKENDS = (
    Backend("tiff", "file", f"{_HERE}.tiff", "TiffSlide", "simplejpeg imagecodecs"),
    Backend("openslide", "file", f"{_HERE}.openslide", "OpenSlideSlide", "openslide-bin"),
    Backend("cucim", "file", f"{_HERE}.cucim", "CucimSlide", "cucim-cu12", asked=True),
    Backend("omezarr", "zarr", f"{_HERE}.omezarr", "OmeZarrSlide", "google-crc32c"),
    Backend("picture", "picture", f"{_HERE}.picture", "PictureSlide", "simplejpeg"),
)
"""In the order in which they are preferred."""


def open_slide(
    path: str | bytes | os.PathLike[str] | Slide,
    backend: str | None = None,
    *,
    mpp: float | Sequence[float] | None = None,
    icc: bool = False,
) -> Slide:
    """Open a slide.

    Parameters
    ----------
    path : str, bytes, Path or Slide
        The file, or the folder of an OME-Zarr; a Slide is handed back as it is.
    backend : str, optional
        Name of the backend that must read it. Default: the first of `BACKENDS` that is sure of
        it; the slide's `why` says why others are not.
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x), where the file states none or a wrong one.
    icc : bool
        Convert pixels to sRGB by the file's ICC profile; without one that can be used they stay
        as stored, with a warning. An open slide is converted, too, by one that reads it.

    Returns
    -------
    Slide

    Raises
    ------
    SlideOpenError
        With the true cause in one line, and what to do.
    SlideReadError
        If the ICC profile is wanted and cannot be read.
    """
    slide = _open(path, backend, mpp)
    if not icc:
        return slide
    try:
        return _in_srgb(slide)
    except SlideReadError:
        if slide is not path:
            slide.close()
        raise


def _open(
    path: str | bytes | os.PathLike[str] | Slide,
    backend: str | None,
    mpp: float | Sequence[float] | None,
) -> Slide:
    from napari_wsi_heatmap.slides.base import Slide

    if isinstance(path, Slide):
        if mpp is not None or backend not in (None, path.backend):
            raise SlideOpenError(
                "an open slide takes no other backend or mpp", path.path, "open its file again"
            )
        return path
    name = _absolute(path)
    kind = kind_of(name)
    return _first_sure(_rows(backend, kind, name), _looked_at(name, kind), mpp)


def _in_srgb(slide: Slide) -> Slide:
    from napari_wsi_heatmap.slides.icc import IccSlide

    return slide if isinstance(slide, IccSlide) else IccSlide(slide)


def kind_of(path: str) -> str:
    """Tell what kind of path it is: "zarr" (a folder), "picture" (PNG, JPEG) or "file"."""
    if os.path.isdir(path) and any(
        os.path.isfile(os.path.join(path, name)) for name in (".zgroup", ".zattrs", "zarr.json")
    ):
        return "zarr"
    if path.lower().endswith(PICTURE_EXTENSIONS):
        from napari_wsi_heatmap.slides import diagnose

        return "picture" if diagnose.is_picture(path) else "file"
    return "file"


def _looked_at(path: str, kind: str) -> str | SlideFile:
    """Check a file once for all backends that may be tried."""
    if kind != "file":
        return path
    from napari_wsi_heatmap.slides.file import look

    return look(path)


def _first_sure(
    rows: Sequence[Backend], file: str | SlideFile, mpp: float | Sequence[float] | None
) -> Slide:
    from napari_wsi_heatmap.slides.file import NotSureError

    reasons: list[str] = []
    for row in rows:
        try:
            slide: Slide = _load(row)(file, mpp=mpp)
        except MissingBackendError as error:
            if row is rows[-1]:
                raise
            reasons.append(f"not {row.name}: {error.what}")
        except NotSureError as error:
            reasons.append(f"not {row.name}: {error.what}")
        else:
            slide.why = "; ".join(reasons)
            return slide
    where = file if isinstance(file, str) else file.path
    raise SlideOpenError("; ".join(reasons), where, "open it without naming a backend")


def _load(row: Backend) -> Any:
    try:
        return getattr(importlib.import_module(row.module), row.cls)
    except ImportError as error:
        raise MissingBackendError(
            f"backend {row.name!r} cannot be imported: {error}", do=f"pip install {row.needs}"
        ) from error


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
        permission passes, so that opening it says why it fails. True for the folder of an
        OME-Zarr whose metadata say that it is an RGB image.
    """
    from napari_wsi_heatmap.slides import diagnose

    try:
        name = os.fsdecode(path)
    except TypeError:
        return False
    if os.path.isdir(name):
        return kind_of(name) == "zarr" and _is_rgb_zarr(name)
    if not name.lower().endswith(SLIDE_EXTENSIONS) or not os.path.isfile(name):
        return False
    try:
        head = diagnose.read_head(name)
    except OSError:
        return True
    return diagnose.plausible(name, head)


def _is_rgb_zarr(path: str) -> bool:
    from napari_wsi_heatmap.slides import ngff

    return ngff.is_rgb_image(path)


def _rows(name: str | None, kind: str, path: str) -> list[Backend]:
    """Rows to try for a path: the one that was asked for, or all that read such paths."""
    if name is None:
        return [row for row in BACKENDS if row.reads == kind and not row.asked]
    named = [row for row in BACKENDS if row.name == name]
    if not named:
        known = ", ".join(row.name for row in BACKENDS)
        raise SlideOpenError(f"no backend {name!r}", do=f"known: {known}")
    if named[0].reads != kind:
        raise SlideOpenError(f"backend {name!r} does not read a {kind}", path, "choose another")
    return named


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
