"""Seconds and bytes of whole runs, in their record and while they go on."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_grey, mean_rgb, noise_slide
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.launch import complete, prepare, resume

SETTINGS = {"window": 64, "tissue": "none", "batch_size": 8}
WINDOW = 64 * 64 * 3
SECONDS = {
    "active", "reading", "waiting_for_reading", "copying", "model", "writing",
    "waiting_for_writing",
}  # fmt: skip


def record_of(out):
    return json.loads((out / "run.json").read_text())


def test_a_run_says_where_its_time_and_its_bytes_went(tmp_path):
    out = tmp_path / "a.zarr"
    wh.compute_heatmap(noise_slide(), mean_rgb, out=out, progress=False, **SETTINGS)
    record = record_of(out)
    assert set(record["seconds"]) == SECONDS
    assert all(record["seconds"][name] > 0 for name in ("active", "reading", "model", "writing"))
    assert record["seconds"]["model"] <= record["seconds"]["active"] + 0.001
    batches = -(-150 // 8)
    assert record["bytes"]["copied"] == batches * 8 * WINDOW
    assert record["bytes"]["read"] >= 150 * WINDOW  # windows hang over the slide
    assert record["bytes"]["written"] >= 150 * (3 * 4 + 1)
    assert record["shares"]
    assert isinstance(record["bottleneck"], str)


def test_a_run_in_memory_writes_nothing():
    record = wh.compute_heatmap(noise_slide(), mean_rgb, progress=False, **SETTINGS).run
    assert record["seconds"]["active"] > 0
    assert record["seconds"]["writing"] == record["bytes"]["written"] == 0


def stopped_after(out, batches):
    control = RunControl()
    run = prepare(noise_slide(), mean_grey, out=out, control=control, **SETTINGS)
    for number, _ in enumerate(run.pieces(), start=1):
        if number == batches:
            control.cancel()
    return record_of(out)


def test_sessions_add_up(tmp_path):
    out = tmp_path / "a.zarr"
    first = stopped_after(out, 5)
    assert first["status"] == "paused"
    complete(resume(out, slide=noise_slide(), model=mean_grey), progress=False)
    both = record_of(out)
    assert both["status"] == "done"
    for kind in ("seconds", "bytes"):
        assert all(both[kind][name] >= value for name, value in first[kind].items())
    for name in ("active", "model"):
        assert both["seconds"][name] > first["seconds"][name] > 0
    assert both["bytes"]["copied"] > first["bytes"]["copied"] > 0


def test_a_continuation_with_nothing_left_keeps_what_was_spent(tmp_path):
    out = tmp_path / "a.zarr"
    wh.compute_heatmap(noise_slide(), mean_grey, out=out, progress=False, **SETTINGS)
    before = record_of(out)
    complete(resume(out, slide=noise_slide(), model=mean_grey), progress=False)
    after = record_of(out)
    for name in ("model", "reading"):
        assert after["seconds"][name] == before["seconds"][name]
    assert after["bytes"]["read"] == before["bytes"]["read"]


def test_it_is_on_disk_before_the_end(tmp_path):
    """A run that is killed has told where its time went, up to its last save."""
    out = tmp_path / "a.zarr"
    run = prepare(noise_slide(), mean_grey, out=out, **SETTINGS)
    pieces = run.pieces()
    for _ in range(6):
        next(pieces)
    run.shares[0].output.save()
    assert record_of(out)["status"] == "running"
    assert record_of(out)["seconds"]["active"] > 0
    assert record_of(out)["bytes"]["copied"] > 0
    pieces.close()


def test_pauses_are_not_active_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("napari_wsi_heatmap.engine.time.monotonic", lambda: clock[0])
    control = RunControl()
    monkeypatch.setattr(
        control, "wait_while_paused",
        lambda: (clock.__setitem__(0, clock[0] + 1000), control.resume(), True)[-1],
    )  # fmt: skip
    run = prepare(noise_slide(), mean_grey, control=control, **SETTINGS)
    for number, _ in enumerate(run.pieces()):
        clock[0] += 1
        if number == 4:
            control.pause()
    assert 10 < run.record["seconds"]["active"] < 100


def test_a_slow_model_is_what_takes_the_time(monkeypatch):
    monkeypatch.setattr("napari_wsi_heatmap.timings.SHORTEST_S", 0.0)

    def slow(batch):
        time.sleep(0.02)
        return mean_grey(batch)

    run = prepare(noise_slide(), slow, **SETTINGS)
    complete(run, progress=False)
    assert run.record["bottleneck"].startswith("the model takes ")
    assert "model" in run.progress.shares
    assert run.progress.bottleneck == run.record["bottleneck"]


def test_a_slow_slide_is_what_is_waited_for(monkeypatch):
    monkeypatch.setattr("napari_wsi_heatmap.timings.SHORTEST_S", 0.0)
    slide = FaultySlide(noise_slide())
    read = slide._read

    def slowly(*box):
        time.sleep(0.3)
        return read(*box)

    slide._read = slowly
    run = prepare(slide, mean_grey, readers=1, **SETTINGS)
    complete(run, progress=False)
    assert run.record["bottleneck"].startswith("the model waits ")
    seconds = run.record["seconds"]
    assert seconds["waiting_for_reading"] > seconds["model"]


@pytest.mark.parametrize("spoiled", [{"seconds": {"active": "long"}}, {"bytes": [1, 2]}])
def test_a_record_whose_times_are_none_is_refused_in_a_line(tmp_path, spoiled):
    out = tmp_path / "a.zarr"
    stopped_after(out, 3)
    (out / "run.json").write_text(json.dumps(record_of(out) | spoiled))
    with pytest.raises(StoreError, match="the record of the run is damaged"):
        resume(out, slide=noise_slide(), model=mean_grey)


def test_several_models_have_the_same_seconds(tmp_path):
    run = prepare(noise_slide(), [mean_grey, mean_rgb], out=tmp_path / "a", **SETTINGS)
    complete(run, progress=False)
    one, other = (heatmap.run for heatmap in run.heatmaps)
    assert one["seconds"]["model"] == other["seconds"]["model"] > 0
    assert np.isfinite(one["seconds"]["active"])
