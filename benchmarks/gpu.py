"""Windows a second of a whole run on an accelerator, beside the model alone on the same device.

    python benchmarks/gpu.py [--device auto] [--side 16384] [--repeats 3] [--compile] [--write]
    python benchmarks/gpu.py --small --device cpu

Two models of well-known shape with random weights, in bfloat16 and float32, over a slide that is
made for it (tiles of 256 px, JPEG, stride = window = 224, no resize):

- ResNet-50: bottlenecks 3-4-6-3, 25.6 million weights;
- ViT-L/16: 24 blocks of 1024 with 16 heads, 303 million weights.

- model alone: one batch of float32 patches that lies on the device already, again and again, of
  the size and in the layout that the run chose; the device is waited for once, at the end.
- run: `prepare(...).pieces()` from the first window to the last: reading, decoding, copying,
  cutting, casting, the model, placing. Planning (opening, dry run, choice of the batch size) is
  given beside it in seconds.

--small: models and slide of a size that a laptop's CPU runs in seconds, to see that it works.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.devices import choose_devices
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.models.base import inference

RESULTS = Path(__file__).parent / "results" / "gpu.md"
WINDOW, TILE = 224, 256
PRECISIONS = ("bfloat16", "float32")
ALONE_S = 3.0
"""Seconds of the model alone in each turn."""


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut; `wide` times 4 channels come out."""

    def __init__(self, channels, wide, stride):
        super().__init__()
        self.body = nn.Sequential(
            *convolution(channels, wide, 1), nn.ReLU(inplace=True),
            *convolution(wide, wide, 3, stride), nn.ReLU(inplace=True),
            *convolution(wide, 4 * wide, 1),
        )  # fmt: skip
        same = stride == 1 and channels == 4 * wide
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*convolution(channels, 4 * wide, 1, stride))
        )

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def convolution(channels, out, size, stride=1):
    yield nn.Conv2d(channels, out, size, stride, size // 2, bias=False)
    yield nn.BatchNorm2d(out)


def resnet(blocks=(3, 4, 6, 3), wide=64, classes=1000):
    """A ResNet-50 with the default arguments."""
    layers = [*convolution(3, wide, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = wide
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(channels, wide << stage, stride))
            channels = 4 * (wide << stage)
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


class Block(nn.Module):
    """Attention and a perceptron, each normalised before and added to what came in."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        n, tokens, width = x.shape
        qkv = self.qkv(self.before(x)).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.between(x))


class Transformer(nn.Module):
    """A ViT-L/16 with the default arguments; (N, width), the class token."""

    def __init__(self, width=1024, depth=24, heads=16, patch=16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, (WINDOW // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.norm(self.blocks(x)[:, 0])


MODELS = {"ResNet-50": resnet, "ViT-L/16": Transformer}
SMALL = {
    "small ResNet": lambda: resnet((1, 1, 1, 1), 4, 10),
    "small ViT": lambda: Transformer(64, 2, 4),
}


def make_slide(path, side):
    """A slide of `side` x `side` pixels: texture that JPEG cannot flatten, no tile like another."""
    import tifffile

    random = np.random.default_rng(0)
    base = random.normal(0, 14, (2 * TILE, 2 * TILE, 3))
    base += np.kron(random.normal(0, 30, (32, 32, 3)), np.ones((16, 16, 1)))

    def tiles():
        for _ in range((side // TILE) ** 2):
            y, x = random.integers(0, TILE, 2)
            tile = base[y : y + TILE, x : x + TILE] + random.integers(110, 170)
            yield tile.clip(0, 255).astype(np.uint8)

    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE),
        photometric="rgb", compression="jpeg", compressionargs={"level": 80},
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip


@dataclass
class Turn:
    """One run, and the model alone beside it."""

    run: float
    alone: float
    planning: float
    waiting: float
    batch: int
    compiled: bool


def planned(slide, net, chosen, precision):
    start = time.perf_counter()
    run = prepare(
        slide, net, window=WINDOW, level=0, tissue="none", device=chosen.device,
        precision=precision, compile=chosen.compile, edge="drop",
    )  # fmt: skip
    return run, time.perf_counter() - start


def one_turn(slide, net, chosen, precision):
    run, planning = planned(slide, net, chosen, precision)
    start = time.perf_counter()
    windows = sum(len(piece) for piece in run.pieces())
    seconds = time.perf_counter() - start
    waiting = run.record["seconds"]["waiting_for_reading"] / seconds
    predictor = run.plan.predictor
    alone = model_alone(run.plan.model, predictor, run.plan.batch_size, chosen.alone_s)
    return Turn(
        windows / seconds, alone, planning, waiting, run.plan.batch_size, predictor.use_compiled
    )


def model_alone(model, predictor, size, alone_s):
    """Windows a second of batches that are on the device already."""
    device = predictor.device
    model.to(device)
    call = predictor.compiled if predictor.use_compiled else predictor.as_it_is
    patches = torch.rand(size, 3, WINDOW, WINDOW, device=device)
    with inference(device, predictor.dtype):
        call(patches).sum().item()
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < alone_s:
            for _ in range(4):  # few enough that the clock is looked at now and then
                values = call(patches)
            values.sum().item()  # waits for the device
            done += 4 * size
        seconds = time.perf_counter() - start
    model.restore()
    return done / seconds


def rows(slide, models, chosen):
    for name, make in models.items():
        torch.manual_seed(0)
        net = make().eval()
        weights = sum(p.numel() for p in net.parameters()) / 1e6
        for precision in PRECISIONS:
            turns = [one_turn(slide, net, chosen, precision) for _ in range(chosen.repeats + 1)]
            yield row(f"{name} ({weights:.1f} M)", precision, turns[1:])  # the first warms up


def row(name, precision, turns):
    def middle(of):
        return statistics.median(of(turn) for turn in turns)

    sizes = "/".join(map(str, sorted({turn.batch for turn in turns})))
    return (
        f"| {name} | {precision} | {sizes} | {'yes' if turns[0].compiled else 'no'} "
        f"| {middle(lambda t: t.alone):.0f} | {middle(lambda t: t.run):.0f} "
        f"| {middle(lambda t: t.run / t.alone):.2f} | {100 * middle(lambda t: t.waiting):.0f} % "
        f"| {middle(lambda t: t.planning):.2f} |"
    )


def device_name(name):
    """What the device calls itself."""
    device = choose_devices(name, wh.load_model("tissue"))[0]
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {os.cpu_count()} cores"


def report(chosen):
    side = 1024 if chosen.small else chosen.side // TILE * TILE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.tif"
        make_slide(path, side)
        with wh.open_slide(path) as slide:
            table = list(rows(slide, SMALL if chosen.small else MODELS, chosen))
    return [
        "# Whole runs on an accelerator",
        "",
        f"Device: {device_name(chosen.device)}; {os.cpu_count()} CPU cores; torch "
        f"{torch.__version__}. Made slide of {side} x {side} px, windows of {WINDOW} px, batch "
        f"size found by the dry run, medians of {chosen.repeats} turns. Windows a second.",
        "",
        "| model (weights) | precision | batch | compiled | model alone | run | run / alone "
        "| waited for reading | planning, s |",
        "|---|---|---|---|---|---|---|---|---|",
        *table,
    ]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=16384, help="of the slide, px")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone-s", type=float, default=ALONE_S, help="of the model alone")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--small", action="store_true", help="seconds on a CPU")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args(argv)
    lines = report(chosen)
    print("\n".join(lines))
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
