"""How the pieces of one slide are written: as rows that others read, or as rows of ours.

csv and pdmcsv grow row by row and are whole at any time. Formats that must be written at one go
(h5, parquet, a store, any other export of a heatmap) grow as ``<name>.rows``, numbers behind a line
of JSON, and are made of these when the slide is done or the collecting ends.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.errors import ExportError, PlanMismatchError, StoreError
from napari_wsi_heatmap.exports import FORMATS
from napari_wsi_heatmap.exports.csv import PLACE, harmless
from napari_wsi_heatmap.exports.pdmcsvwriter import PdmcsvWriter
from napari_wsi_heatmap.exports.windows import number_texts
from napari_wsi_heatmap.rowfile import RowFile, whole_lines
from napari_wsi_heatmap.runfolder import reading, writing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowSpec
    from napari_wsi_heatmap.listmap import ListHeatmap
    from napari_wsi_heatmap.slides.base import Slide

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]

STORE: Final = "store"
"""Format that is no export: an OME-Zarr that `open_heatmap` opens."""


@dataclass(frozen=True)
class CollectedSlide:
    """The slide that a sink is of, and how its windows were read."""

    slide: Slide
    spec: WindowSpec


class SlideSink(ABC):
    """One slide's file.

    Parameters
    ----------
    path : Path
        The file; it may hold what an earlier session has written.
    of : CollectedSlide
    names : tuple of str
        One per channel.
    about : dict
        What is recorded of how the values came about.
    """

    def __init__(
        self, path: Path, of: CollectedSlide, names: tuple[str, ...], about: dict[str, Any]
    ) -> None:
        self.path, self.of, self.names, self.about = path, of, names, about

    @abstractmethod
    def add(self, windows: Index, values: Values) -> None:
        """Take the values of windows (n, 2)."""

    @abstractmethod
    def flush(self) -> None:
        """Bring to the disk what was added."""

    @abstractmethod
    def finish(self, *, whole: bool) -> None:
        """Leave a valid file; `whole`: nothing will be added to it any more."""


@final
class CsvSink(SlideSink):
    """One row a window, in the columns of the export ``csv``."""

    ending = ".csv"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._size = number_texts(np.array(self.of.spec.footprint_level0[::-1], np.float64))
        head = ",".join([*PLACE, *map(harmless, map(_plain, self.names))]) + "\n"
        keep = whole_lines(self.path) if self.path.exists() else 0
        if keep:
            _refuse_other_head(self.path, head)
        self._file = RowFile(self.path, keep)
        if not keep:
            self._file.add(head.encode())

    def add(self, windows: Index, values: Values) -> None:
        """Take rows."""
        if values.ndim != 2:
            raise _no_maps("csv", values, self.path)
        places = windows[:, ::-1].astype(str)
        sizes = np.broadcast_to(self._size, places.shape)
        rows = np.concatenate([places, sizes, values.astype(str)], axis=1)
        self._file.add("".join(",".join(row) + "\n" for row in rows.tolist()).encode())

    def flush(self) -> None:
        """Bring the rows to the disk."""
        self._file.flush()

    def finish(self, *, whole: bool) -> None:
        """Bring the rest to the disk."""
        del whole
        self.flush()

    @staticmethod
    def windows_in(path: Path, spec: WindowSpec) -> Index:
        """Top-left (y, x) of the windows (n, 2) that whole rows hold."""
        del spec
        text = path.read_bytes()[: whole_lines(path)].decode()
        rows = [row.split(",")[:2] for row in text.splitlines()[1:]]
        return np.array([[int(y), int(x)] for x, y in rows], np.int64).reshape(-1, 2)


def _plain(name: str) -> str:
    return name.replace(",", " ").replace("\n", " ").replace('"', "'")


def _refuse_other_head(path: Path, head: str) -> None:
    with path.open(encoding="utf-8") as file:
        found = file.readline()
    if found != head:
        raise PlanMismatchError(
            f"its columns are {found.strip()[:80]!r}", path, "choose another output"
        )


@final
class PdmcsvSink(SlideSink):
    """PyDmed's rows, and a JSON file beside them."""

    ending = ".pdmcsv"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        spec = self.of.spec
        self._writer = PdmcsvWriter(
            self.path,
            self.of.slide,
            window=spec.footprint,
            level=spec.level,
            names=self.names,
            about=self.about,
            append=True,
            flush_s=float("inf"),
        )

    def add(self, windows: Index, values: Values) -> None:
        """Take rows."""
        self._writer.write(values, windows)

    def flush(self) -> None:
        """Bring the rows to the disk."""
        self._writer.flush()

    def finish(self, *, whole: bool) -> None:
        """Bring the rest to the disk."""
        del whole
        self._writer.close()

    @staticmethod
    def windows_in(path: Path, spec: WindowSpec) -> Index:
        """Top-left (y, x) of the windows (n, 2) that whole rows hold."""
        text = path.read_bytes()[: whole_lines(path)].decode("ascii")
        corners = [tuple(map(int, row.split(",")[:2])) for row in text.splitlines()]
        found = np.array(corners, np.float64).reshape(-1, 2) * np.asarray(spec.downsample)
        return np.rint(found).astype(np.int64)


