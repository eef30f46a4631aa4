"""A full or unreachable disk, at every write in turn: a run that somebody watches waits, and goes
on when told to; a script ends, and is continued.

Scripts on a full disk are in `test_crash_points`.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide, quarter_means
from made_features import with_features
from made_slides import noise, write_tiff
from napari_wsi_heatmap import output, store
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.features import UnsavedFeatures
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.states import DONE, state_of
from napari_wsi_heatmap.writer import StoreWriter

SETTINGS = {"window": 32, "stride": 16, "tissue": "none", "batch_size": 8}
LIMITED = """if True:
    import resource, sys
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, resource.RLIM_INFINITY))
    from napari_wsi_heatmap.cli import main
    raise SystemExit(main())
"""


class WatchedWriter(StoreWriter):
    """Saves when the test says so, as its thread does."""

    def __init__(self, saved, growing, note):
        super().__init__(saved, growing, note, interval=3600)
        WatchedWriter.latest = self


class Disk:
    """Is full, or not there, from its n-th write on, until it is mended."""

    def __init__(self, monkeypatch):
        self.writes, self.full_after, self.error = 0, None, errno.ENOSPC
        self._rename = os.replace
        monkeypatch.setattr(os, "replace", self._replace)

    def _replace(self, source, target):
        if self.full_after is not None and self.writes >= self.full_after:
            raise OSError(self.error, os.strerror(self.error))
        self.writes += 1
        self._rename(source, target)


class SomebodyWatches(RunControl):
    """Makes room whenever the run pauses, and tells it once to go on."""

    def __init__(self, disk):
        super().__init__(pauses_on_trouble=True)
        self.disk, self.reasons = disk, []

    def wait_while_paused(self):
        self.reasons.append(self.reason)
        # Meanwhile the thread has tried once more, in vain.
        WatchedWriter.latest.try_to_save()
        self.disk.full_after = None
        self.resume()
        return super().wait_while_paused()


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(GrowingMap, "chunk", 4)
    monkeypatch.setattr(DenseMap, "chunk", 12)
    monkeypatch.setattr(DenseMap, "state_chunk", 4)
    monkeypatch.setattr(UnsavedFeatures, "chunk", 4)
    monkeypatch.setattr(store, "STATE_CHUNK", 4)
    monkeypatch.setattr(store, "COARSEST", 8)
    monkeypatch.setattr(output, "StoreWriter", WatchedWriter)
    return Disk(monkeypatch)


def compute(model, out, control, size=(70, 100)):
    run = prepare(noise_slide(*size), model, out=out, control=control, **SETTINGS)
    for _ in run.pieces():
        WatchedWriter.latest.try_to_save()
    return run


MODELS = {
    "values": mean_rgb,
    "dense": quarter_means,
    "features": with_features(),
    "dense and features": with_features(dense=True),
}


def same(found, whole):
    names = ("values", "state") if whole.features is None else ("values", "state", "features")
    return all(
        np.array_equal(getattr(found, name)[:], getattr(whole, name)[:], equal_nan=True)
        for name in names
    )


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_full_at_every_write(tmp_path, disk, model):
    whole = wh.compute_heatmap(noise_slide(70, 100), model, progress=False, **SETTINGS)
    compute(model, tmp_path / "whole.zarr", RunControl())
    writes, paused = disk.writes, 0
    assert writes > 20
    for n in range(writes):
        control, out = SomebodyWatches(disk), tmp_path / f"{n}.zarr"
        disk.writes, disk.full_after = 0, n
        try:
            run = compute(model, out, control)
        except StoreFullError:  # nothing has begun yet: no record, nothing to wait for
            assert not control.reasons
            disk.full_after = None
            run = compute(model, out, control)
        assert len(control.reasons) <= 1, f"write {n}"
        paused += len(control.reasons)
        assert all("No space left" in reason for reason in control.reasons)
        disk.full_after = None
        found = wh.open_heatmap(out)
        assert (found.run["status"], run.record["status"]) == ("done", "done")
        assert same(found, whole), f"write {n}"
    assert paused > writes / 2


UNREACHABLE = ("ENOENT", "EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT")
SMALL = 50, 70


@pytest.mark.parametrize("name", UNREACHABLE)
def test_unreachable_at_every_write_a_run_that_is_watched_waits(tmp_path, disk, name):
    model = MODELS["features"]
    whole = wh.compute_heatmap(noise_slide(*SMALL), model, progress=False, **SETTINGS)
    disk.error = getattr(errno, name)
    compute(model, tmp_path / "whole.zarr", RunControl(), SMALL)
    writes, reasons = disk.writes, []
    for n in range(writes):
        control, out = SomebodyWatches(disk), tmp_path / f"{n}.zarr"
        disk.writes, disk.full_after = 0, n
        try:
            run = compute(model, out, control, SMALL)
        except StoreFullError:
            assert not control.reasons
            disk.full_after = None
            run = compute(model, out, control, SMALL)
        disk.full_after = None
        reasons += control.reasons
        assert run.record["status"] == "done"
        assert same(wh.open_heatmap(out), whole), f"write {n}"
    assert len(reasons) > writes / 2
    assert all(os.strerror(disk.error) in reason for reason in reasons)


@pytest.mark.parametrize("name", UNREACHABLE)
def test_unreachable_at_every_write_a_script_ends_and_is_continued(tmp_path, disk, name):
    model = MODELS["features"]
    whole = wh.compute_heatmap(noise_slide(*SMALL), model, progress=False, **SETTINGS)
    disk.error = getattr(errno, name)
    compute(model, tmp_path / "whole.zarr", RunControl(), SMALL)
    for n in range(disk.writes - 1):  # the last only adds the seconds
        out = tmp_path / f"{n}.zarr"
        disk.writes, disk.full_after = 0, n
        with pytest.raises(StoreFullError, match=os.strerror(disk.error)):
            compute(model, out, RunControl(), SMALL)
        disk.full_after = None
        run = compute(model, out, RunControl(), SMALL)
        assert run.record["status"] == "done"
        assert same(wh.open_heatmap(out), whole), f"write {n}"


def test_a_run_that_waits_for_room_can_be_cancelled(tmp_path, disk):
    control = RunControl(pauses_on_trouble=True)
    run = prepare(noise_slide(70, 100), mean_rgb, out=tmp_path / "a.zarr", control=control,
                  **SETTINGS)  # fmt: skip
    pieces = run.pieces()
    next(pieces)
    disk.full_after = disk.writes
    WatchedWriter.latest.try_to_save()
    threading.Timer(0.3, control.cancel).start()
    with pytest.raises(StoreFullError, match=r"No space left.*make room"):
        list(pieces)
    assert "No space left" in control.reason
    disk.full_after = None
    assert wh.open_heatmap(tmp_path / "a.zarr").run["status"] != "done"
    assert compute(mean_rgb, tmp_path / "a.zarr", RunControl()).record["status"] == "done"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes here")
def test_the_command_line_ends_with_1_and_goes_on_when_there_is_room(tmp_path):
    path = write_tiff(tmp_path / "slide.tif", [noise(900, 1200)], mpp=0.5)
    out = str(tmp_path / "a.zarr")
    settings = {"window": 64, "stride": 8, "level": 0, "tissue": "none"}
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [
        sys.executable,
        "-c",
        LIMITED,
        "run",
        path,
        "--model=hematoxylin",
        "--out",
        out,
        *options,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "cannot write: File too large" in ended.stderr
    assert "resume" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert wh.open_heatmap(out).run["status"] == "failed"
    room = "from napari_wsi_heatmap.cli import main; raise SystemExit(main())"
    subprocess.run([sys.executable, "-c", room, "resume", out, "--quiet"], check=True, timeout=120)
    found, whole = (
        wh.open_heatmap(out),
        wh.compute_heatmap(path, "hematoxylin", progress=False, **settings),
    )
    assert (state_of(found.state) == DONE).all()
    assert np.array_equal(found.values.view(np.uint32), whole.values.view(np.uint32))
