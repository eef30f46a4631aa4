"""What the features of 100,000 windows cost: similarity to a click, PCA, clusters, correlation.

    python benchmarks/similarity.py [--windows 100000] [--features 1024] [--repeats 3] [--write]

The features lie in a store in chunks of 16 x 16 windows, as those of a run do; each row is a
process of its own. A click is what the dock does for it: the product with the unit vectors that
are held in memory while the tool is on, the ten most similar windows, and the picture. Its limit is
0.3 s; beside it stand what a script does without the copy (SciPy's cosine distances of features
that are in memory) and what no click can beat: reading the copy once. Memory is the process's peak
above what it was after all imports. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "similarity.md"
MB = 1 << 20
LIMIT_S = 0.3
CLICKS = 25
CHUNK = 16


def resident(which):
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(which))
    return int(line.split()[1]) << 10


def shape_of(windows):
    side = math.ceil(math.sqrt(windows))
    return math.ceil(windows / side), side


def make(path, windows, features):
    """Features of windows that vary across the slide, with noise."""
    import numpy as np
    import zarr

    from napari_wsi_heatmap.store import CODEC

    shape = (*shape_of(windows), features)
    array = zarr.create_array(
        str(path), shape=shape, chunks=(CHUNK, CHUNK, features), dtype="float32",
        fill_value=np.nan, compressors=CODEC,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(6, features)).astype(np.float32)
    for y in range(0, shape[0], CHUNK):
        rows, cols = np.meshgrid(
            np.arange(y, min(y + CHUNK, shape[0])), np.arange(shape[1]), indexing="ij"
        )
        first = np.sin(rows / 17), np.cos(cols / 23), np.sin(rows * cols / 900)
        weights = np.stack([*first, np.cos(rows / 5), np.sin(cols / 71), np.cos(rows / 40)], -1)
        noise = rng.normal(size=(*rows.shape, features)).astype(np.float32)
        array[y : y + CHUNK] = weights.astype(np.float32) @ waves + noise


def heatmap_of(path):
    import numpy as np
    import zarr

    from napari_wsi_heatmap.frame import lay_frame
    from napari_wsi_heatmap.grid import WindowSpec, lay_grid
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.savedarray import SavedArray

    array = zarr.open_array(str(path), mode="r")
    shape = array.shape[:2]
    grid = lay_grid(WindowSpec(0, (1.0, 1.0), *[(224, 224)] * 3), (224 * shape[0], 224 * shape[1]))
    record = {"model": {"name": "made", "names": ["value"]}}
    values = np.zeros((1, *shape), np.float32)
    features = SavedArray(array, path)
    return Heatmap(values, np.ones(shape, np.uint8), lay_frame(grid, 1), record, None, features)


def seconds_of(act):
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def clicks(heatmap):
    import numpy as np

    from napari_wsi_heatmap.embedding.cells import cells_of
    from napari_wsi_heatmap.embedding.similarity import Similarity

    held = {}
    gathering = seconds_of(lambda: held.update(it=Similarity(heatmap), cells=cells_of(heatmap)))

    def click(window):
        found, _, _ = held["it"].both(int(window), 10)
        held["cells"].paint(found)

    windows = np.random.default_rng(1).integers(0, heatmap.grid.size, CLICKS)
    times = [seconds_of(lambda w=w: click(w)) for w in windows]
    units = held["it"]._units
    reading = statistics.median(seconds_of(units.max) for _ in range(5))
    return {"gathering": gathering, "times": times, "reading": reading}


def script(heatmap):
    from scipy.spatial.distance import cdist

    data = heatmap.window_features()
    return {
        "times": [seconds_of(lambda i=i: cdist(data[i : i + 1], data, "cosine")) for i in range(5)]
    }


def one(act):
    return lambda heatmap: {"times": [seconds_of(lambda: act(heatmap))]}


ROWS = {
    "a click, features held": clicks,
    "SciPy's cosine distances, features in memory": script,
    "similarity to one window, from the store": one(lambda heatmap: heatmap.similarity(5)),
    "PCA, 3 components": one(lambda heatmap: heatmap.pca(3)),
    "correlation with x and y": one(lambda heatmap: heatmap.correlation()),
    "8 clusters": one(lambda heatmap: heatmap.clusters(8)),
    "one latent": one(lambda heatmap: heatmap.latents(7)),
    "10 nearest windows of one": one(lambda heatmap: heatmap.neighbours(5, 10)),
}


def child(name, path):
    import scipy.cluster.vq
    import scipy.linalg
    import scipy.spatial.distance  # noqa: F401

    import napari_wsi_heatmap.embedding.cells
    import napari_wsi_heatmap.embedding.clusters
    import napari_wsi_heatmap.embedding.correlation
    import napari_wsi_heatmap.embedding.neighbours
    import napari_wsi_heatmap.embedding.pca  # noqa: F401

    heatmap = heatmap_of(path)
    before = resident("VmRSS")
    found = ROWS[name](heatmap)
    print(json.dumps(found | {"peak": resident("VmHWM") - before}))


def measured(name, path, repeats):
    """Times of several processes together; of the others the median, of memory the most."""
    found = [once(name, path) for _ in range(repeats)]
    middle = {key: statistics.median(f[key] for f in found) for key in found[0] if key != "times"}
    times = [seconds for f in found for seconds in f["times"]]
    return middle | {"times": times, "peak": max(f["peak"] for f in found)}


def once(name, path):
    done = subprocess.run(
        [sys.executable, __file__, "--child", name, "--store", str(path)],
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout.splitlines()[-1])


def lines_of(name, found):
    times = found["times"]
    most = f"{max(times):.3f}" if len(times) > 1 else "–"
    peak = f"{found['peak'] / MB:,.0f}"
    lines = [f"| {name} | {statistics.median(times):.3f} | {most} | {peak} |"]
    if "gathering" in found:
        lines.insert(0, f"| switching the tool on: reading them | {found['gathering']:.2f} | – | |")
        lines.append(
            f"| the limit: reading the copy once, one thread | {found['reading']:.3f} | – | |"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3, help="processes a row")
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.store)
        return
    windows, load = math.prod(shape_of(chosen.windows)), os.getloadavg()[0]
    table = ["| what | s, median | s, worst | peak, MB |", "|---|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "features.zarr"), chosen.windows, chosen.features)
        for name in ROWS:
            found = measured(name, Path(folder, "features.zarr"), chosen.repeats)
            table += lines_of(name, found)
            if name == next(iter(ROWS)):
                click = statistics.median(found["times"])
    lines = [
        "# Features: similarity, PCA, clusters",
        "",
        f"Machine: {os.cpu_count()} CPU cores, load average {load:.0f}. {windows:,} windows of "
        f"{chosen.features:,} features "
        f"in a store ({4 * windows * chosen.features / MB:,.0f} MB as float32). A click must be "
        f"answered in {LIMIT_S} s: {'it is' if click <= LIMIT_S else 'IT IS NOT'}, by a factor of "
        f"{LIMIT_S / click:.1f}. Medians and worst of {chosen.repeats} processes a row, {CLICKS} "
        "clicks in each.",
        "",
        *table,
    ]
    print("\n".join(lines))
    if chosen.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
