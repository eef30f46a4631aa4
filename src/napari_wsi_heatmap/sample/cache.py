"""Where the sample slide lies: made on first use, whole or not at all."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.sample.write import SIZE, make_sample_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

RECIPE_VERSION = "v1"
"""Part of the file's name; to be raised whenever the slide's pixels change."""

_APP = "napari-wsi-heatmap"
_PART = ".part"  # ending of files in the making
_STALE = 24 * 3600.0  # s


def sample_slide_path(
    progress: Callable[[float], object] | None = None,
    cancel: Event | None = None,
    *,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Return the path of the sample slide; make it if this is the first time.

    Parameters
    ----------
    progress : callable, optional
        Called now and then from this thread with the fraction that is done, 0 to 1. Not
        called when the slide is there already.
    cancel : threading.Event, optional
        When set, the making stops within a fraction of a second and leaves nothing behind.
    size : (int, int)
        Height and width, px; others than the default are cached under names of their own.

    Returns
    -------
    pathlib.Path
        In the user's cache folder, or in a temporary folder where that cannot be written.

    Raises
    ------
    SampleCancelledError
        It was cancelled.
    StoreFullError
        No folder can be written.
    """
    name = f"sample-{RECIPE_VERSION}.svs"
    if tuple(size) != SIZE:
        name = f"sample-{RECIPE_VERSION}-{size[1]}x{size[0]}.svs"
    reasons = []
    for folder in folders():
        try:
            return _found_or_made(folder / name, size, progress, cancel)
        except OSError as error:
            reasons.append(error)
    raise StoreFullError(
        "the sample slide cannot be written",
        where=reasons[-1],
        do="free some space or make the user's cache folder writable",
    )


def folders() -> Iterator[Path]:
    """Yield where the slide may lie: the user's cache, then a temporary folder of the user's."""
    from platformdirs import user_cache_path

    yield user_cache_path(_APP, appauthor=False)
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    yield Path(tempfile.gettempdir()) / f"{_APP}-{owner}"


def _found_or_made(
    path: Path,
    size: tuple[int, int],
    progress: Callable[[float], object] | None,
    cancel: Event | None,
) -> Path:
    if path.exists():
        return path
    _own_folder(path.parent)
    _sweep(path)
    handle, part = tempfile.mkstemp(_PART, f"{path.name}.", path.parent)
    os.close(handle)
    try:
        make_sample_slide(part, size=size, progress=progress, cancel=cancel)
        _publish(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _own_folder(folder: Path) -> None:
    """Make a folder; refuse one that is another user's (a shared temporary folder)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid not in (os.getuid(), 0):
        raise PermissionError(f"{folder} belongs to another user")


def _publish(part: str, path: Path) -> None:
    """Give a whole slide its name; one that another maker finished first is as good."""
    try:
        os.replace(part, path)
    except PermissionError:  # Windows, while another process has that slide open
        if not path.exists():
            raise


def _sweep(path: Path) -> None:
    """Remove what makers of the same slide left that were killed more than a day ago."""
    for left in path.parent.glob(f"{path.name}.*{_PART}"):
        try:
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()
        except OSError:  # another maker was quicker, or it is not ours
            continue
