"""Rows appended to a file: whole ones only, on disk after each flush."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from napari_wsi_heatmap.runfolder import writing

if TYPE_CHECKING:
    from pathlib import Path


class RowFile:
    """A file that only grows; rows that could not be written are kept and tried again.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    keep : int, optional
        Bytes to keep of what is there, such as those of its whole rows; all by default.

    Notes
    -----
    Memory bound: rows between two flushes. The file is open only while it is written, so any
    number of them can be in use.
    """

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.path = path
        self._rows: list[bytes] = []
        self._adding, self._flushing = threading.Lock(), threading.Lock()
        with writing(path), path.open("ab") as file:
            if keep is not None:
                file.truncate(keep)

    def add(self, rows: bytes) -> None:
        """Take rows, to be written by the next flush."""
        with self._adding:
            self._rows.append(rows)

    def flush(self) -> None:
        """Bring what was added to the disk.

        Raises
        ------
        StoreFullError
            If that fails: the file is as it was before, and the rows are kept.
        """
        with self._flushing:
            with self._adding:
                count, data = len(self._rows), b"".join(self._rows)
            if data:
                with writing(self.path):
                    self._append(data)
                with self._adding:
                    del self._rows[:count]

    def _append(self, data: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(before)  # else the next row would be part of half a one
                raise


def whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line, which is where a killed program stopped."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - (1 << 16))
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
            end = begin
    return 0
