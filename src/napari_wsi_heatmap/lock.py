"""One writer an output: a lock that the operating system frees when its holder dies.

The lock lies on a file of its own, since `zarr.json` is replaced by renaming.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import StoreFullError, StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path

NAME = ".lock"
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What the operating system answers where somebody else holds the lock."""


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
        If the folder cannot be written, or its disk knows no locks.
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
            self._take(folder)
        except BaseException:
            self.release()
            raise

    def _take(self, folder: Path) -> None:
        try:
            _lock(self._file)
        except OSError as error:
            if error.errno not in HELD:
                raise StoreFullError(
                    f"cannot lock: {error.strerror}", folder, "choose a folder on another disk"
                ) from error
            raise StoreLockedError(
                f"{self._holder()} is writing here", folder, "wait for it, or choose another output"
            ) from error
        with suppress(OSError):  # a full disk: the lock holds also without a name on it
            self._sign()

    def _holder(self) -> str:
        os.lseek(self._file, 0, os.SEEK_SET)
        return os.read(self._file, 200).decode(errors="replace") or "another process"

    def _sign(self) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def refuse_gone(self) -> None:
        """Raise StoreFullError where the folder that was locked is not there any more."""
        try:
            there, ours = os.stat(self._folder / NAME), os.fstat(self._file)
        except OSError as error:
            raise StoreFullError(
                f"cannot be reached: {error.strerror}",
                self._folder,
                "see that its drive is there, then resume",
            ) from error
        if not os.path.samestat(there, ours):
            raise StoreFullError(
                "another folder is there than the run has locked",
                self._folder,
                "end the run, then resume it",
            )

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
