"""Batches of patches of several slides: ours beside the loop and the DataLoader that people write.

    python benchmarks/streams.py [--folder DIR] [--repeats 5] [--write]

The job that PyDmed was measured on: three slides of 16,000 x 8,000 px (JPEG tiles, made here, kept
in --folder), windows of 256 px side by side at level 0, 0…1, minus mean over deviation, a small
convolutional net. All take their turn within each repeat; figures are medians. Milliseconds of
processor time a window tell the same where other programs keep a machine busy.

- plain loop, one by one: one OpenSlide read a window, the net on it alone. PyDmed's own figures are
  beside this loop: 38 windows/s where it did 544, of which it lost a third.
- plain loop, batches: the same reads, the net on 32 at a time.
- DataLoader: the same reads in a torch Dataset, 2 workers, batches of 32.
- random windows: as many, of regions of 2048 px, mixed over 8 of them; beside a loop that reads
  each at its place.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import openslide
import torch
from torch.utils.data import DataLoader, Dataset

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.sample import make_sample_slide

RESULTS = Path(__file__).parent / "results" / "streams.md"
SHAPE, WINDOW, BATCH = (8000, 16000), 256, 32
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
PYDMED, ITS_LOOP = 38, 544
"""Windows a second of PyDmed and of the plain loop, measured side by side."""


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 7, stride=4, padding=3), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, stride=4, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 4, 3, stride=2, padding=1), torch.nn.Sigmoid(),
    ).eval()  # fmt: skip


def normalise(x):
    return (x - MEAN) / STD


def places():
    """All windows that lie in a slide, and the last ones moved inside."""
    rows, cols = (
        sorted({min(at, side - WINDOW) for at in range(0, side, WINDOW)}) for side in SHAPE
    )
    return [(y, x) for y in rows for x in cols]


def random_places(n):
    rng = np.random.default_rng(0)
    high = [side - WINDOW + 1 for side in SHAPE]
    return [(int(rng.integers(high[0])), int(rng.integers(high[1]))) for _ in range(n)]


def read(slide, y, x):
    rgba = np.asarray(slide.read_region((x, y), 0, (WINDOW, WINDOW)))
    return torch.from_numpy(rgba[..., :3].copy()).permute(2, 0, 1)


def loop(paths, model, at, batch=1):
    """What somebody writes who reads window by window."""
    seen, waiting = 0, []
    for path in paths:
        with openslide.OpenSlide(path) as slide:
            for y, x in at:
                waiting.append(read(slide, y, x))
                if len(waiting) == batch:
                    model(normalise(torch.stack(waiting).float() / 255))
                    seen, waiting = seen + batch, []
    if waiting:
        model(normalise(torch.stack(waiting).float() / 255))
    return seen + len(waiting)


class Windows(Dataset):
    def __init__(self, paths):
        self.items = [(path, *at) for path in paths for at in places()]
        self.slides = {}

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        path, y, x = self.items[i]
        if path not in self.slides:
            self.slides[path] = openslide.OpenSlide(path)
        return normalise(read(self.slides[path], y, x).float() / 255)


def dataloader(paths, model):
    seen = 0
    for x in DataLoader(Windows(paths), batch_size=BATCH, num_workers=2):
        model(x)
        seen += len(x)
    return seen


def ours(paths, model, **settings):
    seen = 0
    asked = {"window": WINDOW, "batch_size": BATCH, "transform": normalise, **settings}
    for x, _, _ in wh.stream(paths, **asked):
        model(x)
        seen += len(x)
    return seen


def collected(paths, model):
    """Ours, and every value written to a csv."""
    stream = wh.stream(paths, window=WINDOW, batch_size=BATCH, edge="flush", transform=normalise)
    with tempfile.TemporaryDirectory() as folder:
        process = lambda x, slides, windows: model(x).mean((2, 3))  # noqa: E731
        return sum(wh.collect(stream, process, Path(folder) / "out").windows.values())


def slides_in(folder):
    """Make the slides, or find those of an earlier time."""
    paths = [folder / f"{i}.svs" for i in range(3)]
    for i, path in enumerate(paths):
        if not path.exists():
            make_sample_slide(path, size=SHAPE, seed=i)
    return [str(path) for path in paths]


def ways(paths, model):
    n = len(places())
    return {
        "ours": lambda: ours(paths, model, edge="flush"),
        "ours, values collected as csv": lambda: collected(paths, model),
        "plain loop, one by one": lambda: loop(paths, model, places()),
        f"plain loop, batches of {BATCH}": lambda: loop(paths, model, places(), BATCH),
        "DataLoader, 2 workers": lambda: dataloader(paths, model),
        "ours, random windows": lambda: ours(paths, model, sampling="random", epoch_size=3 * n),
        "plain loop, random windows": lambda: loop(paths, model, random_places(n), BATCH),
    }


def processor_s():
    """Seconds of all processors that this process and its children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(paths, repeats):
    """Windows a second, and processor seconds a window, of each way and repeat."""
    torch.set_num_threads(1)  # of the net; how readers and net share the cores is the question
    model, rates, costs = net(), {}, {}
    with torch.inference_mode():
        for _ in range(repeats):
            for name, way in ways(paths, model).items():
                began, used = time.perf_counter(), processor_s()
                windows = way()
                assert windows == 3 * len(places()), (name, windows)
                rates.setdefault(name, []).append(windows / (time.perf_counter() - began))
                costs.setdefault(name, []).append((processor_s() - used) / windows)
                print(f"{name}: {rates[name][-1]:,.0f}, {1e3 * costs[name][-1]:.2f} ms", flush=True)
    return rates, costs


def report(rates, costs, repeats, load):
    middle = {name: statistics.median(values) for name, values in rates.items()}
    cost = {name: 1e3 * statistics.median(values) for name, values in costs.items()}
    one_by_one = middle["plain loop, one by one"]
    ratios = [a / b for a, b in zip(rates["ours"], rates["plain loop, one by one"], strict=True)]
    lines = [
        "# Streams",
        "",
        f"Medians of {repeats} turns; machine: {os.cpu_count()} CPU cores, no GPU. Three slides of "
        f"16,000 x 8,000 px, windows of {WINDOW} px, {3 * len(places()):,} in all; a small net on "
        f"one thread. Load of other programs before the first turn: {load:.1f}.",
        "",
        "| | windows/s | beside the plain loop | processor ms/window |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {rate:,.0f} | {rate / one_by_one:.2f} × | {cost[name]:.2f} |"
            for name, rate in middle.items()
        ),
        f"| PyDmed (measured elsewhere, by the same loop's {ITS_LOOP}) | "
        f"{PYDMED / ITS_LOOP * one_by_one:,.0f} | {PYDMED / ITS_LOOP:.2f} × | |",
        "",
        f"Ours over the plain loop, turn by turn: {min(ratios):.2f} to {max(ratios):.2f}; "
        f"over PyDmed by that loop: {statistics.median(ratios) * ITS_LOOP / PYDMED:.0f} ×.",
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "wsi-streams")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    paths, load = slides_in(asked.folder), os.getloadavg()[0]
    table = report(*measured(paths, asked.repeats), asked.repeats, load)
    print(table)
    if asked.write:
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
