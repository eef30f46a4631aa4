"""One writer an output: a lock that the operating system frees when its holder dies.

The lock lies on a file of its own, since `zarr.json` is replaced by renaming.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import StoreFullError, StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path

NAME = ".lock"


class StoreLock:
    """Exclusive lock on a folder; refused at once if somebody holds it.

    Parameters
    ----------
    folder : Path
        Must exist.

    Raises
    ------
    StoreLockedError
        Naming the holder's process and machine.
    StoreFullError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreFullError(
                f"cannot write: {error.strerror}", folder, "choose another output folder"
            ) from error
        try:
            _lock(self._file)
        except OSError as error:
            holder = os.pread(self._file, 200, 0).decode(errors="replace") or "another process"
            os.close(self._file)
            raise StoreLockedError(
                f"{holder} is writing here", folder, "wait for it, or choose another output"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Free it; releasing again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


if os.name == "nt":
    import msvcrt

    def _lock(file: int) -> None:
        # The byte lies beyond the text, so that others can read who holds the lock.
        os.lseek(file, 4096, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
