"""The same from napari's own console, in a process of its own: path, Slide and layer."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from live import needs_display

import napari_wsi_heatmap as wh

pytestmark = [
    pytest.mark.gl,
    needs_display,
    pytest.mark.skipif(find_spec("napari_console") is None, reason="napari-console not installed"),
]

SCRIPT = """
import sys

import napari
import numpy as np

path, out = sys.argv[1:]
viewer = napari.Viewer(show=True)
console = viewer.window._qt_viewer.console


def type_in(line):
    result = console.shell.run_cell(line)
    result.raise_error()


type_in("import napari_wsi_heatmap as wh")
type_in(f"job = wh.show_heatmap(viewer, {path!r}, 'eosin', stride=48)")
type_in("by_path = job.wait()")
type_in("by_layer = wh.show_heatmap(viewer, viewer.layers[0], 'eosin', stride=48).wait()")
type_in(f"slide = wh.open_slide({path!r})")
type_in("by_slide = wh.show_heatmap(viewer, slide, 'eosin', stride=48).wait()")
type_in("net = lambda batch: batch.mean((2, 3))")
type_in("own = wh.show_heatmap(viewer, slide, net, window=64, out=None).wait()")
names = console.shell.user_ns
np.savez(out, **{k: names[k].values for k in ("by_path", "by_layer", "by_slide", "own")})
print([layer.name for layer in viewer.layers])
viewer.close()
"""


def test_show_heatmap_in_the_console(slide_file, tmp_path):
    out = tmp_path / "values.npz"
    command = [sys.executable, "-c", SCRIPT, slide_file, str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    values = np.load(out)
    scripted = wh.compute_heatmap(slide_file, "eosin", stride=48, progress=False)
    for name in ("by_path", "by_layer", "by_slide"):
        assert np.array_equal(values[name], scripted.values, equal_nan=True)
    assert values["own"].shape[0] == 3
    # The dropped slide's layer is used again; one opened a second time gets its own.
    assert done.stdout.count("'a.svs'") == 1
    assert "a.svs [1]" in done.stdout
