"""Runs with model files, from the command line: consent, resuming, and what a record keeps."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made_files import small, write_program, write_safetensors, write_script
from made_slides import strided, tissue, write_aperio
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.errors import ModelLoadError, PlanMismatchError, UntrustedModelError
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.models.trust import forget

RUN = ["--tissue", "none", "--level", "0", "--window", "32", "--batch-size", "8"]
SETTINGS = {"tissue": "none", "level": 0, "window": 32, "batch_size": 8}


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    levels = strided(tissue(300, 400), 4)
    return str(write_aperio(tmp_path_factory.mktemp("slides") / "a.svs", levels))


@pytest.fixture
def script(tmp_path):
    return write_script(tmp_path / "net.pt", small())


@pytest.fixture
def sha256(script):
    return hashlib.sha256(script.read_bytes()).hexdigest()


def call(*words):
    return cli.main([*map(str, words), "--quiet"])


def begun(slide, model, out, **settings):
    """Compute one piece of a run, and leave it."""
    run = prepare(slide, model, out=out, **SETTINGS, **settings)
    pieces = run.pieces()
    next(pieces)
    pieces.close()
    assert wh.open_heatmap(out).run["counts"]["pending"]


def test_without_consent_the_line_says_what_to_type(slide_path, script, sha256, tmp_path, capsys):
    out = tmp_path / "a.zarr"
    assert call("run", slide_path, "--model", script, "--out", out, *RUN) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert sha256 in told
    assert "--trust" in told
    assert not out.exists()


@pytest.mark.parametrize("given", ["yes", "sha256", "two"])
def test_with_consent_it_runs(slide_path, script, sha256, tmp_path, given):
    trust = {"sha256": sha256.upper(), "two": f"{'0' * 64},{sha256}"}.get(given, given)
    out = tmp_path / "a.zarr"
    assert call("run", slide_path, "--model", script, "--out", out, "--trust", trust, *RUN) == 0
    heatmap = wh.open_heatmap(out)
    assert heatmap.run["model"]["name"] == "net"
    assert heatmap.run["model"]["spec"]["path"] == str(script)
    in_python = wh.compute_heatmap(slide_path, small(), progress=False, **SETTINGS)
    np.testing.assert_allclose(heatmap.values, in_python.values, rtol=0, atol=1e-6)


def test_a_run_is_resumed_by_the_remembered_consent(slide_path, script, sha256, tmp_path, capsys):
    out, whole = tmp_path / "a.zarr", tmp_path / "whole.zarr"
    options = {"activation": "softmax", "names": ["a", "b"]}
    model = wh.load_model(script, trust=sha256, **options)
    begun(slide_path, model, out)
    wh.compute_heatmap(slide_path, model, out=whole, progress=False, **SETTINGS)
    forget(sha256)
    assert call("resume", out) == 1
    assert sha256 in capsys.readouterr().err
    assert call("resume", out, "--trust", sha256) == 0
    heatmap = wh.open_heatmap(out)
    assert heatmap.names == ("a", "b")
    np.testing.assert_array_equal(heatmap.values, wh.open_heatmap(whole).values)


def test_an_exported_program_is_resumed(slide_path, tmp_path):
    path, out = write_program(tmp_path / "net.pt2", small(), batch=8), tmp_path / "a.zarr"
    begun(slide_path, path, out, trust=True)
    assert call("resume", out) == 0
    assert wh.open_heatmap(out).run["status"] == "done"


def test_a_file_that_changed_is_not_what_the_run_began_with(slide_path, script, tmp_path):
    out = tmp_path / "a.zarr"
    begun(slide_path, script, out, trust=True)
    write_script(script, small(1))
    with pytest.raises(UntrustedModelError):
        wh.resume(out)
    with pytest.raises(PlanMismatchError, match="model"):
        wh.resume(out, trust=True)


def test_a_file_that_moved_is_handed_over_again(slide_path, script, tmp_path):
    out = tmp_path / "a.zarr"
    begun(slide_path, wh.load_model(script, trust=True, activation="softmax"), out)
    moved = shutil.move(script, tmp_path / "moved.pt")
    with pytest.raises(ModelLoadError, match="no such model file"):
        wh.resume(out)
    for _ in wh.resume(out, model=moved).pieces():
        pass
    assert wh.open_heatmap(out).run["status"] == "done"


def test_two_files_in_one_run_are_resumed(slide_path, script, tmp_path):
    other = write_script(tmp_path / "other.pt", small(1))
    out = tmp_path / "both"
    words = ["--model", script, "--model", other, "--out", out, "--trust", "yes"]
    assert call("run", slide_path, *words, *RUN) == 0
    assert call("resume", out) == 0
    assert {p.name for p in out.glob("*.zarr")} == {"net.zarr", "other.zarr"}


def test_a_record_gives_no_consent(slide_path, script, sha256, tmp_path):
    """Whoever sends a heatmap cannot make its receiver run code."""
    out = tmp_path / "a.zarr"
    begun(slide_path, script, out, trust=True)
    forget(sha256)
    record = json.loads((out / "run.json").read_text())
    for planted in ({"trust": True}, {"trust": sha256}, {"weights": str(script)}):
        changed = record["model"] | {"spec": record["model"]["spec"] | planted}
        (out / "run.json").write_text(json.dumps(record | {"model": changed}))
        with pytest.raises(ModelLoadError):
            wh.resume(out)


def test_weights_say_which_option_is_missing(slide_path, tmp_path, capsys):
    path = write_safetensors(tmp_path / "a.safetensors", small())
    assert call("run", slide_path, "--model", path, "--out", tmp_path / "a.zarr", *RUN) == 1
    assert "arch" in capsys.readouterr().err
    words = ["--model", "tissue", "--arch", "resnet18", "--out", tmp_path / "a.zarr"]
    assert call("run", slide_path, *words, *RUN) == 1
    assert "belongs to a file of weights" in capsys.readouterr().err
