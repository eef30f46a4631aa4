"""Windows a second of a whole run: ours beside the usual loops, and beside what limits it.

    python benchmarks/engine.py SLIDE [--side 6144] [--repeats 5] [--write]

SLIDE: an SVS with JPEG tiles, such as a stress slide of 40,960 x 40,960. A square of it is run
through a light model (mean haematoxylin of windows of 224 px, level 0) at strides 224 and 56, and
through a model that waits as long as an accelerator would compute and burns no CPU meanwhile.

- the loop: one OpenSlide read a window, batches of 32, the same model.
- DataLoader: the same read in a torch Dataset, 2 workers.
- decoding alone: each tile under the square decoded once, 2 threads.
- model alone: windows cut, cast and computed from regions in memory.
- efficiency: (decoding alone + model alone) / run, DESIGN's sum of what cannot be avoided. The two
  overlap in a run, so it may exceed 1 where cores are free.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from reading import READERS, Area, rate

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.cut import BatchCutter
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.loader import LoadedRegion

RESULTS = Path(__file__).parent / "results" / "engine.md"
WINDOW, BATCH = 224, 32
STRIDES = (224, 56)


class Waits(torch.nn.Module):
    """An accelerator: a fixed time a batch during which no core is busy."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, batch):
        time.sleep(self.seconds)
        return batch[:, 0, 0, 0]


class Square:
    def __init__(self, path, side):
        self.area = Area(path, side)
        self.path = self.area.path
        a = self.area
        self.roi = (a.y, a.x, a.y + a.height, a.x + a.width)

    def settings(self, stride):
        return {
            "level": 0, "stride": stride, "tissue": "none", "roi": self.roi, "window": WINDOW,
            "batch_size": BATCH,
        }  # fmt: skip

    def planned(self, stride, model="hematoxylin"):
        return prepare(self.path, model, **self.settings(stride))


def windows_of(run):
    return np.flatnonzero(run.growing.pending.ravel())


def ours(square, stride, model="hematoxylin"):
    run = square.planned(stride, model)
    number = len(windows_of(run))
    begun = time.perf_counter()
    for _ in run.pieces():
        pass
    return number / (time.perf_counter() - begun), run.record["seconds"]


def loop(square, stride, positions):
    """One read a window; positions (n, 2), a part of the square where that is slow."""
    import openslide

    model = wh.load_model("hematoxylin")
    begun = time.perf_counter()
    with openslide.OpenSlide(square.path) as slide, torch.inference_mode():
        for at in range(0, len(positions), BATCH):
            patches = [_patch(slide, y, x) for y, x in positions[at : at + BATCH]]
            model(torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255)
    return len(positions) / (time.perf_counter() - begun)


def _patch(slide, y, x):
    image = slide.read_region((int(x), int(y)), 0, (WINDOW, WINDOW))
    return np.array(image.convert("RGB"))


class Windows(torch.utils.data.Dataset):
    def __init__(self, path, positions):
        self.path, self.positions, self.slide = path, positions, None

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index):
        import openslide

        self.slide = self.slide or openslide.OpenSlide(self.path)
        return torch.from_numpy(_patch(self.slide, *self.positions[index])).permute(2, 0, 1)


def dataloader(square, stride, positions):
    model = wh.load_model("hematoxylin")
    dataset = Windows(square.path, positions)
    begun = time.perf_counter()
    with torch.inference_mode():
        for batch in torch.utils.data.DataLoader(dataset, BATCH, num_workers=2):
            model(batch.float() / 255)
    return len(positions) / (time.perf_counter() - begun)


def decoding_s(square):
    places = square.area.places
    with READERS["decoding alone (simplejpeg)"](square.area) as read:
        return 1 / rate(read, places, 1e6, 2)


def model_s(square, stride):
    """Seconds to cut, cast and compute all windows of regions that lie in memory."""
    run = square.planned(stride)
    plan, total = run.plan, 0.0
    cutter = BatchCutter(plan.grid, plan.batch_size, plan.predictor.device)
    plan.model.to(plan.predictor.device)
    with wh.open_slide(square.path) as slide:
        while (region := run._order.take()) is not None:
            loaded = LoadedRegion(region, slide.read_region(0, *region.box))
            begun = time.perf_counter()
            for batch in cutter.cut(loaded):
                plan.predictor(batch.patches, len(batch.index), plan.value_shape)
            total += time.perf_counter() - begun
    begun = time.perf_counter()
    for batch in cutter.tail():
        plan.predictor(batch.patches, len(batch.index), plan.value_shape)
    plan.slide.close()
    return total + time.perf_counter() - begun


def positions_of(square, stride, most=3000):
    run = square.planned(stride)
    index = windows_of(run)[:most]
    run.plan.slide.close()
    return run.plan.grid.positions(index).astype(int)


def measure(square, repeats):
    for stride in STRIDES:
        rows = {}
        part = positions_of(square, stride)
        number = len(windows_of(square.planned(stride)))
        for _ in range(repeats + 1):
            found = {
                "ours": ours(square, stride)[0],
                "loop, one OpenSlide read a window": loop(square, stride, part),
                "DataLoader, 2 workers": dataloader(square, stride, part),
                "decoding alone": number / decoding_s(square),
                "model alone": number / model_s(square, stride),
            }
            for name, value in found.items():
                rows.setdefault(name, []).append(value)
        yield stride, number, {name: values[1:] for name, values in rows.items()}


def accelerator(square, repeats, seconds):
    """Throughput of a model that only waits, as a share of what the waiting alone allows."""
    model = wh.load_model(Waits(seconds), window=WINDOW)
    rates = [ours(square, 224, model)[0] for _ in range(repeats)]
    return statistics.median(rates) * seconds / BATCH


def table(square, repeats):
    median = statistics.median
    for stride, number, rows in measure(square, repeats):
        mine = rows["ours"]
        yield f"| stride {stride}, {number:,} windows | windows/s | ours is |"
        yield "|---|---:|---:|"
        for name, values in rows.items():
            times = median(a / b for a, b in zip(mine, values, strict=True))
            yield f"| {name} | {median(values):,.0f} | {times:.2f} × |"
        limits = zip(rows["decoding alone"], rows["model alone"], mine, strict=True)
        efficiency = median((1 / d + 1 / m) * r for d, m, r in limits)
        yield ""
        yield f"Efficiency at stride {stride}: {efficiency:.2f}"
        yield ""
    for seconds in (0.1, 0.05):
        share = accelerator(square, repeats, seconds)
        rate_s = BATCH / seconds
        yield f"Simulated accelerator, {rate_s:.0f} windows/s: {share:.3f} of the model alone"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--side", type=int, default=6144)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    square = Square(chosen.slide, chosen.side)
    lines = [
        "# Whole runs",
        "",
        f"Medians of {chosen.repeats} turns; machine: {os.cpu_count()} CPU cores, no GPU; "
        f"{chosen.side} x {chosen.side} px of {chosen.slide.name}, windows of {WINDOW} px, "
        "no resize. Elsewhere, whole runs: wsinfer 228 windows/s, PyDmed 38 to 53.",
        "",
        *table(square, chosen.repeats),
    ]
    print("\n".join(lines))
    if chosen.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
