"""How fast regions of a slide are read: ours beside OpenSlide, tifffile's zarr, cuCIM, decoding.

    python benchmarks/reading.py SLIDE... [--repeats 7] [--side 4096] [--write]

SLIDE: tiled TIFF or SVS with JPEG tiles, such as CMU-1-Small-Region.svs, or a stress slide of
40,960 x 40,960. The part of it with the most tissue is read in boxes, row by row, by one and by
two threads that take box after box. All readers take their turn within each repeat; figures are
medians, in million pixels a second of the boxes asked for.

Decoding alone: every tile under that part read from the file and decoded once, nothing put
together, by imagecodecs (libjpeg-turbo; it ignores libjpeg's warnings) and by simplejpeg
(libjpeg-turbo; it does not), which is what we decode with.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "reading.md"
SIZES = (224, 1024, 4096)
OURS, ALONE = "ours", "decoding alone (simplejpeg)"


class Area:
    """The part of a slide that is read: whole tiles, most tissue."""

    def __init__(self, path, side):
        import tifffile

        self.path = str(path)
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            self.tile = page.tilelength, page.tilewidth
            self.shape = page.imagelength, page.imagewidth
            self.tables, self.photometric = page.jpegtables, page.photometric.name
            self.y, self.x, self.height, self.width = self._most_tissue(side)
            self.places = self._places(page)

    def _most_tissue(self, side):
        from napari_wsi_heatmap import open_slide

        with open_slide(self.path) as slide:
            last = slide.levels[-1]
            down = round(last.downsample[0])
            darkness = 255.0 - slide.read_region(len(slide.levels) - 1, 0, 0, *last.shape).mean(-1)
        height, width = min(side, self.shape[0]), min(side, self.shape[1])
        best = max(
            (
                darkness[y // down : (y + height) // down, x // down : (x + width) // down].mean(),
                y,
                x,
            )
            for y in range(0, self.shape[0] - height + 1, 8 * self.tile[0])
            for x in range(0, self.shape[1] - width + 1, 8 * self.tile[1])
        )
        return best[1], best[2], height, width

    def _places(self, page):
        across = -(-self.shape[1] // self.tile[1])
        rows = range(self.y // self.tile[0], -(-(self.y + self.height) // self.tile[0]))
        columns = range(self.x // self.tile[1], -(-(self.x + self.width) // self.tile[1]))
        indices = [row * across + column for row in rows for column in columns]
        return [(page.dataoffsets[i], page.databytecounts[i]) for i in indices]

    def boxes(self, size):
        size = min(size, self.height, self.width)
        return [
            (y, x, size, size)
            for y in range(self.y, self.y + self.height - size + 1, size)
            for x in range(self.x, self.x + self.width - size + 1, size)
        ]


@contextmanager
def ours(area, helped):
    """Our reader; without help one caller has one thread, like the others."""
    from napari_wsi_heatmap import open_slide
    from napari_wsi_heatmap.slides import tilework

    slide = open_slide(area.path, backend="tiff")
    threads = tilework._common_threads()
    number, threads.number = threads.number, threads.number if helped else 0
    yield lambda box: slide.read_region(0, *box)
    threads.number = number
    slide.close()


@contextmanager
def openslide(area):
    import openslide

    with openslide.OpenSlide(area.path) as slide:
        yield lambda b: np.asarray(slide.read_region((b[1], b[0]), 0, (b[3], b[2])).convert("RGB"))


@contextmanager
def tifffile_zarr(area):
    import tifffile
    import zarr

    store = tifffile.imread(area.path, aszarr=True, level=0)
    array = zarr.open(store, mode="r")
    yield lambda b: array[b[0] : b[0] + b[2], b[1] : b[1] + b[3]]
    store.close()


@contextmanager
def cucim(area):
    from cucim import CuImage

    image = CuImage(area.path)
    yield lambda b: np.asarray(image.read_region((b[1], b[0]), (b[3], b[2]), 0, device="cpu"))


@contextmanager
def decoding(area, library):
    decode = _imagecodecs(area) if library == "imagecodecs" else _simplejpeg(area)
    file = os.open(area.path, os.O_RDONLY)
    yield lambda place: decode(os.pread(file, place[1], place[0]))
    os.close(file)


def _imagecodecs(area):
    import imagecodecs

    space = "YCBCR" if area.photometric == "YCBCR" else "RGB"
    return lambda data: imagecodecs.jpeg8_decode(
        data, tables=area.tables, colorspace=space, outcolorspace="RGB"
    )


def _simplejpeg(area):
    from napari_wsi_heatmap.slides.tilecodecs import Coding, decoder

    photometric = 6 if area.photometric == "YCBCR" else 2
    return decoder(Coding(7, area.tile, 3, photometric, tables=area.tables or b""))


READERS = {
    OURS: lambda area: ours(area, helped=False),
    "ours, idle cores help a caller": lambda area: ours(area, helped=True),
    "OpenSlide": openslide,
    "tifffile through zarr": tifffile_zarr,
    "cuCIM, CPU": cucim,
    "decoding alone (imagecodecs)": lambda area: decoding(area, "imagecodecs"),
    ALONE: lambda area: decoding(area, "simplejpeg"),
}


def rate(read, jobs, pixels, threads):
    """Million pixels a second of doing all jobs with so many threads."""
    np.ones(64 << 20, np.uint8)  # who comes first must not pay for memory that others reuse
    left = deque(jobs)

    def work():
        while True:
            try:
                job = left.popleft()
            except IndexError:
                return
            read(job)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return pixels / 1e6 / (time.perf_counter() - begun)


def measure(area, repeats):
    """{reader: {(size, threads): rates}}."""
    rates = {}
    for _ in range(repeats + 1):
        for size in SIZES:
            for threads in (1, 2):
                for name, opened in READERS.items():
                    value = once(area, name, opened, size, threads)
                    if value is not None:
                        rates.setdefault(name, {}).setdefault((size, threads), []).append(value)
    # The first round warms caches of the disk and of the allocator.
    return {name: {k: v[1:] for k, v in of.items()} for name, of in rates.items()}


def once(area, name, opened, size, threads):
    """One reading of the area, the file opened anew so that no reader's cache is warm."""
    alone = name.startswith("decoding")
    jobs = area.places if alone else area.boxes(size)
    tile = area.tile[0] * area.tile[1]
    pixels = len(jobs) * tile if alone else sum(box[2] * box[3] for box in jobs)
    try:
        with opened(area) as read:
            return rate(read, jobs, pixels, threads)
    except ImportError:
        return None


