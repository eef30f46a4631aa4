"""The bytes of a slide's file, read at any place by any number of threads."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import SlideChangedError, SlideReadError

if TYPE_CHECKING:
    from napari_wsi_heatmap.slides.content import Identity

_NO_PREAD = not hasattr(os, "pread")


class RawFile:
    """A file open for reading; to be lent by a `Handle`, which closes it when nobody reads.

    Parameters
    ----------
    path : str
    identity : (int, int, int)
        What the file was when it was looked at.

    Raises
    ------
    SlideReadError
        If it cannot be opened.
    SlideChangedError
        If it is another file by now.
    """

    def __init__(self, path: str, identity: Identity) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise SlideReadError(f"it cannot be opened: {error.strerror}", path) from error
        self._seek = threading.Lock()
        self._identity, self.size = identity, identity[0]
        try:
            self.refuse_changed()
        except SlideChangedError:
            self.close()
            raise

    def refuse_changed(self) -> None:
        """Raise SlideChangedError if somebody has written to the file since it was looked at.

        To be called after reading, too: what was read may be the bytes of another slide.
        """
        status = os.fstat(self._fd)
        if (status.st_size, status.st_mtime_ns, status.st_ino) != self._identity:
            raise SlideChangedError(
                "the file was changed or replaced", self.path, "put it back, or open it again"
            )

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`.

        Raises
        ------
        SlideReadError
            If the file does not hold them, or the disk does not give them.
        """
        if offset + length > self.size:  # before anything is allocated by a damaged table
            raise SlideReadError("its bytes lie beyond the end of the file", self.path)
        try:
            data = self._pread(offset, length)
        except OSError as error:
            raise SlideReadError(f"the disk gives an error: {error.strerror}", self.path) from error
        if len(data) < length:
            raise SlideReadError("the file ends before its bytes do", self.path)
        return data

    def _pread(self, offset: int, length: int) -> bytes:
        if _NO_PREAD:  # Windows: one position for all threads
            with self._seek:
                os.lseek(self._fd, offset, os.SEEK_SET)
                return os.read(self._fd, length)
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Release the file; only when nobody reads, since its number is given out again."""
        os.close(self._fd)
