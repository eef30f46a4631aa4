"""A configuration over workers leaves what the command ``mil`` leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from pipeline_made import NAMES, make_clam, make_millab

from napari_wsi_heatmap import cli
from napari_wsi_heatmap.cohort.milcohort import config_of, run_config
from napari_wsi_heatmap.cohort.staff import Workplace
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.pipeline import run_config as run_serially

pytest.importorskip("distributed")

THREADS = Workplace(2, processes=False)


def files_of(folder: Path) -> dict[str, bytes]:
    """What is written, but for records that hold times."""
    suffixes = {".csv", ".png", ".h5", ".jpg"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes and path.name != "summary.csv"
    }


def test_features_over_workers_equal_a_serial_run(tmp_path):
    config = make_millab(tmp_path)
    (tmp_path / "slides" / "broken.tif").write_bytes(b"nothing")
    cohort = config_of(config, out=tmp_path / "out")
    found = {facts.slide: facts for facts in run_config(cohort, THREADS)}
    assert set(found) == {*NAMES, "broken"}
    assert "broken.tif" in found["broken"].error
    assert [found[name].windows > 50 for name in NAMES] == [True] * 3
    list(run_serially(read_config(config)))
    assert files_of(tmp_path / "out" / "production") == files_of(tmp_path / "production")
    assert files_of(tmp_path / "out" / "raw") == files_of(tmp_path / "raw")
    with cohort.table.open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert rows["broken"]["status"] == "failed"
    assert rows["tumor_1"]["prediction"] in ("0", "1")
    again = [facts.computed for facts in run_config(cohort, THREADS) if facts.finished]
    assert again == [False] * 3


def test_the_command_encodes_slides_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_clam(tmp_path)
    arguments = ["cohort", "slides", "--config", str(config), "--out", "out", "--threads"]
    assert cli.main([*arguments, "--workers", "2", "--trust", "yes", "--quiet"]) == 0
    assert "2 slides: 2 done, 0 up to date, 0 failed" in capsys.readouterr().out
    assert {p.name for p in Path("out/production").rglob("*_heatmap.jpg")} == {
        "slide_a_heatmap.jpg",
        "slide_b_heatmap.jpg",
    }
    records = [json.loads(p.read_text()) for p in Path("out/raw").rglob("slide_?.json")]
    assert len(records) == 2
