"""`run SLIDE --model ENCODER --mil CHECKPOINT`, as it is typed."""

from __future__ import annotations

import mil_made
import numpy as np
import pytest
import torch

from made_slides import tissue, write_tiff
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.mil.bags import read_features
from napari_wsi_heatmap.mil.result import open_mil


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A slide, and a checkpoint for the one number that the builtin model gives."""
    monkeypatch.setattr(mil_made, "D", 1)
    slide, checkpoint = tmp_path / "a.tiff", tmp_path / "clam.pt"
    write_tiff(slide, [tissue(300, 400)], mpp=0.5)
    torch.save(mil_made.clam(), checkpoint)
    return slide, checkpoint


def run(capsys, *words):
    code = cli.main(["run", *map(str, words), "--tissue", "none", "--quiet", "--device", "cpu"])
    return code, *capsys.readouterr()


def test_it_says_what_the_model_says(files, tmp_path, capsys):
    slide, checkpoint = files
    out = tmp_path / "a.zarr"
    words = [slide, "--model", "hematoxylin", "--mil", checkpoint, "--out", out, "--window", 64]
    code, said, noted = run(capsys, *words)
    result = open_mil(out)
    assert (code, noted) == (0, "")
    assert f"class {result.prediction} (p_0 = {result.probabilities[0]:.4f}, " in said
    assert f"{len(read_features(out))} patches" in said
    assert str(result.path) in said
    assert cli.main(["info", str(result.path)]) == 0
    shown = capsys.readouterr().out
    assert f"class {result.prediction} (p_0 = " in shown
    assert str(checkpoint) in shown
    code, again, _ = run(capsys, *words)
    assert (code, again) == (0, said)
    assert np.array_equal(open_mil(out).patch_score, result.patch_score)


def test_what_cannot_be_is_one_line(files, tmp_path, capsys):
    slide, checkpoint = files
    two = ["--model", "hematoxylin", "--model", "eosin", "--mil", checkpoint]
    code, _, noted = run(capsys, slide, *two, "--out", tmp_path / "b")
    assert code == 1
    assert "--mil takes one encoder" in noted
    one = ["--model", "hematoxylin", "--mil", tmp_path / "absent.pt", "--out", tmp_path / "b"]
    code, _, noted = run(capsys, slide, *one)
    assert code == 1
    assert noted.count("\n") == 1
    assert "absent.pt" in noted
