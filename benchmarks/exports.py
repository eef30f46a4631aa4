"""Seconds and peak memory of every export of a map of 100,000 windows.

    python benchmarks/exports.py [--windows 100000] [--features 1024] [--write]

Each format is written in a process of its own: one output, windows of 224 px side by side on a
virtual slide (pixels made when asked for), features where the format has a place for them, made
when asked for as if they came from a store. Memory is the process's peak above what it was after
all imports, a first export of a tiny map, and making the map. The limits are 10 s and 500 MB.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "exports.md"
MB = 1 << 20
LIMITS = (10, 500)
WINDOW = 224
WITH_FEATURES = ("h5", "stamp", "parquet")


def resident(which):
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(which))
    return int(line.split()[1]) << 10


class MadeFeatures:
    """Features (Y, X, D) that are made where they are indexed, as those of a store are read."""

    def __init__(self, shape):
        self.shape = shape

    def __getitem__(self, box):
        import numpy as np

        rows, columns = (range(n)[s] for n, s in zip(self.shape, box, strict=False))
        noise = np.random.default_rng(rows.start)
        return noise.random((len(rows), len(columns), self.shape[2]), np.float32)


def slide_of(side):
    import numpy as np

    from napari_wsi_heatmap.slides.array import ArraySlide

    def read(level, y, x, height, width):
        return np.full((height, width, 3), 128 + (y + x) % 100, np.uint8)

    shapes = [(side // 4**n, side // 4**n) for n in range(5) if side // 4**n >= 64]
    return ArraySlide.from_callable(read, shapes, mpp=0.25, name=f"{side} px")


def map_of(slide, features):
    """A whole map of a slide, without running anything over it."""
    import numpy as np

    import napari_wsi_heatmap as wh
    from napari_wsi_heatmap.frame import lay_frame
    from napari_wsi_heatmap.grid import lay_grid, resolve_window
    from napari_wsi_heatmap.heatmap import Heatmap

    settings = {"window": WINDOW, "tissue": "none", "level": 0, "progress": False}
    small = slide_of(2 * WINDOW)
    run = wh.compute_heatmap(small, lambda batch: batch.mean((1, 2, 3)), **settings).run
    grid = lay_grid(resolve_window(slide, WINDOW), slide.levels[0].shape)
    values = np.random.default_rng(0).random((1, *grid.shape), np.float32)
    run["slide"] |= {"shape": list(slide.levels[0].shape), "name": slide.name}
    vectors = MadeFeatures((*grid.shape, features)) if features else None
    state = np.ones(grid.shape, np.uint8)
    return Heatmap(values, state, lay_frame(grid, 1), run, None, vectors)


def child(name, windows, features):
    from napari_wsi_heatmap.exports import FORMATS, export

    row = next(row for row in FORMATS if row.name == name)
    features = features if name in WITH_FEATURES else 0
    with tempfile.TemporaryDirectory() as folder:
        first, path = (Path(folder, f"{n}{row.endings[0]}") for n in ("first", "map"))
        slide = slide_of(4 * WINDOW)
        export(map_of(slide, features), first, slide=slide, format=name)
        slide = slide_of(math.ceil(math.sqrt(windows)) * WINDOW)
        heatmap = map_of(slide, features)
        before, begun = resident("VmRSS"), time.perf_counter()
        export(heatmap, path, slide=slide, format=name)
        seconds = time.perf_counter() - begun
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        size = sum(file.stat().st_size for file in files)
    peak = resident("VmHWM") - before
    print(
        json.dumps({"seconds": seconds, "peak": peak, "size": size, "windows": heatmap.grid.size})
    )


def measured(name, chosen):
    counts = [str(chosen.windows), str(chosen.features)]
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "--child",
            name,
            "--windows",
            counts[0],
            "--features",
            counts[1],
        ],
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout.splitlines()[-1])


def line_of(name, found, features):
    within = found["seconds"] <= LIMITS[0] and found["peak"] / MB <= LIMITS[1]
    told = f"{features:,}" if name in WITH_FEATURES else "–"
    return (
        f"| {name} | {told} | {found['seconds']:.2f} | {found['peak'] / MB:.0f} | "
        f"{found['size'] / MB:.1f} | {'yes' if within else 'NO'} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.windows, chosen.features)
        return

    from napari_wsi_heatmap.exports import FORMATS

    lines = [
        "# Exports",
        "",
        f"Machine: {os.cpu_count()} CPU cores. A map of {chosen.windows:,} windows of {WINDOW} px, "
        f"one output, over a virtual slide. Limits: {LIMITS[0]} s and {LIMITS[1]} MB above what "
        "the process held after imports and making the map.",
        "",
        "| format | features a window | s | peak, MB | file, MB | within the limits |",
        "|---|---:|---:|---:|---:|---|",
    ]
    print("\n".join(lines[-2:]))
    for row in FORMATS:
        lines.append(line_of(row.name, measured(row.name, chosen), chosen.features))
        print(lines[-1], flush=True)
    if chosen.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
