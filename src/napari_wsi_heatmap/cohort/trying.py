"""A mark that is there while a slide is worked on, and left behind where a worker dies over it.

The first time a slide is opened without asking a child process whether it survives that; a worker
is started again if it does not. The mark then says so, and the child is asked (`slides.guard`): a
slide that kills is named in one line, and kills once.
"""

from __future__ import annotations

import contextlib
import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ".trying"


@contextmanager
def attempt(out: Path, name: str) -> Iterator[bool]:
    """Mark a slide as tried; yields whether an earlier try never came to an end.

    Whatever Python can catch ends the try. A folder that cannot be written marks nothing.
    """
    mark = out / FOLDER / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    died = mark.exists()
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    try:
        yield died
    finally:
        with contextlib.suppress(OSError):
            mark.unlink()
