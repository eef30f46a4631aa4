"""Kill −9 at random instants: what goes on ends with the same bits, nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

import napari_wsi_heatmap as wh
from kill_series import DENSE, KINDS, Killing, bytes_differing
from made_slides import tissue, write_tiff

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill −9 here")
PROGRAM = "from napari_wsi_heatmap.cli import main; raise SystemExit(main())"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_instants(tmp_path, kind, kills):
    series = Killing(kind, tmp_path, seed=kills).kill(kills)
    assert series.kills == kills
    assert (series.lost, series.doubled, series.bytes_differing) == (0, 0, 0)
    assert kind == DENSE or series.again == 0


def test_the_command_line_continues_what_was_killed(tmp_path):
    path = write_tiff(tmp_path / "slide.tif", [tissue(800, 1000)], mpp=0.5)
    settings = {"window": 64, "stride": 8, "level": 0, "tissue": "none"}
    whole = wh.compute_heatmap(path, "tissue", progress=False, batch_size=16, **settings)
    out, command = tmp_path / "a.zarr", [sys.executable, "-c", PROGRAM]
    options = [f"--{k}={v}" for k, v in (settings | {"batch-size": 16}).items()]
    kill_once_recorded([*command, "run", path, "--model", "tissue", "--out", out, *options], out)
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    subprocess.run([*command, "resume", out, "--quiet"], check=True, timeout=300)
    found = wh.open_heatmap(out)
    assert bytes_differing(found, whole) == 0
    assert found.run["status"] == "done"


def kill_once_recorded(command, out):
    """Kill a command as soon as it has begun an output."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (out / "run.json").exists():
            assert process.poll() is None
            threading.Event().wait(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
