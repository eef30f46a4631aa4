"""Load time of each level, and how each reader scales with threads and with processes.

    python benchmarks/readers.py SLIDE [--side PX] [--workers 1,2,4,8] [--repeats N] [--write]

What part 1 of the notebooks "Uncorking the I/O Bottleneck of Bio-Imaging" plots, for every reader
in the same run. Levels are read block by block, never as one array. For the scaling an area of
level 0 is cut into 32 strips, columns or rows, which so many workers read; processes have opened
the slide before the clock starts.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "readers.md"
BLOCK, STRIPS = 2048, 32


def ours(path):
    from napari_wsi_heatmap import open_slide
    from napari_wsi_heatmap.slides import tilework

    tilework._common_threads().number = 0  # one worker is one thread, as with the others
    return open_slide(path).read_region


def openslide(path):
    from openslide import OpenSlide

    slide = OpenSlide(path)

    def read(level, y, x, height, width):
        factor = slide.level_downsamples[level]
        at = round(x * factor), round(y * factor)  # a location is in pixels of level 0
        return np.asarray(slide.read_region(at, level, (width, height)).convert("RGB"))

    return read


def tifffile_zarr(path):
    import tifffile
    import zarr

    with tifffile.TiffFile(path) as file:
        count = len(file.series[0].levels)
    stores = [tifffile.imread(path, aszarr=True, level=level) for level in range(count)]
    arrays = [zarr.open(store, mode="r") for store in stores]
    return lambda level, y, x, h, w: arrays[level][y : y + h, x : x + w]


def cucim(path):
    from cucim import CuImage

    image = CuImage(path)
    factors = image.resolutions["level_downsamples"]

    def read(level, y, x, height, width):
        at = round(x * factors[level]), round(y * factors[level])
        return np.asarray(image.read_region(at, (width, height), level, device="cpu"))

    return read


READERS = {"ours": ours, "OpenSlide": openslide, "tifffile, zarr": tifffile_zarr, "cuCIM": cucim}
held = {}


def open_here(name, path):
    """Open a slide in this process; threads share it."""
    held[name] = READERS[name](path)


def read_box(name, box):
    """Read and forget."""
    return held[name](*box).nbytes


def shapes_of(path):
    from napari_wsi_heatmap import open_slide

    with open_slide(path) as slide:
        return [level.shape for level in slide.levels]


def blocks(level, shape):
    for y in range(0, shape[0], BLOCK):
        for x in range(0, shape[1], BLOCK):
            yield level, y, x, min(BLOCK, shape[0] - y), min(BLOCK, shape[1] - x)


def strips(shape, side, *, columns):
    height, width = min(side, shape[0]), min(side, shape[1])
    y, x = (shape[0] - height) // 2, (shape[1] - width) // 2
    for i in range(STRIPS):
        if columns:
            yield 0, y, x + i * width // STRIPS, height, width // STRIPS
        else:
            yield 0, y + i * height // STRIPS, x, height // STRIPS, width


def seconds(executor, name, boxes):
    begun = time.perf_counter()
    list(executor.map(partial(read_box, name), boxes))
    return time.perf_counter() - begun


def level_rows(path, names, repeats):
    """Seconds of each level, by one thread."""
    for level, shape in enumerate(shapes_of(path)):
        cells = []
        for name in names:
            times = []
            for _ in range(repeats):
                open_here(name, path)  # no reader's cache is warm
                with ThreadPoolExecutor(1) as one:
                    times.append(seconds(one, name, blocks(level, shape)))
            cells.append(f"{statistics.median(times):.2f}")
        yield f"| {level}: {shape[0]} x {shape[1]} | {' | '.join(cells)} |"


def pool(kind, count, name, path):
    if kind == "threads":
        open_here(name, path)
        return ThreadPoolExecutor(count)
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, spawn, initializer=open_here, initargs=(name, path))


def scaling_rows(path, names, side, workers, repeats):
    shape = shapes_of(path)[0]
    for kind in ("threads", "processes"):
        for cut in ("columns", "rows"):
            boxes = list(strips(shape, side, columns=cut == "columns"))
            for name in names:
                cells = [once(kind, n, name, path, boxes, repeats) for n in workers]
                yield f"| {kind}, {cut} | {name} | {' | '.join(cells)} |"


def once(kind, count, name, path, boxes, repeats):
    times = []
    for _ in range(repeats):
        with pool(kind, count, name, path) as executor:
            small = [(0, 0, 0, 16, 16)] * (4 * count)
            list(executor.map(partial(read_box, name), small))  # all have begun
            times.append(seconds(executor, name, boxes))
    return f"{statistics.median(times):.2f}"


def installed(path):
    for name in READERS:
        try:
            open_here(name, path)
        except ImportError:
            continue
        yield name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    names, workers = list(installed(chosen.slide)), [int(n) for n in chosen.workers.split(",")]
    lines = [
        "# Levels, threads and processes",
        "",
        f"{Path(chosen.slide).name}; seconds, medians of {chosen.repeats}; {os.cpu_count()} CPU "
        "cores, the file in the page cache.",
        "",
        f"| level, one thread | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
        *level_rows(chosen.slide, names, chosen.repeats),
        "",
        f"| {chosen.side} px of level 0 in {STRIPS} strips | reader | "
        + " | ".join(f"{n} worker{'s' * (n > 1)}" for n in workers)
        + " |",
        "|---" * (2 + len(workers)) + "|",
        *scaling_rows(chosen.slide, names, chosen.side, workers, chosen.repeats),
    ]
    print("\n".join(lines))
    if chosen.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
