"""A child process that opens a slide first, so that it is the child that dies.

The child is a fresh interpreter (`subprocess`, never a fork of napari's threads), isolated from
the user's environment, with limits of its own so that the verdict does not depend on how much
memory this machine has.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

MAX_SIDE = 1 << 21
"""Pixels; the widest slides known are below 2^19."""
TIMEOUT_S = 10.0
"""Seconds; a good slide on a local disk takes 0.05."""
MEMORY = 4 << 30
"""Bytes of address space of the child; opening a slide takes a tenth of it."""

_REPAIR = "download or copy it again"

CHILD = """
import os, sys
path, memory = sys.argv[1], int(sys.argv[2])
sys.path[:] = sys.argv[3:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
except (ImportError, ValueError, OSError):
    pass
import openslide, time
print("began", flush=True)
end = time.monotonic() + 3

def said(error):
    text = " ".join(str(error).replace(path + ": ", "").split()) or type(error).__name__
    return "failed " + text.encode("ascii", "backslashreplace").decode()

def number(name):
    return int(slide.properties.get("openslide.bounds-" + name, 0))

told = "read"
try:
    slide = openslide.OpenSlide(path)
    sizes = slide.level_dimensions
    print("side", max(max(size) for size in sizes), flush=True)
    middle = sizes[0][0] // 2, sizes[0][1] // 2
    corner = number("x"), number("y")
    inside = corner[0] + number("width") // 2, corner[1] + number("height") // 2
    reads = [((0, 0), 0), (middle, len(sizes) - 1)]
    for level in range(len(sizes)):
        reads += [(place, level) for place in {inside, corner, middle, (0, 0)}]
    for index, (place, level) in enumerate(reads):
        if index < 2 or time.monotonic() < end:
            try:
                slide.read_region(place, level, (64, 64))
            except Exception as error:
                if index < 2:
                    told = said(error)
                slide = openslide.OpenSlide(path)  # after an error it says nothing else
except openslide.OpenSlideUnsupportedFormatError:
    pass
except Exception as error:
    told = said(error)
print(told, flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Verdict:
    """What the child made of a slide."""

    asked: bool
    """False where no child could be started; that says nothing about the slide."""
    refusal: str | None = None
    """Why the slide must not be opened here."""
    warning: str | None = None
    """What it read badly and survived."""


def ask(path: str, timeout_s: float = TIMEOUT_S, memory: int = MEMORY) -> Verdict:
    """Let a child open the slide and read small places of every level.

    What the first two of them (the origin, the middle of the coarsest level) say is the warning.
    The others are read because each level, and what was scanned of it, can have a fault of its
    own that kills; errors there are found by whoever reads them.

    Parameters
    ----------
    path : str
        A regular file.
    timeout_s : float
        Seconds of silence that are taken for a hang.
    memory : int
        Bytes of address space of the child.
    """
    if not has_interpreter():
        return Verdict(asked=False)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CHILD, path, str(memory), *_import_path()],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return _silent(bytes(error.stdout or b""), timeout_s)
    except (OSError, ValueError):
        return Verdict(asked=False)
    return judge(done.stdout, done.stderr, done.returncode)


def has_interpreter() -> bool:
    """Tell whether `sys.executable` is a Python (in a frozen application it is the application)."""
    name = os.path.basename(sys.executable or "").lower()
    return not getattr(sys, "frozen", False) and name.startswith(("python", "pypy"))


def judge(out: bytes, err: bytes, returncode: int) -> Verdict:
    """Read what the child printed and how it ended."""
    lines = out.decode("ascii", "replace").splitlines()
    if not lines or lines[0] != "began":
        return Verdict(asked=False)  # it could not even import OpenSlide: no fault of the slide
    told = {word: text for word, _, text in (line.partition(" ") for line in lines[1:])}
    if not told.keys() & {"read", "failed"}:
        return Verdict(asked=True, refusal=_death(err, returncode))
    side = told.get("side", "0")
    if int(side) > MAX_SIDE:
        return Verdict(
            asked=True, refusal=f"damaged: it claims a side of {side} pixels - {_REPAIR}"
        )
    return Verdict(asked=True, warning=told.get("failed"))


def _death(err: bytes, returncode: int) -> str:
    how = _signal_name(-returncode) if returncode < 0 else f"exit code {returncode}"
    asked = re.search(rb"failed to allocate (\d+) bytes", err)
    wanted = f", asking for {int(asked[1]) / 2**30:.1f} GiB of memory" if asked else ""
    return f"OpenSlide crashes on this file ({how}{wanted}) - it is damaged or hostile: {_REPAIR}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _silent(out: bytes, timeout_s: float) -> Verdict:
    if not out.startswith(b"began"):
        return Verdict(asked=False)
    return Verdict(
        asked=True,
        refusal=f"OpenSlide did not answer within {timeout_s:g} s"
        " - copy the slide to a local disk and try again",
    )


def _import_path() -> list[str]:
    # -I ignores PYTHONPATH and -S the site folders: the child imports from where we import.
    return [os.path.abspath(entry) for entry in sys.path if entry]
