"""An HDF5 file to write, on a disk that may be full.

HDF5 holds data back, and where it cannot write them it fails again and again while it lets go of
the file, in places where no error can be caught. So it writes through a file that never fails: it
keeps the first error, drops what comes after it, and the error is raised when HDF5 is done.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def new_h5(path: Path) -> Iterator[Any]:
    """Yield an empty `h5py.File` that says who made it.

    Raises
    ------
    OSError
        At the end, if not all could be written.
    """
    import h5py

    with path.open("w+b", buffering=0) as raw:
        target = UnfailingFile(raw)
        with h5py.File(target, "w") as file:
            file.attrs["generator"] = f"napari-wsi-heatmap {__version__}"
            yield file
        if target.error is not None:
            raise target.error


class UnfailingFile:
    """A file that keeps its first error and goes on as if it were written.

    Parameters
    ----------
    raw : file
        Opened for reading and writing, without a buffer.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or drop it."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[self._raw.write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int) -> int:
        """Cut or lengthen it, or leave it."""
        try:
            self._raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def readinto(self, buffer: Any) -> int:
        """Read; zeros where nothing could be written."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        read = 0
        while read < len(view) and (n := self._raw.readinto(view[read:])):
            read += n
        return len(view)

    def read(self, size: int) -> bytes:
        """Read so many bytes; by its having this h5py knows a file."""
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def seek(self, *where: int) -> int:
        """Go to a place."""
        place: int = self._raw.seek(*where)
        return place

    def tell(self) -> int:
        """Say where it is."""
        place: int = self._raw.tell()
        return place

    def flush(self) -> None:
        """Nothing waits: there is no buffer."""
