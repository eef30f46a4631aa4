"""A child process that opens a slide first, so that it is the child that dies.

The child is a fresh interpreter (`subprocess`, never a fork of napari's threads), isolated from
the user's environment, with limits of its own so that the verdict does not depend on how much
memory this machine has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from napari_wsi_heatmap.errors import one_line

TIMEOUT_S = 10.0
"""Seconds; a good slide on a local disk takes 0.05."""
MEMORY = 4 << 30
"""Bytes of address space of the child; opening a slide takes a tenth of it."""

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
import openslide
print("began", flush=True)
try:
    slide = openslide.OpenSlide(path)
    slide.read_region((0, 0), 0, (64, 64))
    last = slide.level_count - 1
    width, height = slide.dimensions
    slide.read_region((width // 2, height // 2), last, (64, 64))
    print("read", flush=True)
except openslide.OpenSlideUnsupportedFormatError:
    print("read", flush=True)
except Exception as error:
    text = " ".join(str(error).replace(path + ": ", "").split()) or type(error).__name__
    print("failed", text.encode("ascii", "backslashreplace").decode(), flush=True)
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
    """Let a child open the slide and read two small places.

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
    if len(lines) == 1:
        return Verdict(asked=True, refusal=_death(err, returncode))
    word, _, text = lines[1].partition(" ")
    return Verdict(asked=True, warning=text if word == "failed" else None)


def _death(err: bytes, returncode: int) -> str:
    last = one_line(err.decode("utf-8", "replace"), 120)
    how = _signal_name(-returncode) if returncode < 0 else f"exit code {returncode}"
    told = f": {last}" if last else ""
    return (
        f"OpenSlide crashes on this file ({how}{told}) - it is damaged or hostile:"
        " download or copy it again"
    )


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
