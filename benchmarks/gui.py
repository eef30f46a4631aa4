"""How smooth the viewer stays during a run, and how soon the first colour shows.

    xvfb-run -a -s "-screen 0 1920x1080x24" python benchmarks/gui.py [--repeats 5] [--write]

A timer that fires every 2 ms notes the gaps between its own ticks; the longest gap is the longest
time for which the GUI thread answered nothing. It is taken with the viewer idle, with the viewer
idle but redrawing ten times a second (what drawing alone costs on this machine), and during a run
over the sample slide, from pressing Run to its end. First colour: from pressing Run to the end of
the first painting of a heatmap with a value in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from qtpy.QtCore import QEventLoop, Qt, QTimer

RESULTS = Path(__file__).parent / "results" / "gui.md"
TICK_MS = 2
IDLE_S = 3.0


class Heartbeat:
    """Longest gap between ticks of a fast timer, ms."""

    def __init__(self):
        self.gaps = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)

    def __enter__(self):
        self.gaps.clear()
        self._last = time.perf_counter()
        self._timer.start(TICK_MS)
        return self

    def __exit__(self, *exc):
        self._timer.stop()

    def _beat(self):
        now = time.perf_counter()
        self.gaps.append(1e3 * (now - self._last))
        self._last = now

    @property
    def worst(self):
        return max(self.gaps)


def serve(until, timeout=120.0):
    """Run the event loop until ``until()`` holds."""
    loop, end = QEventLoop(), time.monotonic() + timeout
    timer = QTimer()
    timer.timeout.connect(lambda: (until() or time.monotonic() > end) and loop.quit())
    timer.start(5)
    loop.exec()
    timer.stop()


def serve_for(seconds):
    end = time.monotonic() + seconds
    serve(lambda: time.monotonic() > end)


def open_viewer():
    import napari

    from napari_wsi_heatmap._napari.warm_up import WARM_UP
    from napari_wsi_heatmap.sample import sample_slide_path

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    viewer.open(sample_slide_path(), plugin="napari-wsi-heatmap")
    _, dock = viewer.window.add_plugin_dock_widget("napari-wsi-heatmap")
    serve(WARM_UP.ready.is_set)
    serve_for(1)
    return viewer, dock


def idle(redrawing=None):
    timer = QTimer()
    if redrawing is not None:
        timer.timeout.connect(lambda: redrawing.refresh(thumbnail=False, highlight=False))
        timer.start(100)
    with Heartbeat() as heart:
        serve_for(IDLE_S)
    timer.stop()
    return heart.worst


def run_once(viewer, dock, model, stride):
    """Longest gap during a run, ms; seconds to the first colour; windows; seconds."""
    from napari_wsi_heatmap._napari.registry import JOBS

    dock._form._model.value = model
    dock._form._stride.value = str(stride)
    painted = []
    canvas = viewer.window._qt_viewer.canvas._scene_canvas

    def on_draw(event):
        job = JOBS.latest(viewer)
        if job is not None and job.layer is not None and np.isfinite(job.layer.data).any():
            painted.append(time.perf_counter())

    canvas.events.draw.connect(on_draw, position="last")
    with Heartbeat() as heart:
        begun = time.perf_counter()
        dock.run()
        job = JOBS.running(viewer)
        serve(lambda: job.over)
    took = time.perf_counter() - begun
    gaps = sorted(heart.gaps)
    with Heartbeat() as after:
        serve_for(1.0)
    canvas.events.draw.disconnect(on_draw)
    viewer.layers.remove(job.layer)
    serve_for(0.5)
    share = gaps[int(0.99 * len(gaps))]
    return heart.worst, share, painted[0] - begun, job.progress.done, took, after.worst


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/gui.md")
    chosen = parser.parse_args()
    os.environ.setdefault("NAPARI_CONFIG", "")
    viewer, dock = open_viewer()
    lines = table(viewer, dock, chosen.repeats)
    print("\n".join(lines))
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n")
    viewer.close()


def table(viewer, dock, repeats):
    still, redrawn = [], []
    slide = viewer.layers[0]
    for _ in range(repeats):
        still.append(idle())
        redrawn.append(idle(slide))
    median = statistics.median
    lines = [
        "# GUI during a run",
        "",
        f"Median of {repeats} runs; machine: {os.cpu_count()} CPU cores, OpenGL in software. "
        "Longest gap of a 2 ms heartbeat on the GUI thread.",
        "",
        f"- idle: {median(still):.0f} ms",
        f"- idle, the slide redrawn ten times a second: {median(redrawn):.0f} ms",
        "",
        "| run over the sample slide | windows | run | first colour | longest gap | 99 % of gaps | "
        "above idle | longest gap in the second after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, stride in (("hematoxylin", 64), ("hematoxylin", 32), ("nuclei", 64)):
        runs = [run_once(viewer, dock, model, stride) for _ in range(repeats)]
        worst, share, first, windows, took, after = (median(c) for c in zip(*runs, strict=True))
        lines.append(
            f"| {model}, stride {stride} | {windows:,} | {took:.1f} s | {first:.2f} s | "
            f"{worst:.0f} ms | {share:.0f} ms | {worst - median(still):.0f} ms | {after:.0f} ms |"
        )
    return lines


if __name__ == "__main__":
    main()
