"""What kills, full disks, reads that fail and reads that hang cost: nothing may be lost.

    python benchmarks/faults.py [--kills 100] [--write]

The series are those of the tests, `tests/kill_series.py` and the files that the table names.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])

from kill_series import DENSE, PLAIN, Killing  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "faults.md"
KILLS = (
    "| output | kills −9 | resumes | maps | windows | found saved | computed again | lost | doubled"
    " | bytes that differ |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)
OTHERS = {
    "the machine dies, or the disk is full, at every change to the disk": "test_crash_points.py",
    "full at every write, somebody watches: paused once, then the same bits": "test_disk_full.py",
    "1 % of the tiles cannot be read; a read never returns": "test_read_faults.py",
    "a slide is damaged, replaced or goes away meanwhile": "test_damaged_slides.py",
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


def tested(what: str, file: str) -> str:
    """A line for a file of tests: how many passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", TESTS / file]
    ended = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    return f"| {what} | `{file}` | {ended.stdout.strip().splitlines()[-1].split(' in ')[0]} |"


def table(kills: int) -> str:
    """Everything, as Markdown."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    lines = [f"Machine: {machine}, Python {platform.python_version()}.", "", KILLS]
    for kind in (PLAIN, DENSE):
        lines.append(killed(kind, kills))
        print(lines[-1], flush=True)
    lines += ["", "| fault | tests | outcome |", "|---|---|---|"]
    for what, file in OTHERS.items():
        lines.append(tested(what, file))
        print(lines[-1], flush=True)
    return "\n".join(lines)


NOTE = """A map is killed within 0.4 s of its beginning or of its first batch and continued by a new
process, until it is done; then the next is begun. *Found saved*: windows that a later process
found called done, summed over processes. *Computed again*: found saved, and computed once more; a
dense map keeps no outputs, so windows that share a chunk with unfinished ones are. *Lost*: called
done, and not there or not right; or never done at the end. *Doubled*: came twice in one process.
*Bytes that differ*: of values, states and positions, between the maps at the end and one that was
not disturbed.
"""


def main() -> None:
    """Run all series and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}")
    asked = parser.parse_args()
    command = f"`python benchmarks/faults.py --kills {asked.kills}`"
    text = f"# Faults\n\n{command}\n\n{table(asked.kills)}\n\n{NOTE}"
    if asked.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
