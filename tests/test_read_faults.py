"""Reads that fail here and there, or never come back: what is lost, told, and still works."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise, noise_slide, quarter_means
from napari_wsi_heatmap import progress, record
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import SlideReadError, StoreLockedError
from napari_wsi_heatmap.launch import complete, prepare
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, FAILED, state_of

TILE = 64
SHARE = 0.01
SETTINGS = {"window": 48, "stride": 32, "tissue": "none", "batch_size": 16}


class Patchy:
    """A slide of which one tile in a hundred cannot be read, until it is `healed`."""

    def __init__(self, height=1600, width=2000, seed=0):
        self.pixels, self.healed = noise(height, width), False
        shape = -(-height // TILE), -(-width // TILE)
        self.bad = np.random.default_rng(seed).random(shape) < SHARE
        self.slide = ArraySlide.from_callable(self._read, [(height, width)], mpp=0.5)

    def _read(self, level, y, x, height, width):
        if not self.healed and self.touches(y, x, height, width):
            raise SlideReadError("a tile is damaged", f"{y}, {x}")
        return self.pixels[y : y + height, x : x + width]

    def touches(self, y, x, height, width):
        rows = slice(y // TILE, (y + height - 1) // TILE + 1)
        return self.bad[rows, x // TILE : (x + width - 1) // TILE + 1].any()

    def failing(self, heatmap):
        """(Y, X) bool: windows of which a part, inside the slide, lies on a bad tile."""
        height, width = self.slide.levels[0].shape
        kh, kw = heatmap.grid.spec.footprint
        origins = heatmap.grid.origins(np.arange(heatmap.grid.size)).tolist()
        failing = [self.touches(y, x, min(kh, height - y), min(kw, width - x)) for y, x in origins]
        return np.array(failing).reshape(heatmap.grid.shape)


def compute(slide, model=mean_rgb, **settings):
    return wh.compute_heatmap(slide, model, progress=False, **{**SETTINGS, **settings})


@pytest.mark.parametrize("seed", range(3))
def test_one_percent_of_the_tiles_cannot_be_read(tmp_path, seed):
    patchy, out = Patchy(seed=seed), tmp_path / "a.zarr"
    whole = compute(ArraySlide([patchy.pixels], mpp=0.5))
    heatmap = compute(patchy.slide, out=out)
    failing = patchy.failing(heatmap)
    assert 0 < failing.sum() < failing.size / 5
    assert np.array_equal(state_of(heatmap.state) == FAILED, failing)
    assert np.array_equal(state_of(heatmap.state) == DONE, ~failing)
    assert np.array_equal(heatmap.values[:, ~failing], whole.values[:, ~failing])
    assert np.isnan(heatmap.values[:, failing]).all()
    listed = json.loads((out / "run.json").read_text())["failed"]
    assert listed == [[i, "a tile is damaged"] for i in np.flatnonzero(failing).tolist()]


def test_only_those_are_computed_again(tmp_path):
    patchy, out = Patchy(), tmp_path / "a.zarr"
    first = compute(patchy.slide, out=out)
    patchy.healed = True
    again = wh.resume(out, slide=patchy.slide, model=mean_rgb, again=True)
    index = np.sort(np.concatenate([piece.index for piece in again.pieces()]))
    assert np.array_equal(index, np.flatnonzero(state_of(first.state) == FAILED))
    found = wh.open_heatmap(out)
    assert (found.run["status"], found.run["failed"]) == ("done", [])
    assert np.array_equal(found.values, compute(patchy.slide).values)


def test_a_dense_map_is_that_of_the_windows_that_could_be_read(tmp_path):
    patchy, out = Patchy(400, 500, seed=5), tmp_path / "a.zarr"
    patchy.bad[2, 3] = True
    settings = {"window": 64, "stride": 32}
    heatmap = compute(patchy.slide, quarter_means, out=out, **settings)
    assert np.array_equal(state_of(heatmap.state) == FAILED, patchy.failing(heatmap))
    patchy.healed = True
    resumed = wh.resume(out, slide=patchy.slide, model=quarter_means, again=True)
    whole = compute(patchy.slide, quarter_means, **settings)
    assert np.array_equal(complete(resumed, progress=False).values, whole.values)
    assert np.array_equal(wh.open_heatmap(out).values, whole.values)


# the record


def test_the_record_says_what_became_of_every_window(tmp_path):
    patchy, out = Patchy(), tmp_path / "a.zarr"
    compute(patchy.slide, out=out, roi=(0, 0, 1500, 1000))
    counts = wh.open_heatmap(out).run["counts"]
    kinds = ("done", "background", "outside", "failed")
    assert all(counts[kind] for kind in ("done", "outside", "failed"))
    assert sum(counts[kind] for kind in kinds) == counts["planned"]
    assert counts["pending"] == 0


def test_many_failures_are_counted_and_some_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FAILURES_LISTED", 7)
    out = tmp_path / "a.zarr"
    failed = wh.open_heatmap(compute(Patchy().slide, out=out).path).run
    assert len(failed["failed"]) == 7 < failed["counts"]["failed"]


def test_a_state_that_there_is_not_is_no_success():
    states = np.array([[1, 2, 3, 4, 9]], np.uint8)
    assert record.outcome(states, None, "") == (
        "failed",
        "1 windows have a state that there is not",
    )
    assert record.account(states)["planned"] == 5


@pytest.mark.parametrize("model", [mean_rgb, quarter_means])
def test_a_kill_keeps_what_failed_and_why(tmp_path, monkeypatch, model):
    """The output as a kill would leave it after a save, and then in the middle of a second try."""
    from napari_wsi_heatmap.dense import DenseMap

    monkeypatch.setattr(DenseMap, "chunk", 16)
    patchy, out = Patchy(400, 500, seed=5), tmp_path / "a.zarr"
    patchy.bad[:2, :2] = True
    settings = SETTINGS | {"window": 64}
    run = prepare(patchy.slide, model, out=out, **settings)
    with closing(run.pieces()) as pieces:
        list(itertools.islice(pieces, 9))
        run.shares[0].output.save()
        killed = wh.open_heatmap(out)
    failed = np.flatnonzero(state_of(killed.state) == FAILED).tolist()
    assert failed
    assert killed.run["failed"] == [[i, "a tile is damaged"] for i in failed]
    assert killed.run["counts"]["failed"] == len(failed)
    complete(prepare(patchy.slide, model, out=out, **settings), progress=False)
    patchy.healed = True
    again = prepare(patchy.slide, model, out=out, again=True, **settings)
    again.shares[0].output.open()
    on_disk = wh.open_heatmap(out)  # killed before its first save
    again.shares[0].output.close(None, "interrupted")
    assert not (state_of(on_disk.state) == FAILED).any()
    assert on_disk.run["failed"] == []
    assert on_disk.run["counts"]["pending"] >= len(failed)
    whole = compute(patchy.slide, model, window=64)
    assert np.array_equal(compute(patchy.slide, model, window=64, out=out).values, whole.values)
    assert wh.open_heatmap(out).run["status"] == "done"


# reads that never come back

STALLED = """if True:
    import sys, threading
    sys.path.insert(0, sys.argv[2])
    from made import FaultySlide, mean_rgb, noise_slide
    from napari_wsi_heatmap import progress
    from napari_wsi_heatmap.commands import cancelled_by_ctrl_c
    from napari_wsi_heatmap.launch import complete, prepare
    progress.STALLED_S, progress.TELL_S = 0.2, 0.05
    slide = FaultySlide(noise_slide())
    run = prepare(slide, mean_rgb, out=sys.argv[1], window=48, tissue="none", batch_size=16)
    slide.gate.clear()
    with cancelled_by_ctrl_c(run.control):
        complete(run)
    print(run.record["reason"], flush=True)
