"""Windows a second of a whole run: ours beside the usual loops, and beside what limits it.

    python benchmarks/engine.py SLIDE [--side 12288] [--repeats 5] [--write]

SLIDE: an SVS with JPEG tiles, such as a stress slide of 40,960 x 40,960. A square of it is run
through a light model (mean haematoxylin of windows of 224 px, level 0) at strides 224 and 56, and
of windows of 448 px resized to 224; a part of the square through a heavy one (the shape of
ResNet-50); and through a model that waits as long as an accelerator would compute and burns no
CPU meanwhile.

- the loop: one OpenSlide read a window, batches of 32 (heavy: 16), the same model.
- DataLoader: the same read in a torch Dataset, 2 workers.
- decoding alone: each tile under the square decoded once, 2 threads.
- model alone: windows cut, resized, cast and computed from regions in memory, one by one.
- efficiency: (decoding alone + model alone) / run, DESIGN's sum of what cannot be avoided. The two
  overlap in a run, so it may exceed 1 where cores are free.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from gpu import resnet
from reading import READERS, Area, rate

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.cut import BatchCutter
from napari_wsi_heatmap.heap import kept_memory
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.loader import LoadedRegion

RESULTS = Path(__file__).parent / "results" / "engine.md"
WINDOW, BATCH = 224, 32


@dataclass
class Case:
    """What is run: windows of `footprint` px, resized to `WINDOW`."""

    name: str
    stride: int
    footprint: int = WINDOW
    heavy: bool = False
    batch: int = 32
    share: float = 1.0
    """Of the side of the square."""

    def model(self):
        if not self.heavy:
            return wh.load_model("hematoxylin", window=WINDOW)
        torch.manual_seed(0)
        return wh.load_model(resnet().eval(), window=WINDOW)


CASES = (
    Case("light model, stride 224", 224, share=2),  # a run of seconds, not of its beginning
    Case("light model, stride 56", 56),
    Case("light model, windows of 448 px resized to 224, stride 448", 448, 448),
    Case("heavy model (ResNet-50), stride 224", 224, heavy=True, batch=16, share=0.29),
)


class Waits(torch.nn.Module):
    """An accelerator: a fixed time a batch during which no core is busy."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, batch):
        time.sleep(self.seconds)
        return batch[:, 0, 0, 0]


class Square:
    """A square of a slide, and how to run windows of it."""

    def __init__(self, path, side):
        self.area = Area(path, side)
        self.path = self.area.path
        a = self.area
        self.roi = (a.y, a.x, a.y + a.height, a.x + a.width)
        with wh.open_slide(self.path) as slide:
            self.mpp = sum(slide.mpp) / 2

    def settings(self, case):
        return {
            "mpp": self.mpp * case.footprint / WINDOW,
            "stride": case.stride * WINDOW // case.footprint,
            "tissue": "none", "roi": self.roi, "window": WINDOW, "batch_size": case.batch,
        } | ({"level": 0, "mpp": None} if case.footprint == WINDOW else {})  # fmt: skip

    def planned(self, case, model=None):
        return prepare(self.path, model or case.model(), **self.settings(case))


def windows_of(run):
    return np.flatnonzero(run.growing.pending.ravel())


def ours(square, case, model=None):
    run = square.planned(case, model)
    assert run.plan.grid.spec.footprint == (case.footprint,) * 2
    assert run.plan.grid.spec.level == 0
    number = len(windows_of(run))
    begun = time.perf_counter()
    for _ in run.pieces():
        pass
    return number / (time.perf_counter() - begun)


def loop(square, case, positions):
    """One read a window; positions (n, 2), a part of the square where that is slow."""
    import openslide

    model = case.model()
    begun = time.perf_counter()
    with openslide.OpenSlide(square.path) as slide, torch.inference_mode():
        for at in range(0, len(positions), case.batch):
            part = positions[at : at + case.batch]
            patches = [_patch(slide, y, x, case.footprint) for y, x in part]
            model(torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255)
    return len(positions) / (time.perf_counter() - begun)


def _patch(slide, y, x, side):
    image = slide.read_region((int(x), int(y)), 0, (side, side)).convert("RGB")
    if side != WINDOW:
        image = image.resize((WINDOW, WINDOW), Image.Resampling.BILINEAR)
    return np.array(image)


