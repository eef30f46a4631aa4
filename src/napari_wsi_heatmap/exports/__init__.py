"""What others read: one file per format, imported when it is used.

A format is one module with ``write(heatmap, path, *, slide, ...)`` and one row of `FORMATS`.
"""

from __future__ import annotations

import importlib
import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports.target import check_target, refuse_foreign, written_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

__all__ = ["FORMATS", "Format", "check_target", "choose_format", "export", "written_at_once"]


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
    sign: bytes = b"napari-wsi-heatmap"
    """Regular expression of what such a file of ours has near its beginning or end."""
    folder: bool = False
    """Whether it is a folder."""

    def writer(self) -> Callable[..., None]:
        """Import the format."""
        write: Callable[..., None] = importlib.import_module(self.module).write
        return write

    def takes(self, option: str) -> bool:
        """Whether `writer` has an option of that name."""
        return option in inspect.signature(self.writer()).parameters

    def check(self, path: Path, *, overwrite: bool = False) -> None:
        """Refuse a path where this format may not be written; see `export`."""
        check_target(path, folder=self.folder)
        if not overwrite:
            refuse_foreign(path, self.sign)


_HERE = "napari_wsi_heatmap.exports."
FORMATS = (
    Format(
        "csv",
        (".csv",),
        _HERE + "csv",
        "one row a window, WSInfer's columns",
        sign=rb"\Aminx,miny,width,height,",
    ),
    Format(
        "png",
        (".png",),
        _HERE + "png",
        "picture of the map over its slide, with colour bar and scale bar",
        draws_slide=True,
    ),
    Format("jpg", (".jpg", ".jpeg"), _HERE + "jpg", "the same picture", draws_slide=True),
    Format("geojson", (".geojson",), _HERE + "geojson", "tiles with measurements, for QuPath"),
    Format("h5", (".h5",), _HERE + "h5", "coords, attention_scores, features of CLAM and TRIDENT"),
    Format("stamp", (".h5",), _HERE + "stamp", "features as STAMP has them"),
    Format("parquet", (".parquet",), _HERE + "parquet", "table of positions, values, features"),
    Format("tiff", (".tiff", ".tif"), _HERE + "tiff", "the values, float32, pyramidal OME-TIFF"),
    Format(
        "overlay",
        (".tiff", ".tif"),
        _HERE + "overlaytiff",
        "the coloured map over its slide as a slide of its own, pyramidal TIFF",
        draws_slide=True,
    ),
    Format("dsa", (".json",), _HERE + "dsa", "griddata annotation, for Digital Slide Archive"),
    Format(
        "pdmcsv",
        (".pdmcsv",),
        _HERE + "pdmcsv",
        "PyDmed's rows",
        sign=rb"\A(\d+, ){6}[\d.e+-]+, \d+, \d+, \d+,",
    ),
    Format("zarr", (".zarr",), _HERE + "omezarr", "OME-Zarr 0.4 copy of the map", folder=True),
)


def export(
    heatmap: Heatmap,
    path: str | Path,
    *,
    slide: Slide | str | Path | None = None,
    format: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write a heatmap as a file of another format.

    Parameters
    ----------
    heatmap : Heatmap
    path : path-like
        The file; its folder must exist. An earlier export of that name is replaced when the new
        one is whole.
    slide : Slide or path, optional
        The slide that the heatmap belongs to, for formats that draw it.
    format : str, optional
        Name of a format; default the first of the file's ending.
    overwrite : bool
        Replace a file of that name also if no export of ours wrote it. (csv and pdmcsv have no
        place for a mark: any file with the same columns counts as ours.)
    **options
        See ``write`` of the format's module.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If there is no such format or option, the target is no file, or not ours.
    StoreFullError
        If it cannot be written.
    """
    path = Path(path)
    chosen = choose_format(path, format)
    write = chosen.writer()
    _refuse_unknown(write, options, path)
    chosen.check(path, overwrite=overwrite)
    with _slide_of(slide) as opened, written_at_once(path, folder=chosen.folder) as part:
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