def ratio(rates, name, other, key):
    return statistics.median(
        a / b for a, b in zip(rates[name][key], rates[other][key], strict=True)
    )


def table(area, rates):
    keys = [(size, threads) for size in SIZES for threads in (1, 2)]
    yield f"## {Path(area.path).name}: {area.height} x {area.width} px of it, tiles {area.tile[0]}"
    yield ""
    yield "| Mpx/s, 1 / 2 threads | " + " | ".join(f"{size} px" for size in SIZES) + " |"
    yield "|---|" + "---|" * len(SIZES)
    for name, of in rates.items():
        cells = [f"{statistics.median(of[k]):.0f}" for k in keys]
        yield (
            f"| {name} | "
            + " | ".join(map(" / ".join, zip(cells[::2], cells[1::2], strict=True)))
            + " |"
        )
    yield ""
    for other in [name for name in rates if name != OURS and not name.startswith(OURS)]:
        parts = [f"{size} px {ratio(rates, OURS, other, (size, 1)):.2f} / "
                 f"{ratio(rates, OURS, other, (size, 2)):.2f}" for size in SIZES]  # fmt: skip
        yield f"- ours / {other}, 1 / 2 threads: {' · '.join(parts)}"
    yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    lines = [
        "# Reading regions",
        "",
        f"Medians of {chosen.repeats} turns; machine: {os.cpu_count()} CPU cores, files in the "
        "page cache. Ratios are medians of the ratios within each turn.",
        "",
    ]
    for path in chosen.slides:
        area = Area(path, chosen.side)
        lines += table(area, measure(area, chosen.repeats))
    print("\n".join(lines))
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
