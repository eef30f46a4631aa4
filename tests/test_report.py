"""What a record says in plain lines, and `info` of a heatmap."""

from __future__ import annotations

import json

import pytest

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.report import (
    all_notices,
    duration,
    failed_line,
    not_finite_line,
    record_lines,
    windows,
)

COUNTS = {"planned": 20, "done": 12, "background": 3, "outside": 4, "failed": 1, "pending": 0}
RECORD = {
    "status": "done-with-failures",
    "reason": "1 window could not be read",
    "slide": {"name": "a.svs", "path": "/slides/a.svs"},
    "model": {"name": "hematoxylin", "names": ["value"]},
    "counts": COUNTS | {"not_finite": 0},
    "notices": ["memory ran out", "a < b"],
    "seconds": {"active": 83.2, "model": 60.0},
    "bytes": {"read": 1234567, "copied": 999, "written": 0},
    "shares": "reading 12 % · model 80 %",
    "bottleneck": "the model takes 80 % of the time",
}


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 windows"), (1, "1 window"), (12345, "12,345 windows")]
)
def test_windows_are_counted(number, text):
    assert windows(number) == text


def test_what_went_wrong_with_windows():
    counts = {"failed": 1, "not_finite": 12}
    assert failed_line(counts) == "1 window could not be read"
    assert not_finite_line(counts) == "12 windows have values that are not finite"
    assert not_finite_line({"not_finite": 1}) == "1 window has values that are not finite"
    assert failed_line({"failed": 0}) == not_finite_line({"not_finite": 0}) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.4, "59 s"),
                          (200, "3 min 20 s"), (3900, "1 h 5 min")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_notices_of_several_models_are_told_once():
    records = [{"notices": ["a", "b"]}, {"notices": ["b", "c", "a"]}]
    assert all_notices(records) == ["a", "b", "c"]


def test_a_record_in_lines():
    assert list(record_lines(RECORD)) == [
        "hematoxylin on a.svs",
        "  status      done-with-failures: 1 window could not be read",
        "  slide       /slides/a.svs",
        "  windows     12 done, 3 background, 4 outside, 1 failed",
        "  outputs     value",
        "  time        1 min 23 s: reading 12 % · model 80 %",
        "  pixels      1.23 MB read, 999 bytes copied, 0 bytes written",
        "  limit       the model takes 80 % of the time",
        "  notices     memory ran out",
        "              a < b",
    ]


def test_a_record_of_before_says_what_it_knows():
    new = ("bytes", "shares", "bottleneck", "notices")
    lines = list(record_lines({k: v for k, v in RECORD.items() if k not in new}))
    assert lines[-1] == "  time        1 min 23 s"
    assert list(record_lines(RECORD | {"seconds": {}, "bytes": {}, "bottleneck": ""}))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "a.zarr"
    wh.compute_heatmap(noise_slide(), mean_rgb, window=64, tissue="none", out=path, progress=False)
    return path


def test_info_of_a_heatmap_tells_people(out, capsys):
    assert cli.main(["info", str(out)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("mean_rgb on noise\n")
    for text in ("status      done", "150 done", " read, ", " copied, ", " written"):
        assert text in told


def test_info_of_a_heatmap_tells_programs(out, capsys):
    assert cli.main(["info", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "run.json").read_text())


def test_info_of_a_damaged_heatmap_is_one_line(tmp_path, capsys):
    (tmp_path / "run.json").write_text(
        json.dumps({"format": "napari-wsi-heatmap", "format_version": 1, "model": [1]})
    )
    assert cli.main(["info", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "is damaged" in err
    assert err.count("\n") == 1
