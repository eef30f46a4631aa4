"""An output's folder while it is ours to write: still there, or there again after its drive was."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap.errors import StoreError, StoreFullError
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.runfolder import read_record

if TYPE_CHECKING:
    from pathlib import Path

MARKS: Final = ("process", "begun", "ended", "status", "reason")
"""What of a record tells whether another run, or an older state of a disk, has replaced it."""


class HeldFolder:
    """A folder that is locked, and what was last written there.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StoreLockedError, StoreFullError
        As `StoreLock`.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, StoreLock(path)
        self._left: dict[str, Any] | None = None

    def note(self, record: dict[str, Any]) -> None:
        """Remember the record that was written last."""
        self._left = _marks(record)

    def refuse_gone(self) -> None:
        """Refuse to go on where the folder is not there, or not as it was left.

        A network drive leaves an empty folder behind; what is written there would be lost when it
        comes back. One that was mounted anew is locked anew.

        Raises
        ------
        StoreFullError
            If it is gone.
        StoreLockedError
            If it is back, and another process writes there.
        """
        try:
            self._lock.refuse_gone()
        except StoreFullError:
            if not self._is_as_left():
                raise
            self._lock_anew()

    def _is_as_left(self) -> bool:
        try:
            return self._left is not None and _marks(read_record(self._path)) == self._left
        except StoreError:
            return False

    def _lock_anew(self) -> None:
        gone, self._lock = self._lock, StoreLock(self._path)
        with suppress(OSError):  # its drive does not answer
            gone.release()
        if not self._is_as_left():
            raise StoreFullError(
                "another run has written here", self._path, "end this one, then resume it"
            )

    def release(self) -> None:
        """Let others write."""
        self._lock.release()


def _marks(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in MARKS}
