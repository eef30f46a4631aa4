"""Opening a file that somebody calls a model: only a plain file, and never waiting for one."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file to read.

    Raises
    ------
    ModelLoadError
        If there is none, it may not be read, or it is a folder, a pipe or a device.
    """
    handle = _descriptor(path)
    with os.fdopen(handle, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> ModelLoadError:
    """Say that a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return ModelLoadError("there is no such model file", path, "check the path")
    reason = getattr(error, "strerror", None) or error
    return ModelLoadError(f"the model file cannot be read: {reason}", path, "check the file")


def _descriptor(path: Path) -> int:
    # A pipe that nobody writes to would make us wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        do = "choose a model file, or a folder with the config.json of a WSInfer model"
        raise ModelLoadError("it is a folder", path, do)
    raise ModelLoadError("it is no plain file", path, "choose a model file")
