"""The window is closed by its X in the middle of a run: the process ends, the run can go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live import needs_display

from napari_wsi_heatmap.store import HeatmapStore, read_record

pytestmark = [pytest.mark.gl, needs_display]

SCRIPT = """
import sys

import napari
from qtpy.QtCore import QTimer

sys.path.insert(0, sys.argv[1])
from live import SLOW, Slow, add_slide, tissue_slide

from napari_wsi_heatmap.show import show_heatmap

out, how = sys.argv[2:]
viewer = napari.Viewer(show=True)
viewer.window.add_plugin_dock_widget("napari-wsi-heatmap")
layer = add_slide(viewer, tissue_slide())
job = show_heatmap(viewer, layer, Slow(), out=out, **SLOW)


def close():
    if job.layer is None or job.progress.done < 20:
        return
    if how == "paused" and job.state != "paused":
        job.pause()
        return
    timer.stop()
    viewer.window._qt_window.close()


timer = QTimer()
timer.timeout.connect(close)
timer.start(50)
napari.run()
print("closed", flush=True)
"""


@pytest.mark.parametrize("how", ["running", "paused"])
def test_closing_the_window(tmp_path, how):
    out = tmp_path / "a.zarr"
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(out), how]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("closed")
    assert "Traceback" not in done.stderr
    record = read_record(out)
    assert record["status"] == "paused"
    assert record["counts"]["done"] >= 20
    assert HeatmapStore.open(out).state.any()
