"""What opening, reading and closing a slide many times leaves behind.

    python benchmarks/leaks.py [--cycles 10000] [--write]

Each cycle opens the slide, reads 200 x 200 pixels of every level and closes it; after 100 cycles
that are not counted. Refused files and files whose reads fail are opened as often. Where the test
data is there (WSI_TEST_DATA, else ../shared/data), DICOM and MRXS too. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "slides")]

from leak_series import cycles_of  # noqa: E402
from test_leaks import MADE, REAL, REFUSED  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "leaks.md"
SLOW = ("mrxs", "dicom", "ndpi")
HEAD = (
    "| file | opened by | cycles | failed reads | files left | threads left | memory, MB"
    " | ms a cycle |\n|---|---|---:|---:|---:|---:|---:|---:|"
)


def files(folder: Path) -> dict[str, Path]:
    """Every kind of file, by name."""
    found = {}
    for name, make in (MADE | REFUSED).items():
        (folder / name).mkdir()
        found[name] = make(folder / name)
    data = Path(os.environ.get("WSI_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    for name, where in REAL.items():
        path = data / where
        if path.exists():
            found[name] = min(path.glob("*.dcm")) if path.is_dir() else path
    return found


def rows(name: str, path: Path, cycles: int) -> list[str]:
    """Lines of the table for one file: by the default, and by OpenSlide where that differs."""
    lines = []
    for backend in (None,) if name in SLOW else (None, "openslide"):
        left = cycles_of(path, cycles, backend)
        by = left.backend if backend is None or left.backend != "refused" else "refused, OpenSlide"
        ms = 1e3 * left.seconds / cycles
        counts = f"{left.cycles} | {left.failed_reads} | {left.files} | {left.threads}"
        lines.append(f"| {name} | {by} | {counts} | {left.mb:+.1f} | {ms:.2f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run all cycles and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}")
    asked = parser.parse_args()
    lines = [HEAD]
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(Path(folder)).items():
            # A cycle of these takes 10 to 80 ms.
            lines += rows(name, path, asked.cycles // (10 if name in SLOW else 1))
    table = "\n".join(lines)
    text = f"# Leaks\n\n`python benchmarks/leaks.py --cycles {asked.cycles}`\n\n{table}\n"
    if asked.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
