"""How a command speaks: lines on its two streams, and its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import one_line

if TYPE_CHECKING:
    from typing import TextIO

DONE, FAILED, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130
"""Exit codes; wrong usage is argparse's 2."""
PIPE_CLOSED = 141
"""What shells report of a program whose reader has gone, as in ``info SLIDE | head -1``."""


def say(line: str) -> None:
    """Write a line of a command's result to stdout."""
    _write(sys.stdout, line)


def note(line: str) -> None:
    """Write what the user should know, as one line on stderr."""
    _write(sys.stderr, one_line(f"note: {line}", 600))


def fail(line: str) -> None:
    """Write why a command has failed, as one line on stderr."""
    _write(sys.stderr, one_line(f"error: {line}", 600))


def flush() -> None:
    """Send what was written: a reader that has gone is noticed here."""
    sys.stdout.flush()


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "utf-8"
    # A file name may hold bytes that are no text, and a terminal may know no µ.
    text = line.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text + "\n")
