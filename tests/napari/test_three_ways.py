"""One real slide from the dock, from napari's console and from the command line: one result."""

from __future__ import annotations

import numpy as np
import pytest
from live import needs_display, wait_over
from npe2 import PluginManager

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.widget import HeatmapWidget
from napari_wsi_heatmap.cli import main

PLUGIN = "napari-wsi-heatmap"
CELL = """
import napari_wsi_heatmap as wh
heatmap = wh.show_heatmap(viewer, viewer.layers[0], "hematoxylin").wait()
"""


@pytest.mark.gl
@needs_display
@pytest.mark.filterwarnings(
    # ipykernel's own
    "ignore::DeprecationWarning", "ignore::PendingDeprecationWarning"
)  # fmt: skip
def test_the_same_array(qtbot, make_napari_viewer, data_dir, tmp_path):
    slide = str(data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs")
    from napari_console import QtConsole

    PluginManager.instance().discover()
    viewer = make_napari_viewer(show=True)
    viewer.open(slide, plugin=PLUGIN)

    dock = HeatmapWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.reset_choices()
    dock.run()
    job = JOBS.latest(viewer)
    wait_over(qtbot, job)
    from_dock = job.heatmap.values

    # The fixture replaces napari's console by an empty widget; this is the one a user gets.
    console = QtConsole(viewer)
    qtbot.addWidget(console)
    console.push({"viewer": viewer})
    console.shell.run_cell(CELL)
    from_console = console.shell.user_ns["heatmap"].values
    console.kernel_client.stop_channels()
    console.kernel_manager.shutdown_kernel()

    out = tmp_path / "cli.zarr"
    assert main(["run", slide, "--model", "hematoxylin", "--out", str(out), "--quiet"]) == 0
    from_command_line = wh.open_heatmap(out).values

    assert np.isfinite(from_dock).sum() > 500
    assert np.array_equal(from_dock, from_console, equal_nan=True)
    assert np.array_equal(from_dock, from_command_line, equal_nan=True)
