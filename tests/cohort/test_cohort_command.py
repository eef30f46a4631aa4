"""The command ``cohort``, and what may be typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cohort_made import make_bad, make_slides

import napari_wsi_heatmap as wh
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.cohort import cluster

pytest.importorskip("distributed")

LIKE_IT = ["--threads", "--workers", "1", "--window", "128", "--tissue", "none"]


def test_a_cohort_is_run_continued_and_refused(tmp_path, capsys):
    slides = make_slides(tmp_path / "slides", 2)
    arguments = ["cohort", str(slides), "--model", "hematoxylin", "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, *LIKE_IT]) == 0
    out, err = capsys.readouterr()
    assert out.strip().endswith("summary.csv: 2 slides: 2 done, 0 up to date, 0 failed")
    assert "note: scheduler inproc://" in err
    assert "1 worker, 1 thread\n" in err
    make_bad(slides)
    assert cli.main([*arguments, *LIKE_IT, "--quiet"]) == 3
    out, err = capsys.readouterr()
    assert "3 slides: 0 done, 2 up to date, 1 failed" in out
    (line,) = err.strip().splitlines()
    assert line.startswith("error: bad: ")
    assert cli.main([*arguments, *LIKE_IT, "--quiet", "--stride", "64"]) == 1
    assert "begun with another stride" in capsys.readouterr().err
    assert wh.open_heatmap(tmp_path / "out" / "slide0.zarr").run["status"] == "done"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["s"], "one of the arguments --model --config is required"),
        (["s", "--model", "focus", "--config", "c.yaml"], "not allowed with"),
        (["s", "--model", "focus", "--threads", "--processes"], "not allowed with"),
        (["s", "--model", "focus", "--workers", "0"], "is no whole number in 1…10000"),
        (["s", "--model", "focus", "--dashboard-port", "70000"], "in 1…65535"),
        (["s", "--model", "focus", "--bands", "few"], "is no whole number"),
    ],
)
def test_wrong_usage_is_said(arguments, told, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["cohort", *arguments])
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "focus", "--out", "o"], "--model needs SLIDES"),
        (["s", "--model", "focus"], "--model needs --out DIR"),
        (["s", "--config", "gone.yaml"], "gone.yaml"),
        (["nothing.csv", "--model", "focus", "--out", "o"], "the list cannot be read"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["cohort", *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line


def test_no_scheduler_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    slides = make_slides(tmp_path / "slides", 1)
    arguments = [str(slides), "--model", "focus", "--out", str(tmp_path / "out")]
    assert cli.main(["cohort", *arguments, "--scheduler", "tcp://127.0.0.1:1", "--quiet"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no scheduler answers" in line
    assert "tcp://node:8786" in line


def test_the_example_runs(tmp_path):
    example = Path(__file__).parents[2] / "examples" / "cohort.py"
    slides = make_slides(tmp_path / "slides", 2)
    command = [sys.executable, "-W", "error::DeprecationWarning", str(example), str(slides)]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "slide1: 16 windows, 0." in done.stdout
    assert "colours of all slides: " in done.stdout
