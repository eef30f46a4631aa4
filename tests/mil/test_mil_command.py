"""`run SLIDE --model ENCODER --mil CHECKPOINT`, as it is typed; and `resume` of what it left."""

from __future__ import annotations

import mil_made
import numpy as np
import pytest
import torch

from made_slides import tissue, write_tiff
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.mil.bags import read_features
from napari_wsi_heatmap.mil.from_slide import compute_mil, encode, prepare_encoding, prepare_mil
from napari_wsi_heatmap.mil.result import open_mil
from napari_wsi_heatmap.runfolder import read_record


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


def stopped(run, pieces=2):
    """Run a few pieces, then stop as Ctrl-C does."""
    iterator = run.pieces()
    for _ in range(pieces):
        next(iterator)
    iterator.close()


SETTINGS = {"window": 32, "tissue": "none", "device": "cpu", "batch_size": 8}


def resume(capsys, out):
    code = cli.main(["resume", str(out), "--quiet"])
    return code, *capsys.readouterr()


def test_resume_encodes_the_rest_and_scores(files, tmp_path, capsys):
    slide, checkpoint = files
    whole = compute_mil(slide, "hematoxylin", checkpoint, progress=False, **SETTINGS)
    out = tmp_path / "a.zarr"
    stopped(prepare_mil(slide, "hematoxylin", checkpoint, out=out, branch=0, **SETTINGS))
    assert read_record(out)["counts"]["pending"] > 0
    code, said, noted = resume(capsys, out)
    assert (code, noted) == (0, "")
    result = open_mil(out)
    assert f"class {result.prediction} (p_0 = {result.probabilities[0]:.4f}, " in said
    assert np.array_equal(result.patch_score, whole.patch_score)
    assert read_record(out)["status"] == "done"
    code, _, noted = resume(capsys, result.path)
    assert (code, noted.count("\n")) == (1, 1)
    assert "resume the store of its features" in noted
    torch.save({k: 2 * v for k, v in mil_made.clam().items()}, checkpoint)
    code, _, noted = resume(capsys, out)
    assert code == 1
    assert "another one now" in noted
    assert noted.count("\n") == 1


@pytest.mark.parametrize("patch_size", [None, 48])
def test_resume_of_given_windows(files, tmp_path, capsys, patch_size):
    slide, _ = files
    coords = np.random.default_rng(3).integers(0, [250, 350], (40, 2))
    given = (slide, "hematoxylin", coords)
    settings = {"patch_size": patch_size, "window": 32, "device": "cpu", "batch_size": 8}
    whole = encode(*given, **settings)
    out = tmp_path / "a.zarr"
    stopped(prepare_encoding(*given, out, **settings))
    assert len(read_features(out)) < 40
    code, _, noted = resume(capsys, out)
    assert (code, noted) == (0, "")
    found = read_features(out)
    assert np.array_equal(found.features, whole.features)
    assert np.array_equal(found.coords, whole.coords)
    assert found.patch_size == whole.patch_size
