"""What a cohort costs beside the work: many small slides on two workers, and a plain loop.

    python benchmarks/cohort.py [--slides 100] [--workers 2] [--write]

A worker's seconds for a slide are those from opening it to its last save, as in a plain loop. The
overhead is all the rest of the time that a worker was there for: waiting for a task, the mark of a
try, how values are distributed, facts on their way. Starting the workers is told apart.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS)]

from made_slides import tissue, write_tiff  # noqa: E402
from napari_wsi_heatmap.cohort.held import Held  # noqa: E402
from napari_wsi_heatmap.cohort.request import Request  # noqa: E402
from napari_wsi_heatmap.cohort.running import run_cohort  # noqa: E402
from napari_wsi_heatmap.cohort.slidelist import list_slides  # noqa: E402
from napari_wsi_heatmap.cohort.slidework import work_on  # noqa: E402
from napari_wsi_heatmap.slides import probe  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "cohort.md"
SETTINGS = {"window": 224, "level": 0, "tissue": "none", "batch_size": 8}
MODEL, SIDE, LIMIT_MS = "hematoxylin", 1024, 50


def make(folder: Path, number: int) -> Path:
    folder.mkdir()
    for i in range(number):
        write_tiff(folder / f"s{i:03d}.tif", [tissue(SIDE, SIDE, i)], compression="jpeg")
    return folder


def plain_loop(slides: Path, out: Path) -> float:
    """Seconds a slide of the same work in this process, one slide after the other."""
    held = Held(Request(MODEL, out, SETTINGS, expendable=True))
    items = list_slides(slides)
    work_on(held, items[0])
    begun = time.perf_counter()
    for item in items[1:]:
        assert work_on(held, item).finished
    return (time.perf_counter() - begun) / (len(items) - 1)


def cohort(slides: Path, out: Path, workers: int) -> dict[str, float]:
    begun, last, told = time.perf_counter(), 0.0, []
    for facts in run_cohort(slides, MODEL, out=out, workers=workers, **SETTINGS):
        assert facts.finished, facts.error
        last = time.perf_counter()
        told.append((last, facts.seconds, facts.opening_s))
    first = told[0][0] - told[0][1]
    work = sum(seconds for _, seconds, _ in told)
    return {
        "start": first - begun,
        "wall": last - first,
        "work": work / len(told),
        "opening": sum(opening for *_, opening in told) / len(told),
        "overhead": (workers * (last - first) - work) / len(told),
        "end": time.perf_counter() - last,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"replace {RESULTS}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slides = make(Path(folder) / "slides", args.slides)
        first = min(slides.iterdir())
        began = time.perf_counter()
        for _ in range(5):
            probe.ask(str(first))
        child = (time.perf_counter() - began) / 5
        loop = plain_loop(slides, Path(folder) / "loop")
        new = cohort(slides, Path(folder) / "out", args.workers)
        again = cohort(slides, Path(folder) / "out", args.workers)
    text = table(args, loop, new, again, child)
    print(text)
    if args.write:
        RESULTS.write_text(text + "\n", encoding="utf-8")


def table(args, loop: float, new: dict[str, float], again: dict[str, float], child: float) -> str:
    rows = [
        ("plain loop in one process, a slide", loop, ""),
        (f"{args.workers} workers: opening and work, a slide", new["work"], ""),
        (f"{args.workers} workers: **overhead, a slide**", new["overhead"], f"≤ {LIMIT_MS}"),
        ("of the work: opening, without a child process", new["opening"], ""),
        ("what a child process would add to it", child, ""),
        ("begun again, all up to date: wall, a slide", again["wall"] / args.slides, ""),
        ("starting the workers, and the model in the first, once", new["start"], ""),
        ("letting them go, once", new["end"], ""),
    ]
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    return "\n".join([
        f"# A cohort of {args.slides} slides of {SIDE} x {SIDE} px on {args.workers} workers",
        "",
        f"`python benchmarks/cohort.py`, {machine}; {MODEL}, windows of 224 px. "
        f"Wall time of all slides: {new['wall']:.1f} s; load of the machine at the end: "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        "| what | ms | at most |",
        "|---|---:|---:|",
        *(f"| {what} | {1000 * seconds:.1f} | {most} |" for what, seconds, most in rows),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
