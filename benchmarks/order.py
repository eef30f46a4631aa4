"""How soon somebody sees something: first colour, a rough map of the whole slide, the view.

    python benchmarks/order.py [SLIDE] [--side 40960] [--repeats 3] [--write]

SLIDE: tiled, such as a stress slide of 40,960 x 40,960; without one a slide of JPEG tiles is made.
The square of `--side` px in its middle is run as a viewer does, nearest first, with windows of
224 px at level 0 and no tissue rule: a light model (mean haematoxylin) at strides 224 and 56, and a
heavier one (a small CNN of random weights) at stride 224.

- first colour: from the start of `Run.pieces` to its first piece, with the whole slide on view,
  and zoomed in to 2000 px of it.
- rough map: when the last window of the sparse pass is there, as a share of the whole run's time.
- sparse tiles: share of the planned tiles that hold a window of the sparse pass.
- decoded: tiles decoded in the whole run, for each tile planned. Where reading is cheap beside the
  model, finer passes follow the sparse one, as many as cost 5 % of the run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.sparse import one_of_each_square, sparse_step, tiles_touched, tiles_under
from napari_wsi_heatmap.tilecache import TileCache

RESULTS = Path(__file__).parent / "results" / "order.md"
WINDOW, BATCH = 224, 32
VIEW = 2000
COLUMNS = (
    "windows", "s in all", "first colour, s", "zoomed in, s", "rough map", "sparse tiles", "decoded"
)  # fmt: skip


class SmallNet(torch.nn.Module):
    """Random weights; on a CPU core some tens of windows a second."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        sides = [(3, 32, 4), (32, 64, 2), (64, 128, 2), (128, 128, 1)]
        self.layers = torch.nn.Sequential(
            *(
                layer
                for a, b, stride in sides
                for layer in (torch.nn.Conv2d(a, b, 3, stride, 1), torch.nn.ReLU())
            )
        )

    def forward(self, batch):
        return self.layers(batch).mean((1, 2, 3))


MODELS = {
    "light, stride 224": ("hematoxylin", 224),
    "light, stride 56": ("hematoxylin", 56),
    "heavier, stride 224": (lambda: wh.load_model(SmallNet(), window=WINDOW), 224),
}


class Decoded:
    """Counts the tiles of a slide that its reads decode."""

    def __init__(self, slide, tile):
        self.count, self._tile, self._lock = 0, tile, threading.Lock()
        self._read, slide.read_region = slide.read_region, self.read
        self._read_into, slide.read_into = slide.read_into, self.read_into

    def read(self, level, y, x, height, width):
        self._add(level, y, x, height, width)
        return self._read(level, y, x, height, width)

    def read_into(self, level, y, x, out):
        self._add(level, y, x, *out.shape[:2])
        self._read_into(level, y, x, out)

    def _add(self, level, y, x, height, width):
        (th, tw), bottom, right = self._tile, y + height - 1, x + width - 1
        tiles = (bottom // th - y // th + 1) * (right // tw - x // tw + 1)
        with self._lock:
            self.count += tiles if level == 0 else 0


class Square:
    """The middle of a slide, run through models."""

    def __init__(self, path, side):
        self.path = str(path)
        with wh.open_slide(self.path) as slide:
            height, width = slide.levels[0].shape
            self.tile = CachedSlide(slide, TileCache(0)).tile_shape(0)
        self.side = min(side, height, width)
        y, x = (height - self.side) // 2, (width - self.side) // 2
        self.roi = (y, x, y + self.side, x + self.side)

    def run(self, slide, model, stride, view):
        settings = {
            "level": 0, "stride": stride, "window": WINDOW, "tissue": "none", "roi": self.roi,
            "batch_size": BATCH, "order": "viewport", "viewport": view,
        }  # fmt: skip
        return prepare(slide, model if isinstance(model, str) else model(), **settings)

    def first_colour(self, model, stride):
        """Seconds to the first piece of somebody who is zoomed in."""
        y, x = self.roi[0] + self.side // 3, self.roi[1] + self.side // 3
        with wh.open_slide(self.path) as slide:
            pieces = self.run(slide, model, stride, (y, x, y + VIEW, x + VIEW)).pieces()
            begun = time.perf_counter()
            next(pieces)
            seconds = time.perf_counter() - begun
            pieces.close()
        return seconds

    def whole(self, model, stride):
        """A whole run, seen whole: one row of the table, without the name."""
        with wh.open_slide(self.path) as slide:
            run = self.run(slide, model, stride, self.roi)
            grid, pending = run.plan.grid, run.growing.pending
            sparse = one_of_each_square(
                grid, pending, self.tile, sparse_step(grid, pending, self.tile)
            )
            planned, decoded = tiles_touched(grid, pending, self.tile), Decoded(slide, self.tile)
            first, rough, seconds = timed(run, sparse)
        return (
            int(pending.sum()),
            seconds,
            first,
            rough / seconds,
            tiles_under(grid, sparse, self.tile) / planned,
            decoded.count / planned,
        )


def timed(run, sparse):
    """Seconds until the first piece, until all windows of the sparse pass, and until the end."""
    waited_for, first, rough = set(sparse.tolist()), None, None
    begun = time.perf_counter()
    for piece in run.pieces():
        now = time.perf_counter() - begun
        first = now if first is None else first
        waited_for.difference_update(piece.index.tolist())
        if not waited_for and rough is None:
            rough = now
    return first, rough, time.perf_counter() - begun


def rows(square, repeats):
    for name, (model, stride) in MODELS.items():
        turns = [
            (*square.whole(model, stride), square.first_colour(model, stride))
            for _ in range(repeats)
        ]
        number, seconds, first, rough, sparse, decoded, near = map(
            statistics.median, zip(*turns, strict=True)
        )
        yield (
            f"| {name} | {number:,.0f} | {seconds:.1f} | {first:.2f} | {near:.2f} "
            f"| {rough:.1%} | {sparse:.1%} | {decoded:.2f} × |"
        )


def made_slide(folder, side):
    """Write a slide of JPEG tiles: blotches of stain on white."""
    import tifffile

    rng = np.random.default_rng(0)
    blotches = rng.random((side // 512 + 1,) * 2).repeat(512, 0).repeat(512, 1)[:side, :side]
    pixels = rng.integers(0, 40, (side, side, 3), np.uint8)
    pixels += (np.array([120, 60, 110]) + 90 * (blotches[..., None] > 0.5)).astype(np.uint8)
    path = Path(folder) / "made.tif"
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
    tifffile.imwrite(path, pixels, metadata=None, **options)
    return path


def table(square, repeats):
    yield "| model | " + " | ".join(COLUMNS) + " |"
    yield "|---|" + "---:|" * len(COLUMNS)
    yield from rows(square, repeats)


def report(square, repeats):
    return [
        "# What is seen, and when",
        "",
        f"Medians of {repeats} turns; machine: {os.cpu_count()} CPU cores, no GPU; "
        f"{square.side} x {square.side} px of {Path(square.path).name}, windows of {WINDOW} px. "
        "Rough map: of the run's time; to reach: 8 %. Sparse tiles: to reach: 5 %. Others compute "
        "row by row: a rough map of the whole slide is there at the end. Decoded: more than once "
        "where reading is cheap beside the model: finer passes may cost 5 % of the run.",
        "",
        *table(square, repeats),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path, nargs="?", help="default: one is made")
    parser.add_argument("--side", type=int, default=40_960)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.slide or made_slide(folder, min(chosen.side, 16_384))
        lines = report(Square(path, chosen.side), chosen.repeats)
    print("\n".join(lines))
    if chosen.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
