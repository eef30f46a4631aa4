"""Slides that a child process has already opened without harm, by fingerprint.

Only good verdicts are kept: a refused file is asked about again each time, for its refusal may
have been the machine's fault. Kept in memory, and in a small file in the user's cache folder;
a folder that cannot be written costs 0.05 s at each opening and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOST = 2000
"""Verdicts kept on disk, about 0.2 MB; the oldest leave first."""
_FORMAT = 3

_lock = threading.Lock()
_known: dict[str, str | None] | None = None


def location() -> Path:
    """File in the user's cache folder that holds the verdicts."""
    import platformdirs

    return platformdirs.user_cache_path("napari-wsi-heatmap") / "opened-slides.json"


def recall(fingerprint: str) -> tuple[bool, str | None]:
    """Look up a slide.

    Returns
    -------
    known : bool
    warning : str or None
        What the child could not read.
    """
    with _lock:
        known = _load()
        return fingerprint in known, known.get(fingerprint)


def remember(fingerprint: str, warning: str | None) -> None:
    """Keep a good verdict."""
    with _lock:
        known = _load()
        known[fingerprint] = warning
        while len(known) > MOST:
            del known[next(iter(known))]
        with contextlib.suppress(OSError):
            _save(known)


def forget() -> None:
    """Drop what is in memory; the file is read again when asked."""
    global _known
    with _lock:
        _known = None


def _load() -> dict[str, str | None]:
    global _known
    if _known is None:
        _known = _read()
    return _known


def _read() -> dict[str, str | None]:
    try:
        stored = json.loads(location().read_bytes())
        known = stored["known"] if stored["format"] == _stamp() else {}
        return {str(k): v if v is None else str(v) for k, v in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _save(known: dict[str, str | None]) -> None:
    target = location()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"format": _stamp(), "known": known}, file)
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _stamp() -> str:
    # Another OpenSlide may crash where this one did not.
    import openslide

    return f"{_FORMAT}, OpenSlide {openslide.__library_version__}"
