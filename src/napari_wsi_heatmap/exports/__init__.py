"""What others read: one file per format, imported when it is used.

A format is one module with ``write(heatmap, path, *, slide, ...)`` and one row of `FORMATS`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ExportError, HeatmapError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide


@dataclass(frozen=True)
class Format:
    """A row of the table of formats."""

    name: str
    endings: tuple[str, ...]
    """Of file names, lower case; the first format of an ending is its default."""
    module: str
    """Holds ``write(heatmap, path, *, slide, **options)``."""
    writes: str
    """What it is, for people."""
    draws_slide: bool = False
    """Whether `write` makes use of the slide."""

    def writer(self) -> Callable[..., None]:
        """Import the format."""
        write: Callable[..., None] = importlib.import_module(self.module).write
        return write


FORMATS = (
    Format(
        "csv", (".csv",), "napari_wsi_heatmap.exports.csv", "one row a window, WSInfer's columns"
    ),
    Format(
        "png",
        (".png",),
        "napari_wsi_heatmap.exports.png",
        "picture of the map over its slide, with colour bar and scale bar",
        draws_slide=True,
    ),
)


def export(
    heatmap: Heatmap,
    path: str | Path,
    *,
    slide: Slide | str | Path | None = None,
    format: str | None = None,
    **options: Any,
) -> Path:
    """Write a heatmap as a file of another format.

    Parameters
    ----------
    heatmap : Heatmap
    path : path-like
        The file; its folder must exist. A file of that name is replaced when the new one is
        whole.
    slide : Slide or path, optional
        The slide that the heatmap belongs to, for formats that draw it.
    format : str, optional
        Name of a format; default the one of the file's ending.
    **options
        See ``write`` of the format's module.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If there is no such format or option, or the target is no file.
    StoreFullError
        If it cannot be written.
    """
    path = Path(path)
    write = choose_format(path, format).writer()
    _refuse_unknown(write, options, path)
    with _slide_of(slide) as opened, written_at_once(path) as part:
        write(heatmap, part, slide=opened, **options)
    return path


def choose_format(path: Path, name: str | None = None) -> Format:
    """Find the format of a name, or of a file's ending.

    Raises
    ------
    ExportError
        Listing the formats there are.
    """
    for row in FORMATS:
        if row.name == name or (name is None and path.suffix.lower() in row.endings):
            return row
    what = f"no format {name!r}" if name is not None else f"no format ends in {path.suffix!r}"
    known = "; ".join(f"{row.name} ({row.writes})" for row in FORMATS)
    raise ExportError(what, path, f"there are {known}")


@contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """Yield a temporary file of the same folder that becomes `path` if all goes well.

    Raises
    ------
    ExportError
        If `path` is a folder or a link, or has no folder to lie in.
    StoreFullError
        If it cannot be written.
    """
    check_target(path)
    part = None
    try:
        handle, name = tempfile.mkstemp(".part", f".{path.name[:80]}.", path.parent)
        os.close(handle)
        part = Path(name)
        yield part
        _publish(part, path)
    except HeatmapError:
        raise
    except OSError as error:
        raise StoreFullError(
            f"cannot write: {error.strerror or error}", path, "make room or give access"
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _publish(part: Path, path: Path) -> None:
    """Give a whole file its name, and the rights that a new file gets."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    mask = os.umask(0)
    os.umask(mask)
    part.chmod(0o666 & ~mask)
    os.replace(part, path)


def check_target(path: Path) -> None:
    """Refuse a path that no file may be written to.

    Raises
    ------
    ExportError
        If it is a link, a folder, or in no folder.
    """
    if path.is_symlink():
        raise ExportError("there is a link", path, "give the file that it leads to")
    if path.is_dir():
        raise ExportError("there is a folder", path, "give the name of a file")
    if not path.parent.is_dir():
        raise ExportError("no such folder", path.parent, "make it first, or choose another")


def _refuse_unknown(write: Callable[..., None], options: dict[str, Any], path: Path) -> None:
    known = list(inspect.signature(write).parameters)[2:]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ExportError(
            f"no option {unknown[0]!r}", path, f"there are {', '.join(known)} and format"
        )


@contextmanager
def _slide_of(slide: Slide | str | Path | None) -> Iterator[Slide | None]:
    """Open a path for as long as it is needed; a Slide belongs to the caller."""
    from napari_wsi_heatmap.slides import open_slide

    if isinstance(slide, (str, Path)):
        with open_slide(slide) as opened:
            yield opened
    else:
        yield slide
