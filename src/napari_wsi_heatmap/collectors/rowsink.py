"""Files that must be written at one go, of rows of numbers that grow beside them.

``<file>.rows`` is a line of JSON, then for each window two int64 and its float32 values.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from napari_wsi_heatmap.collectors.sink import SlideSink, no_maps
from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.errors import PlanMismatchError
from napari_wsi_heatmap.rowfile import RowFile, whole_lines
from napari_wsi_heatmap.runfolder import reading, writing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowSpec
    from napari_wsi_heatmap.listmap import ListHeatmap

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]

STORE: Final = "store"
"""Format that is no export: an OME-Zarr that `open_heatmap` opens."""


@final
class RowsSink(SlideSink):
    """Rows of numbers, of which another file is made at the end.

    Memory bound: at the end, all values of the slide.
    """

    def __init__(self, *given: Any, format: str) -> None:
        super().__init__(*given)
        self._format, self._dtype = format, np.dtype([])
        self._rows = self.path.with_name(f"{self.path.name}.rows")
        self._file: RowFile | None = None

    def add(self, windows: Index, values: Values) -> None:
        """Take rows."""
        if values.ndim != 2:
            raise no_maps(self._format, values, self.path)
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
        if _begun(self._rows):
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
        if not _begun(self._rows):
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
        return rows_in(rows)[0] if _begun(rows) else np.zeros((0, 2), np.int64)


def _begun(rows: Path) -> bool:
    """Whether the first line is there; a session may have been killed before."""
    return rows.exists() and whole_lines(rows) > 0


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
