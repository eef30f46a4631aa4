"""Formats that pieces are collected in, and the files that they are written to.

csv and pdmcsv grow row by row and are whole at any time. Formats that must be written at one go
(h5, parquet, a store, any other export of a heatmap) grow as ``<file>.rows``, and are made of these
when the slide is done or the collecting ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.collectors.rowsink import STORE, RowsSink
from napari_wsi_heatmap.collectors.textsinks import CsvSink, PdmcsvSink
from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.exports import FORMATS
from napari_wsi_heatmap.runfolder import reading

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.collectors.sink import CollectedSlide, SlideSink
    from napari_wsi_heatmap.grid import WindowSpec

    Index = NDArray[np.int64]


def ending_of(format: str) -> str:
    """Ending of a slide's file.

    Raises
    ------
    StoreError
        If there is no such format.
    """
    endings = {STORE: ".zarr"} | {row.name: row.endings[0] for row in FORMATS}
    if format not in endings or (format == "zarr"):
        known = ", ".join([STORE, *(row.name for row in FORMATS if row.name != "zarr")])
        raise StoreError(f"no format {format!r}", do=f"choose one of {known}")
    return endings[format]


def sink_of(
    format: str, path: Path, of: CollectedSlide, names: tuple[str, ...], about: dict[str, Any]
) -> SlideSink:
    """Begin, or go on with, a slide's file."""
    if format in GROWING:
        sink: SlideSink = GROWING[format](path, of, names, about)
        return sink
    return RowsSink(path, of, names, about, format=format)


def windows_in(format: str, path: Path, spec: WindowSpec) -> Index:
    """Windows (n, 2) that an earlier session has written to a slide's file."""
    kind = GROWING.get(format, RowsSink)
    if kind is not RowsSink and not path.exists():
        return np.zeros((0, 2), np.int64)
    with reading(path, "what was collected"):
        found: Index = kind.windows_in(path, spec)
        return found


GROWING: Final[dict[str, Any]] = {"csv": CsvSink, "pdmcsv": PdmcsvSink}
