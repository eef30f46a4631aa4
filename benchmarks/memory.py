"""Peak memory of whole runs over slides of growing size.

    python benchmarks/memory.py [--sides 10000 50000 100000 200000] [--repeats 3] [--write]

Each size is run to its end in a process of its own: a virtual slide (pixels made when asked for)
of levels a factor 4 apart, windows of 224 px at stride 224, one channel, no tissue rule, saved as
OME-Zarr. What is measured is the process's peak resident memory above what it was after all
imports: the median of all turns, since how far readers ran ahead differs by some 10 MB. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "memory.md"
MB = 1 << 20


def resident(which):
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(which))
    return int(line.split()[1]) << 10


def slide_of(side):
    import numpy as np

    from napari_wsi_heatmap.slides.array import ArraySlide

    ramp = np.arange(1 << 16, dtype=np.uint8)[:, None].repeat(3, axis=1)

    def read(level, y, x, height, width):
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[:] = ramp[x % 251 : x % 251 + width]
        pixels[..., 0] += (np.arange(y, y + height) % 97).astype(np.uint8)[:, None]
        return pixels

    shapes = [(side // 4**n, side // 4**n) for n in range(5) if side // 4**n >= 1]
    return ArraySlide.from_callable(read, shapes, mpp=0.25, name=f"{side} px")


def child(side):
    import dask.array
    import torch
    import zarr

    import napari_wsi_heatmap as wh

    del dask.array, zarr
    model = wh.load_model(lambda batch: batch.mean((1, 2, 3)), window=224)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        settings = {"stride": 224, "tissue": "none", "level": 0, "progress": False}
        small = slide_of(1000)
        wh.compute_heatmap(small, model, out=Path(folder, "small.zarr"), **settings)
        before, begun = resident("VmRSS"), time.perf_counter()
        heatmap = wh.compute_heatmap(slide_of(side), model, out=Path(folder, "a.zarr"), **settings)
        seconds = time.perf_counter() - begun
        done = int((heatmap.state & 15 == 1).sum())
    print(json.dumps({"done": done, "peak": resident("VmHWM") - before, "seconds": seconds}))


def measured(side):
    """A whole run in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(side)], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[10000, 50000, 100000, 200000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child)
        return
    lines = [
        "# Memory of whole runs",
        "",
        f"Machine: {os.cpu_count()} CPU cores. Peak resident memory above that after imports and a "
        f"run over a tiny slide, medians of {chosen.repeats}; stride 224, one channel, defaults.",
        "",
        "| slide, px | windows | peak, MB | least–most | windows/s |",
        "|---|---:|---:|---:|---:|",
    ]
    turns = [[measured(side) for side in chosen.sides] for _ in range(chosen.repeats)]
    for side, found in zip(chosen.sides, zip(*turns, strict=True), strict=True):
        peaks = [one["peak"] / MB for one in found]
        rate = statistics.median(one["done"] / one["seconds"] for one in found)
        lines.append(
            f"| {side:,} x {side:,} | {found[0]['done']:,} | {statistics.median(peaks):.0f} | "
            f"{min(peaks):.0f}–{max(peaks):.0f} | {rate:,.0f} |"
        )
    print("\n".join(lines))
    if chosen.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
