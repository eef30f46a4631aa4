"""The drive that an output lies on goes away, and comes back, while the run goes on."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import noise_slide
from made_features import with_features
from made_slides import noise, write_tiff
from napari_wsi_heatmap import output
from napari_wsi_heatmap.cli import main
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import StoreError, StoreFullError, StoreLockedError
from napari_wsi_heatmap.features import UnsavedFeatures
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.runfolder import reading
from napari_wsi_heatmap.writer import StoreWriter

SETTINGS = {"window": 32, "stride": 16, "tissue": "none", "batch_size": 8}
SAVES = 5


class WatchedWriter(StoreWriter):
    """Saves when the test says so, as its thread does."""

    def __init__(self, saved, growing, note):
        super().__init__(saved, growing, note, interval=3600)
        WatchedWriter.latest = self


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(GrowingMap, "chunk", 4)
    monkeypatch.setattr(UnsavedFeatures, "chunk", 4)
    monkeypatch.setattr(output, "StoreWriter", WatchedWriter)


class Drive:
    """A folder that can be taken away; what is left is the empty one it was mounted on."""

    def __init__(self, folder):
        self.place, self._elsewhere = folder / "drive", folder / "elsewhere"
        self.place.mkdir()
        self.out = self.place / "a.zarr"

    def unmount(self):
        self.place.rename(self._elsewhere)
        self.place.mkdir()

    def mount(self):
        left = list(self.place.iterdir())
        self.place.rmdir()
        self._elsewhere.rename(self.place)
        assert left == []


class SomebodyMounts(RunControl):
    """Sees that the run waits, brings the drive back, and tells it once to go on."""

    def __init__(self, drive):
        super().__init__(pauses_on_trouble=True)
        self.drive, self.reasons = drive, []

    def wait_while_paused(self):
        self.reasons.append(self.reason)
        WatchedWriter.latest.try_to_save()
        self.drive.mount()
        self.resume()
        return super().wait_while_paused()


def whole():
    return wh.compute_heatmap(noise_slide(90, 130), with_features(), progress=False, **SETTINGS)


def compute(drive, control, gone_at):
    """The drive goes after a piece, before what it brought is saved."""
    run = prepare(noise_slide(90, 130), with_features(), out=drive.out, control=control, **SETTINGS)
    for n, _ in enumerate(run.pieces()):
        if n == gone_at:
            drive.unmount()
        WatchedWriter.latest.try_to_save()
    return run


def same(found, expected):
    names = ("values", "state", "features")
    return all(np.array_equal(getattr(found, n)[:], getattr(expected, n)[:]) for n in names)


@pytest.mark.parametrize("gone_at", range(SAVES))
def test_a_run_that_is_watched_waits_for_the_drive(tmp_path, gone_at):
    drive = Drive(tmp_path)
    control = SomebodyMounts(drive)
    run = compute(drive, control, gone_at)
    assert len(control.reasons) == 1
    assert "cannot be reached: No such file" in control.reasons[0]
    assert "drive is there, then resume" in control.reasons[0]
    found = wh.open_heatmap(drive.out)
    assert (run.record["status"], found.run["status"]) == ("done", "done")
    assert same(found, whole())


@pytest.mark.parametrize("gone_at", range(SAVES))
def test_a_script_ends_and_is_continued_when_the_drive_is_back(tmp_path, gone_at):
    drive = Drive(tmp_path)
    with pytest.raises(StoreFullError, match="cannot be reached"):
        compute(drive, RunControl(), gone_at)
    drive.mount()
    assert compute(drive, RunControl(), None).record["status"] == "done"
    assert same(wh.open_heatmap(drive.out), whole())


@pytest.mark.parametrize("gone_at", range(SAVES))
def test_a_drive_that_is_mounted_anew_is_locked_anew(tmp_path, gone_at):
    """The same files, and for the operating system others."""
    drive = Drive(tmp_path)
    mount = drive.mount

    def mount_anew():
        mount()
        shutil.copytree(drive.place, tmp_path / "anew")
        drive.place.rename(tmp_path / "old")
        (tmp_path / "anew").rename(drive.place)

    drive.mount = mount_anew
    control = SomebodyMounts(drive)
    run = compute(drive, control, gone_at)
    assert len(control.reasons) == 1
    assert run.record["status"] == "done"
    assert same(wh.open_heatmap(drive.out), whole())
    assert (
        prepare(noise_slide(90, 130), with_features(), out=drive.out, **SETTINGS).progress.done
        == run.plan.grid.size
    )


def test_once_locked_anew_it_is_ours_alone(tmp_path):
    drive = Drive(tmp_path)
    run = prepare(noise_slide(90, 130), with_features(), out=drive.out, **SETTINGS)
    pieces = run.pieces()
    next(pieces)
    WatchedWriter.latest.save()
    shutil.copytree(drive.out, drive.place / "b.zarr")
    drive.out.rename(drive.place / "old.zarr")
    (drive.place / "b.zarr").rename(drive.out)
    next(pieces)
    WatchedWriter.latest.save()
    with pytest.raises(StoreLockedError, match=f"process {os.getpid()}"):
        StoreLock(drive.out)
    pieces.close()
    StoreLock(drive.out).release()


def test_a_drive_that_comes_back_as_it_was_earlier_is_not_gone_on_with(tmp_path):
    drive = Drive(tmp_path)
    run = prepare(noise_slide(90, 130), with_features(), out=drive.out, **SETTINGS)
    pieces = run.pieces()
    next(pieces)
    WatchedWriter.latest.save()
    shutil.copytree(drive.out, drive.place / "earlier.zarr")
    run.record["reason"] = "something was noted since"
    next(pieces)
    WatchedWriter.latest.save()
    drive.out.rename(drive.place / "lost.zarr")
    (drive.place / "earlier.zarr").rename(drive.out)
    with pytest.raises(StoreFullError, match=r"another folder is there.*then resume it"):
        list(pieces)
    run = compute(drive, RunControl(), None)
    assert same(wh.open_heatmap(drive.out), whole())


def test_another_folder_in_its_place_is_not_written_into(tmp_path):
    drive = Drive(tmp_path)
    run = prepare(noise_slide(90, 130), with_features(), out=drive.out, **SETTINGS)
    pieces = run.pieces()
    next(pieces)
    drive.unmount()
    drive.out.mkdir()
    (drive.out / ".lock").write_text("process 1 on another")
    WatchedWriter.latest.try_to_save()
    with pytest.raises(StoreFullError, match="another folder is there"):
        list(pieces)
    assert [file.name for file in drive.out.iterdir()] == [".lock"]


def test_a_save_that_the_drive_did_not_see_whole_is_saved_again(tmp_path):
    """It goes after the last write of a save: nothing may count as saved."""
    drive = Drive(tmp_path)
    run = prepare(noise_slide(90, 130), with_features(), out=drive.out, **SETTINGS)
    pieces = run.pieces()
    next(pieces)
    writer = WatchedWriter.latest
    write_state = writer._store.write_state

    def write_and_go(box, states):
        write_state(box, states)
        drive.unmount()

    writer._store.write_state = write_and_go
    with pytest.raises(StoreFullError, match="cannot be reached"):
        writer.save()
    writer._store.write_state = write_state
    assert len(run.growing.unsaved) > 0
    drive.mount()
    list(pieces)
    assert same(wh.open_heatmap(drive.out), whole())


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT"])
def test_a_drive_that_does_not_answer_is_not_called_damage(tmp_path, name):
    number = getattr(errno, name)
    told = rf"{os.strerror(number)}.*see that its drive"
    with pytest.raises(StoreFullError, match=told), reading(tmp_path, "the heatmap"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(StoreError, match="damaged"), reading(tmp_path, "the heatmap"):
        raise OSError("no number")


def test_the_command_line_ends_with_1(tmp_path, monkeypatch, capsys):
    path = str(write_tiff(tmp_path / "slide.tif", [noise(300, 400)], mpp=0.5))
    out, rename = str(tmp_path / "a.zarr"), os.replace
    command = ["run", path, "--model=hematoxylin", "--out", out, "--level=0", "--window=32"]
    with monkeypatch.context() as patch:

        def replace(source, target):
            if "/0/c/" in str(target):
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            rename(source, target)

        patch.setattr(os, "replace", replace)
        assert main([*command, "--tissue=none", "--quiet"]) == 1
    told = capsys.readouterr().err.strip()
    assert "Transport endpoint is not connected" in told
    assert len(told.splitlines()) == 1
    assert main(["resume", out, "--quiet"]) == 0
