"""How fast a slide pans, and how long the window stands still meanwhile.

    xvfb-run -a -s "-screen 0 1920x1080x24" python benchmarks/panning.py
        [--slide SLIDE | --make FOLDER] [--repeats 3] [--write]

Slicing: a view of 1536 x 2048 px of level 0, moved by 256 px, read into one array; no drawing.
"First" is a view of which nothing was read before, "pan" the median of the moves after it.

Standing still: the camera moves at 30 Hz for 3 s, a screen's width in 1.2 s, while a timer that
fires every 2 ms notes the gaps between its own ticks; the longest gap is the longest time for
which the window answered nothing. Drawing is included; "drawing alone" is what it takes with all
pixels of the path in the cache; "of it slicing" is the longest single time that a layer took to
give the canvas its pixels.

SLIDE: a slide of about 100k x 80k px. With --make it is made in FOLDER by tools/make_big.py of
the test data (1.1 GB); without either, a slide of that size is made by a function.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault(
    "NAPARI_CONFIG", str(Path(tempfile.mkdtemp(prefix="napari-")) / "settings.yaml")
)

import numpy as np
from gui import Heartbeat, serve, serve_for
from qtpy.QtCore import Qt, QTimer

from napari_wsi_heatmap.pyramid import default_cache, slide_pyramid
from napari_wsi_heatmap.readspeed import view_seconds
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.array import ArraySlide

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "panning.md"
MAKER = Path(os.environ.get("WSI_TEST_DATA", HERE.parents[1] / "shared" / "data")).parent / "tools"
SIZE = 102_400, 81_920
VIEW = 1536, 2048
PAN = 256
MOVES = 30
HZ, SECONDS, STEP = 30, 3.0, 42
"""STEP: screen pixels per move."""
SLOW_S = 0.020
"""A tile of 256 x 256 px of a slow source."""


def made_slide(seconds_per_tile=0.0):
    """A slide of 100k x 80k px made by a function, with levels a factor 4 apart."""
    noise = np.random.default_rng(0).integers(60, 255, (4096, 4096, 3), np.uint8)

    def read(level, y, x, height, width):
        if seconds_per_tile:
            time.sleep(seconds_per_tile * max(1.0, height * width / 65_536))
        rows = (np.arange(y, y + height) % 4096)[:, None]
        return noise[rows, np.arange(x, x + width) % 4096]

    shapes = [(SIZE[1] // f, SIZE[0] // f) for f in (1, 4, 16, 64)]
    return ArraySlide.from_callable(read, shapes, mpp=0.25, name="made")


def file_slide(folder):
    """Make a slide of real tissue with the maker of test data; its path."""
    path = folder / "big100k.svs"
    if not path.exists():
        command = [sys.executable, MAKER / "make_big.py", path, "--size", *map(str, SIZE)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return path


# slicing


def slices(read):
    """(first view, median of pans over unread pixels, the same way again) in ms."""

    def go():
        times = []
        for move in range(MOVES):
            y, x = 20_000 + PAN * (move // 2), 30_000 + PAN * move
            begun = time.perf_counter()
            read(y, x)
            times.append(1e3 * (time.perf_counter() - begun))
        return times

    first = go()
    return first[0], statistics.median(first[1:]), statistics.median(go())


def slicing_rows(slide, path):
    default_cache.clear()
    pyramid = slide_pyramid(slide)

    def exact(y, x):
        return np.asarray(pyramid.levels[0][y : y + VIEW[0], x : x + VIEW[1]])

    def progressive(y, x):
        return pyramid.progressive.levels[0][y : y + VIEW[0], x : x + VIEW[1]]

    def halved(y, x):
        return np.asarray(pyramid.levels[1][y : y + VIEW[0], x : x + VIEW[1]])

    yield "exact (dask), stored level", *slices(exact)
    default_cache.clear()
    yield "exact (dask), level made by halving", *slices(halved)
    default_cache.clear()
    np.asarray(pyramid.progressive.levels[-1])
    yield "progressive, stored level", *slices(progressive)
    yield from peer_rows(path)


def peer_rows(path):
    if path is None:
        return
    import openslide

    osr = openslide.OpenSlide(path)
    yield (
        "one read_region of OpenSlide",
        *slices(lambda y, x: np.asarray(osr.read_region((x, y), 0, VIEW[::-1]))),
    )
    if importlib.util.find_spec("napari_wsi") is None:
        yield "napari-wsi: not installed; on another machine 119 to 160 ms a pan", None, None, None
        return
    from napari_wsi.backends.openslide import OpenSlideStore

    level = OpenSlideStore(path).to_viewer_data()[0]
    yield (
        "napari-wsi",
        *slices(lambda y, x: np.asarray(level[y : y + VIEW[0], x : x + VIEW[1]])),
    )


# standing still


def choose(levels):
    from napari.settings import get_plugin_settings

    get_plugin_settings("napari-wsi-heatmap").viewing.levels = levels


def open_layer(viewer, slide, levels):
    """Open a slide as the reader does; the layer and the longest gap meanwhile, ms."""
    from napari_wsi_heatmap._napari.slide_layer import slide_layer

    choose(levels)
    default_cache.clear()
    with Heartbeat() as heart:
        data, kwargs, _ = slide_layer(slide)
        layer = viewer.add_image(data, **kwargs)
        serve_for(1.0)
    return layer, heart.worst


class Slicing:
    """Times that a layer took to give the canvas its pixels, ms: our share of a gap."""

    def __init__(self, layer):
        self.times, self._kind = [0.0], type(layer)

    def __enter__(self):
        inner, times = self._kind.set_view_slice, self.times
        self._inner = inner

        def timed(layer, *args, **kwargs):
            begun = time.perf_counter()
            inner(layer, *args, **kwargs)
            times.append(1e3 * (time.perf_counter() - begun))

        self._kind.set_view_slice = timed
        return self

    def __exit__(self, *exc):
        self._kind.set_view_slice = self._inner


def pan(viewer, layer, zoom, where):
    """Pan for a while; moves done, longest gap ms, 99 % of gaps ms, longest slicing ms."""
    camera, scale = viewer.scene.camera, float(layer.scale[0])
    camera.zoom = zoom / scale
    camera.center = (where[0] * scale, where[1] * scale)
    serve_for(0.7)
    moves = 0

    def move():
        nonlocal moves
        moves += 1
        y, x = camera.center[-2:]
        camera.center = (y + STEP / 4 / camera.zoom, x + STEP / camera.zoom)

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(move)
    with Slicing(layer) as slicing, Heartbeat() as heart:
        timer.start(round(1000 / HZ))
        serve_for(SECONDS)
        timer.stop()
    gaps = sorted(heart.gaps)
    return moves, heart.worst, gaps[int(0.99 * len(gaps))], max(slicing.times)


def jump(viewer, layer, zoom, where):
    """Show a view of which nothing was read; longest gap ms."""
    camera, scale = viewer.scene.camera, float(layer.scale[0])
    with Heartbeat() as heart:
        camera.zoom = zoom / scale
        camera.center = (where[0] * scale, where[1] * scale)
        serve_for(1.0)
    return heart.worst


def settle(layer):
    """Wait until what is on view is complete, and what lies ahead is read."""
    from napari_wsi_heatmap._napari.prefetching import follower_of

    pyramid, follower = layer.metadata["pyramid"], follower_of(layer)
    serve(lambda: pyramid.progressive.settled and follower.idle, timeout=30)


def standing_rows(viewer, cases, repeats):
    for name, make, levels in cases:
        results = {}
        for number in range(repeats):
            layer, opening = open_layer(viewer, make(), levels)
            results.setdefault("opening", []).append(opening)
            for zoom in (1.0, 0.45):
                where = 21_000 + 9_000 * number, 20_000
                results.setdefault(("jump", zoom), []).append(jump(viewer, layer, zoom, where))
                settle(layer)
                where = 25_000 + 9_000 * number, 24_000
                first = pan(viewer, layer, zoom, where)
                results.setdefault(("pan", zoom), []).append(first)
                settle(layer)
                again = pan(viewer, layer, zoom, where)
                results.setdefault(("again", zoom), []).append(again)
            shown = type(layer.data[0]).__name__
            viewer.layers.clear()
            serve_for(0.3)
        yield name, shown, results


def median(values):
    return statistics.median(values)


def table(chosen):
    import napari

    path = chosen.slide or (file_slide(chosen.make) if chosen.make else None)
    slide = made_slide() if path is None else open_slide(path)
    lines = [*heading(slide, chosen.repeats), *slicing_table(slide, path)]
    print("\n".join(lines), flush=True)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    serve_for(1.0)
    warm, _ = open_layer(viewer, made_slide(), "exact")
    pan(viewer, warm, 1.0, (9_000, 9_000))
    viewer.layers.clear()

    def same():
        return made_slide() if path is None else open_slide(path)

    def slow():
        return made_slide(SLOW_S)

    cases = [
        (f"{slide.name}, default", same, "auto"),
        (f"{slide.name}, exact", same, "exact"),
        (f"{slide.name}, progressive", same, "progressive"),
        ("20 ms a tile, default", slow, "auto"),
        ("20 ms a tile, exact", slow, "exact"),
        ("20 ms a tile, progressive", slow, "progressive"),
    ]
    more = standing_table(standing_rows(viewer, cases, chosen.repeats))
    print("\n".join(more), flush=True)
    viewer.close()
    return lines + more


def heading(slide, repeats):
    height, width = slide.levels[0].shape
    return [
        "# Panning",
        "",
        f"Machine: {os.cpu_count()} CPU cores ({platform.processor() or platform.machine()}), "
        f"OpenGL in software. Medians of {repeats} runs; written by benchmarks/panning.py.",
        "",
        f"Slide: {slide.name}, {width:,} x {height:,} px, backend {slide.backend}; slowest view "
        f"estimated at opening: {1e3 * view_seconds(slide):.0f} ms.",
        "",
    ]


def slicing_table(slide, path):
    lines = [
        f"## Slicing a view of {VIEW[0]} x {VIEW[1]} px (no drawing), ms",
        "",
        f"| way | first view | pan by {PAN} px, not read before | the same way again |",
        "|---|---|---|---|",
    ]
    for name, *times in slicing_rows(slide, path):
        lines.append(f"| {name} | " + " | ".join(_ms(t) for t in times) + " |")
    return [*lines, ""]


def _ms(value):
    return "-" if value is None else f"{value:.1f}"


def standing_table(rows):
    lines = [
        f"## Longest time the window stands still, ms ({HZ} Hz for {SECONDS:.0f} s)",
        "",
        "| slide and setting | layer's levels | opening | zoom | jump to unread | pan, unread "
        "(99 % of gaps) | of it slicing | moves | pan again, drawing alone | moves |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shown, results in rows:
        for zoom in (1.0, 0.45):
            first, again = results["pan", zoom], results["again", zoom]
            moves, worst, share, sliced = (median(column) for column in zip(*first, strict=True))
            moves2, worst2, *_ = (median(column) for column in zip(*again, strict=True))
            lines.append(
                f"| {name} | {shown} | {median(results['opening']):.0f} | {zoom} | "
                f"{median(results['jump', zoom]):.0f} | {worst:.0f} ({share:.0f}) | "
                f"{sliced:.0f} | {moves:.0f} | "
                f"{worst2:.0f} | {moves2:.0f} |"
            )
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, help="a slide of about 100k x 80k px")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="make one there (1.1 GB)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    lines = table(chosen)
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
