"""What arises during a run is told when it ends: by the command line, and to scripts."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide
from napari_wsi_heatmap.commands import finish
from napari_wsi_heatmap.console import DONE
from napari_wsi_heatmap.errors import ModelRunError
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.states import DONE as WINDOW_DONE
from napari_wsi_heatmap.states import FAILED, NOT_FINITE

SETTINGS = {"window": 64, "tissue": "none", "batch_size": 16}
TRIED = 6
"""Calls of a dry run whose batch size is given."""


class Short:
    """Means of the colours; out of memory once beyond the dry run, or for ever if `most` is 1."""

    def __init__(self, most=4):
        self.most, self.calls = most, 0

    def __call__(self, batch):
        self.calls += 1
        if self.calls > TRIED and len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return mean_rgb(batch)


def spotted(batch):
    """Means of the colours; of bright windows none that is a number."""
    values = mean_rgb(batch)
    values[values[:, 0] > 0.5] = np.nan
    return values


def spots(slide, index):
    """How many windows `spotted` gives no number for."""
    heatmap = wh.compute_heatmap(slide, mean_rgb, progress=False, **SETTINGS)
    return int((heatmap.values[0].ravel()[index] > 0.5).sum())


def lines_of(text):
    return [line for line in text.splitlines() if line and "win/s" not in line]


def test_batches_that_were_halved_are_told_at_the_end(tmp_path, capsys):
    run = prepare(noise_slide(), Short(), out=tmp_path / "a.zarr", **SETTINGS)
    assert finish(run, quiet=False) == DONE
    told = [line for line in lines_of(capsys.readouterr().err) if "memory ran out" in line]
    assert [("holds 8 windows" in line, "holds 4 windows" in line) for line in told] == [
        (True, False), (False, True),
    ]  # fmt: skip


def test_they_are_told_too_if_the_run_fails_later(tmp_path, capsys):
    run = prepare(noise_slide(), Short(most=1), out=tmp_path / "a.zarr", **SETTINGS)
    with pytest.raises(ModelRunError):
        finish(run, quiet=False)
    assert len([x for x in lines_of(capsys.readouterr().err) if "memory ran out" in x]) <= 3


def test_quiet_tells_nothing_but_the_result(tmp_path, capsys):
    run = prepare(noise_slide(), Short(), out=tmp_path / "a.zarr", **SETTINGS)
    finish(run, quiet=True)
    assert capsys.readouterr().err == ""


def test_what_the_plan_says_is_told_once(tmp_path, capsys):
    run = prepare(noise_slide(), mean_rgb, out=tmp_path / "a.zarr", **(SETTINGS | {"window": 700}))
    assert run.record["notices"]
    finish(run, quiet=False)
    err = capsys.readouterr().err
    assert [err.count(notice) for notice in run.record["notices"]] == [1]


def test_windows_saved_damaged_are_told(tmp_path, capsys):
    out = tmp_path / "a.zarr"
    finish(prepare(noise_slide(), mean_rgb, out=out, **SETTINGS), quiet=True)
    for chunk in (out / "0").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"\0" + chunk.read_bytes()[1:])
    finish(prepare(noise_slide(), mean_rgb, out=out, **SETTINGS), quiet=False)
    assert "150 windows were saved damaged: computed again" in capsys.readouterr().err


def test_values_that_are_not_finite_are_counted_and_told(tmp_path, capsys):
    run = prepare(noise_slide(), spotted, out=tmp_path / "a.zarr", **SETTINGS)
    number = spots(noise_slide(), slice(None))
    assert 1 < number < 150
    assert finish(run, quiet=False) == DONE
    assert f"{number} windows have values that are not finite" in capsys.readouterr().err
    record = json.loads((tmp_path / "a.zarr" / "run.json").read_text())
    assert record["counts"]["not_finite"] == number


def test_what_limits_a_run_is_told_at_its_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("napari_wsi_heatmap.timings.SHORTEST_S", 0.0)
    monkeypatch.setattr("napari_wsi_heatmap.timings.MOST", 0.0)
    run = prepare(noise_slide(), mean_rgb, out=tmp_path / "a.zarr", **SETTINGS)
    finish(run, quiet=False)
    err = capsys.readouterr().err
    record = json.loads((tmp_path / "a.zarr" / "run.json").read_text())
    assert "% of the time" in record["bottleneck"]
    assert err.count(record["bottleneck"]) == 1


# scripts


def logged(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def computed(tmp_path, model, slide):
    wh.compute_heatmap(slide, model, progress=False, **SETTINGS)


def iterated(tmp_path, model, slide):
    for _ in wh.run(slide, model, **SETTINGS):
        pass


def listed(tmp_path, model, slide):
    coords = np.stack(np.mgrid[0:576:64, 0:896:64], -1).reshape(-1, 2)
    settings = {name: value for name, value in SETTINGS.items() if name != "tissue"}
    wh.predict_windows(slide, model, coords, **settings)


WAYS = [computed, iterated, listed]


@pytest.mark.parametrize("way", WAYS)
def test_scripts_are_told_by_the_log(tmp_path, caplog, way):
    way(tmp_path, Short(), noise_slide())
    told = [line for line in logged(caplog) if "memory ran out" in line]
    assert len(told) == 2
    assert all(line.startswith("noise: ") for line in told)


@pytest.mark.parametrize("way", WAYS)
def test_scripts_are_told_of_windows_without_values(tmp_path, caplog, way):
    way(tmp_path, spotted, FaultySlide(noise_slide(), bad=[(100, 100)]))
    told = logged(caplog)
    assert "noise: 1 window could not be read" in told
    assert [line for line in told if line.endswith("windows have values that are not finite")]


@pytest.mark.parametrize("way", WAYS)
def test_scripts_are_told_nothing_where_there_is_nothing(tmp_path, caplog, way):
    way(tmp_path, mean_rgb, noise_slide())
    assert logged(caplog) == []


# lists of windows


def saved(tmp_path, model, slide=None, coords=None):
    if coords is None:
        coords = np.stack(np.mgrid[0:576:64, 0:896:64], -1).reshape(-1, 2)
    out = tmp_path / "list.zarr"
    wh.predict_windows(slide or noise_slide(), model, coords, out=out, window=64, batch_size=16)
    return wh.open_heatmap(out)


def accounted(counts):
    return sum(counts[name] for name in ("done", "background", "outside", "failed"))


def test_a_list_accounts_for_its_windows(tmp_path):
    slide = FaultySlide(noise_slide(), bad=[(100, 100)])
    heatmap = saved(tmp_path, spotted, slide)
    counts, state = heatmap.run["counts"], heatmap.state
    assert counts["planned"] == accounted(counts) == 126
    assert counts["failed"] == 1
    assert counts["pending"] == 0
    assert counts["not_finite"] == int((state == WINDOW_DONE | NOT_FINITE).sum()) > 1
    failed = int(np.flatnonzero(state == FAILED)[0])
    assert heatmap.run["failed"] == [[failed, "a tile is damaged"]]
    assert heatmap.run["status"] == "done-with-failures"
    assert heatmap.run["reason"] == "1 window could not be read"


def test_a_list_says_where_its_time_went(tmp_path):
    record = saved(tmp_path, mean_rgb).run
    assert set(record["seconds"]) >= {"active", "reading", "waiting_for_reading", "model"}
    assert record["seconds"]["active"] > 0
    assert record["bytes"]["copied"] == 8 * 16 * 64 * 64 * 3
    assert record["bytes"]["read"] >= 576 * 896 * 3


def test_a_list_records_what_was_halved(tmp_path):
    record = saved(tmp_path, Short()).run
    assert [(h["from"], h["to"]) for h in record["halved"]] == [(16, 8), (8, 4)]
    assert len([n for n in record["notices"] if "memory ran out" in n]) == 2
    assert record["batch_size"]["used"] == 16


def test_an_empty_list_is_done(tmp_path):
    record = saved(tmp_path, mean_rgb, coords=np.zeros((0, 2))).run
    assert (record["status"], record["counts"]["planned"]) == ("done", 0)
