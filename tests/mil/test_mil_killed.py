"""A killed pipeline: the next run ends as if nothing had been, and sweeps up what is half done."""

from __future__ import annotations

import signal
import subprocess
import sys

import torch
from mil_made import millab_abmil
from pipeline_made import make_millab

from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.pipeline import run_config

DIES = """
import os, signal, sys
from napari_wsi_heatmap.mil import picturefiles
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.pipeline import run_config

def later(self, level):
    os.kill(os.getpid(), signal.SIGKILL)

picturefiles._Levels.later = later
list(run_config(read_config(sys.argv[1]), device="cpu"))
"""


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_nothing_of_a_killed_run_stays(tmp_path):
    config = make_millab(tmp_path, ("normal_1",))
    text = config.read_text().replace("save_ext: png", "save_ext: tiff")
    config.write_text(text.replace("vis_level: -1", "vis_level: 0"))
    folder = tmp_path / "production"
    list(run_config(read_config(config), device="cpu"))
    whole = contents(folder)
    for path in folder.rglob("*.tiff"):
        path.unlink()
    killed = subprocess.run([sys.executable, "-c", DIES, config], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert [path for path in folder.rglob(".*") if "normal_1_heatmap" in path.name]
    mine = folder / "HEATMAP_DEMO" / "Unspecified" / ".mine.part"
    mine.write_bytes(b"mine")
    list(run_config(read_config(config), device="cpu"))
    assert contents(folder) == whole | {str(mine.relative_to(folder)): b"mine"}


def rows(folder):
    table = folder / "production" / "HEATMAP_DEMO" / "results.csv"
    return [line.split(",")[0] for line in table.read_text().splitlines()[1:]]


def test_rows_that_were_not_reached_again_stay(tmp_path):
    config = make_millab(tmp_path, ("normal_1", "tumor_1"))
    list(run_config(read_config(config), device="cpu"))
    whole = (tmp_path / "production" / "HEATMAP_DEMO" / "results.csv").read_text()
    stopped = run_config(read_config(config), device="cpu")
    next(stopped)
    stopped.close()
    assert (tmp_path / "production" / "HEATMAP_DEMO" / "results.csv").read_text() == whole
    state = {name: -value for name, value in millab_abmil(classes=2).items()}
    torch.save(state, tmp_path / "best_model.pth")
    stopped = run_config(read_config(config), device="cpu")
    next(stopped)
    stopped.close()
    assert rows(tmp_path) == ["normal_1"]  # none of another checkpoint
