"""What kills, full disks, reads that fail and reads that hang cost: nothing may be lost.

    python benchmarks/faults.py [--kills 100] [--times 9] [--write]

The series are those of the tests, `tests/kill_series.py` and the files that the table names.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])

import napari_wsi_heatmap as wh  # noqa: E402
from kill_series import KINDS, Killing  # noqa: E402
from made import FaultySlide, mean_rgb, noise_slide  # noqa: E402
from napari_wsi_heatmap.control import RunControl  # noqa: E402
from napari_wsi_heatmap.errors import StoreLockedError  # noqa: E402
from napari_wsi_heatmap.launch import prepare  # noqa: E402
from test_ends import LEFT, script  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

LIKE_IT = {"window": 64, "batch_size": 4, "tissue": "none"}

RESULTS = Path(__file__).parent / "results" / "faults.md"
KILLS = (
    "| output | kills −9 | resumes | maps | windows | found saved | computed again | lost | doubled"
    " | bytes that differ |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)
SECONDS = "| what | seconds, median (worst) of {n} | at most |\n|---|---:|---:|"
OTHERS = {
    "the machine dies, or the disk is full, at every change to the disk": "test_crash_points.py",
    "full at every write, somebody watches: paused once, then the same bits": "test_disk_full.py",
    "1 % of the tiles cannot be read; a read never returns": "test_read_faults.py",
    "a slide is damaged, replaced or goes away meanwhile": "test_damaged_slides.py",
    "left, interrupted, forked, cancelled in the model; a model that raises": "test_ends.py",
    "models that keep, change or hand on their input": "test_models_in_place.py",
    "any order of events (hypothesis)": "test_stateful.py",
}


def killed(kind: str, kills: int) -> str:
    """A line of the table of kills."""
    with tempfile.TemporaryDirectory() as folder:
        s = Killing(kind, Path(folder), seed=kills).kill(kills)
    counts = (
        s.kills,
        s.resumes,
        s.maps,
        s.windows,
        s.saved,
        s.again,
        s.lost,
        s.doubled,
        s.bytes_differing,
    )
    return f"| {kind} | {' | '.join(map(str, counts))} |"


def timed(what: str, most: float, measure: Callable[[], float], times: int) -> str:
    """A line of the table of seconds."""
    seconds = sorted(measure() for _ in range(times))
    return f"| {what} | {seconds[times // 2]:.2f} ({seconds[-1]:.2f}) | {most:g} |"


def refused() -> float:
    """Until a second process is told who writes to an output."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.zarr"
        command = script(out, dedent(LEFT["while a read hangs"]) + "\nsys.stdin.read()")
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            while not (out / "run.json").exists():
                time.sleep(0.01)
            began, told = time.perf_counter(), ""
            try:
                list(wh.run(FaultySlide(noise_slide()), mean_rgb, out=out, **LIKE_IT))
            except StoreLockedError as error:
                told = str(error)
            taken = time.perf_counter() - began
            process.stdin.close()
            assert f"process {process.pid}" in told, told
    return taken


def cancelled(model: bool) -> tuple[float, float]:
    """Until `cancel` returns, and until the run has ended: a model or a read takes 10 s."""
    slide, control, inside = FaultySlide(noise_slide()), RunControl(), threading.Event()

    def slow(batch: torch.Tensor) -> torch.Tensor:
        if control.slow:
            inside.set()
            time.sleep(10)
        return mean_rgb(batch)

    control.slow = False
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(slide, slow, control=control, out=Path(folder) / "a.zarr", **LIKE_IT)
        control.slow = model
        if not model:
            slide.gate.clear()
        working = threading.Thread(target=list, args=[run.pieces()])
        working.start()
        while not (inside.is_set() or (not model and run.progress.waiting_s > 0.3)):
            time.sleep(0.01)
        began = time.perf_counter()
        control.cancel()
        acknowledged = time.perf_counter() - began
        working.join()
        ended = time.perf_counter() - began
        slide.gate.set()
    return acknowledged, ended


def gone(code: str) -> float:
    """From the last line of a script until its process is gone."""
    with tempfile.TemporaryDirectory() as folder:
        last = "\nimport time\nprint('last', time.time(), flush=True)"
        command = script(Path(folder) / "a.zarr", dedent(code) + last)
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        now = time.time()
    assert not ended.stderr, ended.stderr
    # A model that says something may do so in the middle of the line.
    return now - max(float(number) for number in re.findall(r"\d{9,}\.\d+", ended.stdout))


def seconds(times: int) -> list[str]:
    """The table of how long it takes to stop."""
    lines = [SECONDS.format(n=times)]
    what = {
        "a second process is refused by the first one's number": (1, refused),
        "`cancel()` returns": (0.1, lambda: cancelled(True)[0]),
        "a cancelled run has ended, its model in a call of 10 s": (1, lambda: cancelled(True)[1]),
        "a cancelled run has ended, its slide in a read that hangs": (
            1,
            lambda: cancelled(False)[1],
        ),
    }
    for name, code in LEFT.items():
        what[f"a script's process is gone, its run left {name}"] = 2, partial(gone, code)
    for name, (most, measure) in what.items():
        lines.append(timed(name, most, measure, times))
        print(lines[-1], flush=True)
    return lines


def tested(what: str, file: str) -> str:
    """A line for a file of tests: how many passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", TESTS / file]
    ended = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    return f"| {what} | `{file}` | {ended.stdout.strip().splitlines()[-1].split(' in ')[0]} |"


def table(kills: int, times: int) -> str:
    """Everything, as Markdown."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    lines = [f"Machine: {machine}, Python {platform.python_version()}.", "", KILLS]
    for kind in KINDS:
        lines.append(killed(kind, kills))
        print(lines[-1], flush=True)
    lines += ["", *seconds(times), "", "| fault | tests | outcome |", "|---|---|---|"]
    for what, file in OTHERS.items():
        lines.append(tested(what, file))
        print(lines[-1], flush=True)
    return "\n".join(lines)


NOTE = """A map is killed within 0.4 s of its beginning or of its first batch and continued by a new
process, until it is done; then the next is begun. *Found saved*: windows that a later process
found called done, summed over processes. *Computed again*: found saved, and computed once more; a
dense map keeps no outputs, so windows that share a chunk with unfinished ones are. *Lost*: called
done, and not there or not right; or never done at the end. *Doubled*: came twice in one process.
*Bytes that differ*: of values, states, positions and features, between the maps at the end and one
that was not disturbed. A script's process is gone: counted from its last line; each ended with
status 0 and said nothing.
"""


def main() -> None:
    """Run all series and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--times", type=int, default=9, help="that a duration is measured")
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}")
    asked = parser.parse_args()
    command = f"`python benchmarks/faults.py --kills {asked.kills}`"
    text = f"# Faults\n\n{command}\n\n{table(asked.kills, asked.times)}\n\n{NOTE}"
    if asked.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