class Windows(torch.utils.data.Dataset):
    def __init__(self, path, positions, side):
        self.path, self.positions, self.side, self.slide = path, positions, side, None

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index):
        import openslide

        self.slide = self.slide or openslide.OpenSlide(self.path)
        patch = _patch(self.slide, *self.positions[index], self.side)
        return torch.from_numpy(patch).permute(2, 0, 1)


def dataloader(square, case, positions):
    model = case.model()
    dataset = Windows(square.path, positions, case.footprint)
    begun = time.perf_counter()
    with torch.inference_mode():
        for batch in torch.utils.data.DataLoader(dataset, case.batch, num_workers=2):
            model(batch.float() / 255)
    return len(positions) / (time.perf_counter() - begun)


def decoding_s(square):
    places = square.area.places
    with READERS["decoding alone (simplejpeg)"](square.area) as read:
        return 1 / rate(read, places, 1e6, 2)


@kept_memory()  # as in a run: a limit that gave memory back after each batch would be none
def model_s(square, case):
    """Seconds to cut, resize, cast and compute all windows of regions that lie in memory."""
    run = square.planned(case)
    plan, total = run.plan, 0.0
    cutter = BatchCutter(plan.grid, plan.batch_size, plan.predictor.device)
    plan.model.to(plan.predictor.device)
    with wh.open_slide(square.path) as slide:
        while (region := run._order.take()) is not None:
            loaded = LoadedRegion(region, slide.read_region(0, *region.box))
            begun = time.perf_counter()
            for batch in cutter.cut(loaded):
                plan.predictor(batch.patches, len(batch.index), plan.row_shape)
            total += time.perf_counter() - begun
    begun = time.perf_counter()
    for batch in cutter.tail():
        plan.predictor(batch.patches, len(batch.index), plan.row_shape)
    plan.slide.close()
    return total + time.perf_counter() - begun


def positions_of(square, case):
    run = square.planned(case)
    index = windows_of(run)
    run.plan.slide.close()
    part = index[: 64 if case.heavy else 3000]
    return len(index), run.plan.grid.positions(part).astype(int)


def measure(path, side, case, repeats):
    """Number of windows, and for each way its windows a second, turn by turn."""
    square = Square(path, int(side * case.share))
    number, part = positions_of(square, case)
    rows = {}
    for _ in range((min(repeats, 2) if case.heavy else repeats) + 1):
        found = {
            "ours": ours(square, case),
            "loop, one OpenSlide read a window": loop(square, case, part),
            "DataLoader, 2 workers": dataloader(square, case, part),
            "decoding alone": number / decoding_s(square),
            "model alone": number / model_s(square, case),
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    return number, {name: values[1:] for name, values in rows.items()}  # the first warms up


def accelerator(square, repeats, seconds):
    """Throughput of a model that only waits, as a share of what the waiting alone allows."""
    model = wh.load_model(Waits(seconds), window=WINDOW)
    rates = [ours(square, CASES[0], model) for _ in range(repeats)]
    return statistics.median(rates) * seconds / BATCH


def table(path, side, repeats):
    median = statistics.median
    for case in CASES:
        number, rows = measure(path, side, case, repeats)
        mine = rows["ours"]
        px = f"{int(side * case.share):,}² px"
        yield f"| {case.name}, {number:,} windows of {px} | windows/s | ours is |"
        yield "|---|---:|---:|"
        for name, values in rows.items():
            times = median(a / b for a, b in zip(mine, values, strict=True))
            yield f"| {name} | {median(values):,.0f} | {times:.2f} × |"
        limits = zip(rows["decoding alone"], rows["model alone"], mine, strict=True)
        efficiency = median((1 / d + 1 / m) * r for d, m, r in limits)
        yield ""
        yield f"Efficiency: {efficiency:.2f}"
        yield ""
    square = Square(path, side)
    for seconds in (0.1, 0.05):
        share = accelerator(square, min(repeats, 3), seconds)
        rate_s = BATCH / seconds
        yield f"Simulated accelerator, {rate_s:.0f} windows/s: {share:.3f} of the model alone"
        yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--side", type=int, default=12288)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    lines = [
        "# Whole runs",
        "",
        f"Medians of {chosen.repeats} turns (heavy: of 2 at most); machine: {os.cpu_count()} CPU "
        f"cores, no GPU; squares of {chosen.slide.name}, windows of {WINDOW} px, level 0. "
        "Elsewhere, whole runs: wsinfer 228 windows/s, PyDmed 38 to 53.",
        "",
        *table(chosen.slide, chosen.side, chosen.repeats),
    ]
    print("\n".join(lines))
    if chosen.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
