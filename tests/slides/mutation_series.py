"""Opens a series of mutated slides in one process of its own, so that its death can be seen.

The process has no guard but the header check: the child that would be asked about each file is
left out. It prints the number of an input before it touches it, and what came of it after.
Each input may take `ALARM_S` seconds; then the process is ended by its alarm, which counts as
a hang. Its address space is limited, so what allocates without bound dies.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mutations import MAKERS, Base, make_base, mutated

ALARM_S = 10
MEMORY = 4 << 30
WHOLE = 1 << 18
"""Pixels up to which a level is read whole."""


@dataclass
class Tally:
    """What came of a series."""

    inputs: int = 0
    refused: int = 0
    opened: int = 0
    read_errors: int = 0
    """Boxes that could not be read, of all opened slides."""
    boxes: int = 0
    deaths: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    """Exceptions that are no SlideError, or errors that are not one line."""
    worst_s: float = 0.0
    worst_mb: float = 0.0
    """Most by which one input raised the peak of the process's memory."""
    lost_files: int = 0
    """File descriptors that stayed open."""
    messages: collections.Counter = field(default_factory=collections.Counter)
    backends: collections.Counter = field(default_factory=collections.Counter)

    def add(self, told: dict, where: str) -> None:
        """Count one input."""
        self.inputs += 1
        self.refused += told["refused"] is not None
        self.opened += told["backend"] is not None
        self.read_errors += told["errors"]
        self.boxes += told["boxes"]
        self.unexpected += [f"{where}: {text}" for text in told["unexpected"]]
        self.worst_s = max(self.worst_s, told["seconds"])
        self.worst_mb = max(self.worst_mb, told["mb"])
        self.lost_files = max(self.lost_files, told["files"])
        if told["refused"] is not None:
            self.messages[told["refused"]] += 1
        else:
            self.backends[told["backend"]] += 1


def run_series(name: str, first: int, count: int, backend: str | None = None) -> Tally:
    """Open the mutations `first` to ``first + count`` of a base; go on after a death."""
    tally, at = Tally(), first
    while at < first + count:
        at = _one_process(name, at, first + count, backend, tally) + 1
    return tally


def _one_process(name: str, at: int, stop: int, backend: str | None, tally: Tally) -> int:
    """Let a process work until it ends or dies; return the last input that it touched."""
    command = [sys.executable, __file__, name, str(at), str(stop), backend or ""]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, env=dict(os.environ, PYTHONPATH=path, TMPDIR=folder), **options
        ) as process,
    ):
        out, err = process.communicate()
    last, told = at - 1, True
    for line in out.splitlines():
        if line.startswith("{"):
            tally.add(json.loads(line), f"{name}, seed {last}, {backend}")
            told = True
        else:
            last, told = int(line), False
    if process.returncode or not told:
        _count_death(tally, f"{name}, seed {last}, {backend}", process.returncode, err, told)
        return last if not told else stop
    return stop


def _count_death(tally: Tally, where: str, code: int, err: str, told: bool) -> None:
    text = f"{where}: exit {code}{' at its end' if told else ''}: {err.strip()[-400:]}"
    tally.inputs += not told
    (tally.hangs if code == -signal.SIGALRM else tally.deaths).append(text)


def _worked_off(base: Base, name: str, start: int, stop: int, backend: str | None) -> None:
    folder = Path(tempfile.mkdtemp())
    for seed in range(start, stop):
        path = folder / f"{seed}{base.suffix}"
        path.write_bytes(mutated(name, base, seed))
        print(seed, flush=True)
        signal.alarm(ALARM_S)
        told = _opened(str(path), backend)
        signal.alarm(0)
        print(json.dumps(told), flush=True)
        path.unlink()


def _opened(path: str, backend: str | None) -> dict:
    told = {"refused": None, "backend": None, "errors": 0, "boxes": 0, "unexpected": []}
    files, before, begun = _open_files(), _peak_mb(reset=True), time.perf_counter()
    try:
        _read_all(path, backend, told)
    except Exception:
        told["unexpected"].append(traceback.format_exc()[-1500:])
    told["seconds"] = time.perf_counter() - begun
    told["mb"] = _peak_mb() - before
    told["files"] = _open_files() - files
    return told


def _read_all(path: str, backend: str | None, told: dict) -> None:
    from napari_wsi_heatmap.errors import SlideError, SlideOpenError
    from napari_wsi_heatmap.slides import open_slide

    try:
        slide = open_slide(path, backend)
    except SlideOpenError as error:
        _judge(error, told)
        told["refused"] = without_numbers(error.what)
        return
    with closing(slide):
        told["backend"] = slide.backend
        for level in range(len(slide.levels)):
            for box in boxes(*slide.levels[level].shape):
                _try(lambda level=level, box=box: slide.read_region(level, *box), told, SlideError)
        for name in slide.associated_images:
            _try(lambda name=name: slide.associated_images[name], told, SlideError)
        _try(lambda: slide.icc_profile, told, SlideError)


def _try(job, told: dict, expected: type[Exception]) -> None:
    told["boxes"] += 1
    try:
        job()
    except expected as error:
        told["errors"] += 1
        _judge(error, told)


def _judge(error: Exception, told: dict) -> None:
    if not str(error).isprintable() or not str(error) or "Traceback" in str(error):
        told["unexpected"].append(f"a message that is not one line: {error!r}")


def boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(y, x, height, width) of a few places, or all of a small level."""
    if height * width <= WHOLE:
        return [(0, 0, height, width), (height // 2, width // 2, 16, 16)]
    far = height - 50, width - 50, 100, 100
    return [(0, 0, 64, 64), (height // 2, width // 2, 64, 64), far, (100, 100, 300, 300)]


def without_numbers(text: str) -> str:
    """Replace numbers, so that messages of one kind are counted together."""
    return "".join("N" if c.isdigit() else c for c in text).replace("NN", "N").replace("NN", "N")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _peak_mb(*, reset: bool = False) -> float:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Work off a part of a series; see `run_series`."""
    import resource

    name, start, stop, backend = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    base = make_base(name, Path(tempfile.mkdtemp()))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from napari_wsi_heatmap.slides import guard

    # The probe: what is measured here is what the header check lets through.
    guard.check_child = lambda path, fingerprint: None
    # The codecs are imported before anything is measured.
    healthy = Path(tempfile.mkdtemp()) / f"healthy{base.suffix}"
    healthy.write_bytes(base.raw)
    _opened(str(healthy), backend or None)
    _worked_off(base, name, start, stop, backend or None)


if __name__ == "__main__":
    assert sys.argv[1] in MAKERS
    main()
