"""Slides and models of the tests of cohorts; workers import this file by its name."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import numpy as np

import napari_wsi_heatmap as wh
from made_slides import tissue, write_tiff

SETTINGS = {"window": 64, "tissue": "none", "level": 0, "batch_size": 4}
FUSE = "WSI_TEST_FUSE"
"""Names a file: while it is there, `burning` removes it and ends its process."""


def make_slides(folder: Path, number: int, height: int = 448, width: int = 512) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        write_tiff(folder / f"slide{i}.tif", [tissue(height, width, i)], compression="jpeg")
    return folder


def make_bad(folder: Path) -> None:
    (folder / "bad.tif").write_bytes(b"<html>not found</html>")


def mean_grey(batch):
    return batch.double().mean((1, 2, 3))


def slow_grey(batch):
    time.sleep(0.05)
    return mean_grey(batch)


def burning(batch):
    """kill -9 in the middle of a batch, once: whoever removes the fuse dies."""
    time.sleep(0.02)
    fuse = Path(os.environ[FUSE])
    with contextlib.suppress(FileNotFoundError):
        if fuse.read_text() == "go":
            fuse.unlink()  # by one of them only
            os.kill(os.getpid(), signal.SIGKILL)
    return mean_grey(batch)


def deadly(batch):
    """Nobody survives a black slide."""
    if float(batch.max()) < 0.05:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return mean_grey(batch)


def equal(store: Path, other) -> bool:
    """Whether two maps have the same bits, and the same plan."""
    one = wh.open_heatmap(store)
    return (
        one.values.tobytes() == other.values.tobytes()
        and np.array_equal(one.state, other.state)
        and one.run["plan"] == other.run["plan"]
        and one.run["counts"] == other.run["counts"]
        and (one.features is None) == (other.features is None)
    )


def serial(slide: Path, model, **settings):
    return wh.compute_heatmap(slide, model, progress=False, **SETTINGS | settings)
