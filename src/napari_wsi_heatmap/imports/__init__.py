"""What others wrote and a map can be had from: one file per format, imported when it is used.

A format is one module with ``read(path, slide, window) -> Listed`` and one row of `SOURCES`.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.runfolder import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.imports.listed import Listed
    from napari_wsi_heatmap.listmap import ListHeatmap
    from napari_wsi_heatmap.slides.base import Slide

    Read = Callable[[Path, Slide, int | None], Listed]


@dataclass(frozen=True)
class Source:
    """A row of the table of formats that are read."""

    endings: tuple[str, ...]
    """Of file names, lower case."""
    module: str
    """Holds ``read(path, slide, window)``."""
    what: str
    """What it is, for people."""

    def reader(self) -> Read:
        """Import the format."""
        read: Read = importlib.import_module(self.module).read
        return read


_HERE = "napari_wsi_heatmap.imports."
PDMCSV = Source((".pdmcsv",), _HERE + "pdmcsv", "PyDmed's rows, also as .csv")
SOURCES = (
    Source((".csv", ".parquet"), _HERE + "table", "a table in WSInfer's columns, or with x and y"),
    Source((".h5", ".hdf5"), _HERE + "h5", "coords with attention_scores"),
    Source((".geojson", ".json"), _HERE + "geojson", "tiles with measurements"),
    PDMCSV,
)


def open_file(
    path: Path, slide: Slide | str | Path | None, window: int | None = None
) -> ListHeatmap:
    """Place the values of a file on a slide; see `napari_wsi_heatmap.heatmap.open_heatmap`."""
    from napari_wsi_heatmap.imports.listed import heatmap_of

    read = _source(path).reader()
    if slide is None:
        raise StoreError(
            "it does not say which slide it lies on", path, "open_heatmap(file, slide=...)"
        )
    with _opened(slide) as known, reading(path, "the file", "check what wrote it"):
        return heatmap_of(read(path, known, window), known, path)


def _source(path: Path) -> Source:
    """Format of a file, by its ending; a .csv may be PyDmed's."""
    ending = path.suffix.lower()
    if ending == ".csv" and _begins_with_a_number(path):
        return PDMCSV
    for row in SOURCES:
        if ending in row.endings:
            return row
    known = "; ".join(f"{', '.join(row.endings)} ({row.what})" for row in SOURCES)
    raise StoreError(
        f"a map cannot be had from {ending or 'such a file'}", path, f"there are {known}"
    )


def _begins_with_a_number(path: Path) -> bool:
    with reading(path, "the file"), path.open("rb") as file:
        return file.read(1).isdigit()


@contextmanager
def _opened(slide: Slide | str | Path) -> Iterator[Slide]:
    """Open a path for as long as it is needed; a Slide belongs to the caller."""
    from napari_wsi_heatmap.slides import open_slide

    if isinstance(slide, (str, Path)):
        with open_slide(slide) as opened:
            yield opened
    else:
        yield slide