"""


def test_who_waits_for_a_read_is_told_and_can_cancel(tmp_path):
    tests, out = str(Path(__file__).parent), tmp_path / "a.zarr"
    command = [sys.executable, "-c", STALLED, out, tests]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen = b""
        while b"waiting for the slide: a read has taken" not in seen:
            seen += process.stderr.read(1) or pytest.fail(f"it ended too early: {seen}")
        with pytest.raises(StoreLockedError, match=f"process {process.pid} on .* is writing here"):
            compute(FaultySlide(noise_slide()), out=out, stride=48)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)  # the read never returns
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (0, b"cancelled\n")
    assert wh.open_heatmap(out).run["status"] == "paused"


def test_progress_says_how_long_a_read_is_waited_for(monkeypatch):
    monkeypatch.setattr(progress, "STALLED_S", 0.1)
    slide, control = FaultySlide(noise_slide()), RunControl()
    run = prepare(slide, mean_rgb, control=control, **SETTINGS)
    assert (run.progress.waiting_s, run.notice) == (0, "")
    slide.gate.clear()
    working = threading.Thread(target=list, args=[run.pieces()])
    working.start()
    while not run.notice:
        working.join(0.01)
        assert working.is_alive()
    assert run.progress.waiting_s > 0.1
    assert "waiting for the slide" in run.notice
    control.cancel()
    working.join(30)
    assert not working.is_alive()
    slide.gate.set()
