"""A slide that is a file (or a folder): what can be known of it before a backend opens it.

`look` checks a file once; every backend that is then tried gets the same `SlideFile`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import SlideChangedError, SlideOpenError
from napari_wsi_heatmap.slides import content, diagnose, guard, metadata
from napari_wsi_heatmap.slides.base import Slide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.slides.tiffheader import Directory


class NotSureError(SlideOpenError):
    """A backend leaves this file to the next one of the table; says why."""


@dataclass(frozen=True)
class SlideFile:
    """A file that has passed what is checked before anyone opens it."""

    path: str
    identities: dict[str, content.Identity]
    """Of every file of the slide, when it was looked at."""
    fingerprint: str
    directories: tuple[Directory, ...] = ()
    """Of a TIFF; empty for other formats."""
    unread: str | None = None
    """What a child process could not read of it through OpenSlide."""


def look(path: str) -> SlideFile:
    """Check a slide's file; see `guard.check`.

    Raises
    ------
    SlideOpenError
        With the true cause why it is no slide, or must not be opened.
    """
    cause = diagnose.obvious_cause(path)
    if cause:
        raise guard.refuse(cause, path)
    try:
        identities = content.identities(path)
        fingerprint = content.fingerprint(path)
        return SlideFile(path, identities, fingerprint, *guard.check(path, fingerprint))
    except OSError as error:
        raise SlideOpenError(f"it cannot be read: {error.strerror}", path) from error


class FileSlide(Slide):
    """What all slides from files share: identity, fingerprint, the caller's calibration.

    Parameters
    ----------
    file : str or SlideFile
    mpp : float or (float, float), optional
        µm per level-0 pixel, one value or (y, x), where the file states none or a wrong one.
    """

    def __init__(
        self, file: str | SlideFile, *, mpp: float | Sequence[float] | None = None
    ) -> None:
        path = file if isinstance(file, str) else file.path
        self.path, self.name = path, os.path.basename(path.rstrip("/\\"))
        self._stated_mpp = None if mpp is None else metadata.caller_mpp(mpp, path)
        self._file = self._look(path) if isinstance(file, str) else file

    def _look(self, path: str) -> SlideFile:
        return look(path)

    def _calibrate(
        self, found: tuple[float, float] | None, source: str | None, missing: str | None
    ) -> tuple[str, ...]:
        """Set `mpp` and `mpp_source`; return what to warn of."""
        self.mpp, self.mpp_source = found, source if found else None
        if self._stated_mpp is None:
            return (missing,) if missing else ()
        self.mpp, self.mpp_source = self._stated_mpp, "stated by the caller"
        return ()

    @property
    def fingerprint(self) -> str:
        """Hex digest of the content: sizes, headers and sampled bytes of the files."""
        return self._file.fingerprint

    def identity(self) -> content.Identity:
        """(size, mtime_ns, inode) that the file had when it was opened."""
        return self._file.identities[self.path]

    def changed(self) -> str | None:
        """Say why the file is no longer the one that was opened; None while it is."""
        return content.difference(self._file.identities)

    def _refuse_changed(self) -> None:
        # Opening a replaced file again would mix the pixels of two slides.
        reason = self.changed()
        if reason:
            raise SlideChangedError(reason, self.path, "put it back, or open it again")

    def __reduce__(self) -> tuple[Any, ...]:
        # By path: open handles do not travel, and another process checks the file anew.
        return _reopen, (type(self), self.path, self._stated_mpp)


def _reopen(cls: type[FileSlide], path: str, mpp: tuple[float, float] | None) -> FileSlide:
    return cls(path, mpp=mpp)