@final
class RowsSink(SlideSink):
    """Rows of numbers, of which another file is made at the end.

    Memory bound: at the end, all values of the slide.
    """

    ending = ".rows"

    def __init__(self, *given: Any, format: str) -> None:
        super().__init__(*given)
        self._format, self._dtype = format, np.dtype([])
        self._rows = self.path.with_name(f"{self.path.name}.rows")
        self._file: RowFile | None = None

    def add(self, windows: Index, values: Values) -> None:
        """Take rows."""
        if values.ndim != 2:
            raise _no_maps(self._format, values, self.path)
        if self._file is None:
            self._begin(values.shape[1:])
        assert self._file is not None
        if values.shape[1:] != self._dtype["values"].shape:
            raise PlanMismatchError(
                f"a window has values of shape {values.shape[1:]}, there are "
                f"{self._dtype['values'].shape}",
                self._rows,
                "choose another output",
            )
        rows = np.empty(len(windows), self._dtype)
        rows["window"], rows["values"] = windows, values
        self._file.add(rows.tobytes())

    def _begin(self, shape: tuple[int, ...]) -> None:
        if self._rows.exists() and whole_lines(self._rows):
            self._dtype, keep = _layout_of(self._rows)
            self._file = RowFile(self._rows, keep)
            return
        self._dtype = _dtype(shape)
        self._file = RowFile(self._rows, 0)
        self._file.add(json.dumps({"rows of": list(shape)}).encode() + b"\n")

    def flush(self) -> None:
        """Bring the rows to the disk."""
        if self._file is not None:
            self._file.flush()

    def finish(self, *, whole: bool) -> None:
        """Make the file of the rows; they are removed if nothing will be added to them."""
        self.flush()
        if not self._rows.exists():
            return
        windows, values = rows_in(self._rows)
        if len(windows):
            write_list(self._heatmap(windows, values), self.path, self._format)
        if whole:
            with writing(self._rows):
                self._rows.unlink()

    def _heatmap(self, windows: Index, values: Values) -> ListHeatmap:
        from napari_wsi_heatmap.collectors.listing import heatmap_of_rows

        # Random windows may have been drawn twice: the last of each counts.
        _, last = np.unique(windows[::-1], axis=0, return_index=True)
        kept = np.sort(len(windows) - 1 - last)
        corners = np.rint(windows[kept] / np.asarray(self.of.spec.downsample)).astype(np.int64)
        listed = WindowList(self.of.spec, corners)
        return heatmap_of_rows(self.of.slide, listed, values[kept], self.names, self.about)

    @staticmethod
    def windows_in(path: Path, spec: WindowSpec) -> Index:
        """Top-left (y, x) of the windows (n, 2) that whole rows hold."""
        del spec
        rows = path.with_name(f"{path.name}.rows")
        return rows_in(rows)[0] if rows.exists() else np.zeros((0, 2), np.int64)


def _dtype(shape: tuple[int, ...]) -> np.dtype[Any]:
    return np.dtype([("window", "<i8", (2,)), ("values", "<f4", tuple(shape))])


def _layout_of(path: Path) -> tuple[np.dtype[Any], int]:
    """How rows look, and how many bytes of the file are whole ones."""
    with reading(path, "the rows"):
        with path.open("rb") as file:
            head = file.readline(1 << 16)
        dtype = _dtype(tuple(json.loads(head)["rows of"]))
        rows = (path.stat().st_size - len(head)) // dtype.itemsize
        return dtype, len(head) + rows * dtype.itemsize


def rows_in(path: Path) -> tuple[Index, Values]:
    """Windows (n, 2) and values (n, C) of the whole rows of a file.

    Raises
    ------
    StoreError
        If it is no such file.
    """
    dtype, size = _layout_of(path)
    with path.open("rb") as file:
        file.readline(1 << 16)
        rows = np.frombuffer(file.read(size - file.tell()), dtype)
    return rows["window"].astype(np.int64), rows["values"].astype(np.float32)


def write_list(heatmap: ListHeatmap, path: Path, format: str) -> None:
    """Write a file of a slide's values, in place of an earlier one."""
    if format != STORE:
        heatmap.export(path, slide=None, format=format, overwrite=True)
        return
    from napari_wsi_heatmap.listmap import save_list

    if path.exists():
        with writing(path):
            shutil.rmtree(path)
    save_list(heatmap, path)


def _no_maps(format: str, values: Values, path: Path) -> ExportError:
    return ExportError(
        f"{format} has no place for maps of {values.shape[1:]} values a window",
        path,
        "return (N, C), or choose pdmcsv",
    )


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
