"""Opens, reads and closes a slide many times in a process of its own, and says what stayed.

The growth is that after the first cycles, which load libraries and fill what is kept on purpose.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 100


@dataclass(frozen=True)
class Left:
    """What a series of cycles left behind."""

    cycles: int
    backend: str
    """That read it; "refused" where the file is not opened."""
    failed_reads: int
    files: int
    """File descriptors."""
    mb: float
    """Resident memory."""
    threads: int
    seconds: float


def cycles_of(path: Path, cycles: int, backend: str | None = None) -> Left:
    """Run `WARM_UP` cycles, then `cycles` that are measured."""
    command = [sys.executable, __file__, str(path), str(cycles), backend or ""]
    with tempfile.TemporaryDirectory() as folder:
        search = os.pathsep.join(entry for entry in sys.path if entry)
        environment = dict(os.environ, PYTHONPATH=search, TMPDIR=folder)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise AssertionError(f"exit {done.returncode}: {done.stderr[-1000:]}")
    return Left(**json.loads(done.stdout))


def _cycle(path: str, backend: str | None) -> tuple[str, int]:
    from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
    from napari_wsi_heatmap.slides import open_slide

    failed = 0
    try:
        slide = open_slide(path, backend)
    except SlideOpenError:
        return "refused", 0
    with slide:
        for level in range(len(slide.levels)):
            try:
                slide.read_region(level, 0, 0, 200, 200)
            except SlideReadError:
                failed += 1
    return slide.backend, failed


def _state() -> tuple[int, float, int]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return files, pages * os.sysconf("SC_PAGESIZE") / 2**20, threading.active_count()


def main() -> None:
    """Measure one file; see `cycles_of`."""
    import time

    from napari_wsi_heatmap.slides import verdicts

    path, cycles, backend = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
    with contextlib.closing(tempfile.TemporaryFile()):  # the folder of the verdicts exists
        verdicts.location = lambda: Path(tempfile.gettempdir()) / "opened-slides.json"
    for _ in range(WARM_UP):
        used, failed = _cycle(path, backend)
    before, begun = _state(), time.perf_counter()
    total = sum(_cycle(path, backend)[1] for _ in range(cycles))
    seconds = time.perf_counter() - begun
    files, mb, threads = (now - then for now, then in zip(_state(), before, strict=True))
    assert total == failed * cycles
    print(json.dumps(Left(cycles, used, total, files, mb, threads, seconds).__dict__))


if __name__ == "__main__":
    main()
