"""The command line: what it does, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import napari_wsi_heatmap as wh
from made import mean_rgb
from made_slides import smash_tile, strided, tissue, write_aperio, write_tiff
from napari_wsi_heatmap import cli, commands
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.exports import FORMATS
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.models import BUILTIN
from napari_wsi_heatmap.settings import RunSettings

RUN = ["--model", "hematoxylin", "--tissue", "none"]
SMALL = [*RUN, "--roi", "0,0,200,200"]
PROGRAM = [sys.executable, "-c", "import sys\nfrom napari_wsi_heatmap.cli import main\n"
           "sys.exit(main())"]  # fmt: skip


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    """A calibrated slide of two levels."""
    levels = strided(tissue(700, 900), 4)
    return str(write_aperio(tmp_path_factory.mktemp("slides") / "a slide.svs", levels))


@pytest.fixture(scope="module")
def store(slide_path, tmp_path_factory):
    """A finished run over it."""
    out = tmp_path_factory.mktemp("stores") / "a.zarr"
    assert cli.main(["run", slide_path, *RUN, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def call(capsys):
    """Run a command; give its exit code, stdout and stderr without the progress bar."""

    def calling(*words):
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line and "win/s" not in line]
        return code, out, "\n".join(lines)

    return calling


@pytest.fixture
def fails(call):
    """Run a command that must end with one line on stderr, and give that line."""

    def failing(*words):
        code, out, err = call(*words)
        assert code == 1
        assert out == ""
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        return err

    return failing


def test_the_program_is_installed_as_what_is_tested():
    (script,) = entry_points(group="console_scripts", name="napari-wsi-heatmap")
    assert script.load() is cli.main


# info


def test_info_tells_people(call, slide_path):
    code, out, err = call("info", slide_path)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "a slide.svs"
    for text in (
        "format      aperio",
        "compression JPEG",
        "read by     ",
        "700 × 900 px",
        "0.5 µm (the file's properties), objective 20x",
        "no ICC profile",
        "0: 700 × 900, downsample 1, tiles 256 × 256",
        "1: 175 × 225, downsample 4",
        "all of it",
    ):
        assert text in out


def test_info_tells_programs(call, slide_path):
    code, out, _ = call("info", slide_path, "--json")
    told = json.loads(out)
    assert code == 0
    with wh.open_slide(slide_path) as slide:
        assert told["levels"][1]["shape"] == list(slide.levels[1].shape)
        assert told["mpp"] == list(slide.mpp) == [0.5, 0.5]
        assert told["bounds"] == list(slide.bounds)
        assert told["fingerprint"] == slide.fingerprint
        assert told["warnings"] == list(slide.warnings)


def test_info_says_what_is_wrong_with_a_slide(call, tmp_path):
    path = write_tiff(tmp_path / "plain.tif", [tissue(300, 300)], mpp=None)
    code, out, _ = call("info", path)
    assert code == 0
    assert "not known" in out


# run


@pytest.mark.parametrize("model", list(BUILTIN))
def test_run_computes_what_the_console_computes(call, slide_path, tmp_path, model):
    out = tmp_path / "a.zarr"
    options = ["--stride", "50", "--tissue", "none"]
    code, said, _ = call("run", slide_path, "--model", model, *options, "--out", out)
    assert code == 0
    saved = wh.open_heatmap(out)
    assert f"{saved.run['counts']['done']} windows done, 0 failed" in said
    with wh.open_slide(slide_path) as slide:
        direct = wh.compute_heatmap(slide, model, stride=50, tissue="none", progress=False)
    np.testing.assert_array_equal(saved.values.view(np.uint32), direct.values.view(np.uint32))
    np.testing.assert_array_equal(saved.state, direct.state)
    assert saved.run["plan"] == direct.run["plan"]


def test_what_is_typed_reaches_the_run(call, slide_path, tmp_path):
    out = tmp_path / "a.zarr"
    typed = {
        "window": "80,96", "stride": "40", "mpp": "0.75", "edge": "flush", "tissue": "none",
        "tissue-min": "centre", "roi": "10,20,400,500.5", "device": "cpu", "batch-size": "8",
        "precision": "float32", "resize": "torch", "readers": "1", "memory": "64",
        "order": "viewport", "blend": "last",
    }  # fmt: skip
    options = [word for name, value in typed.items() for word in (f"--{name}", value)]
    code, _, _ = call("run", slide_path, "--model", "eosin", *options, "--out", out)
    assert code == 0
    told = wh.open_heatmap(out).run
    assert told["model"]["name"] == "eosin"
    assert told["settings"] == {
        "window": [80, 96], "stride": [40, 40], "mpp": 0.75, "level": None, "edge": "flush",
        "tissue": "none", "tissue_min": "centre", "roi": [10, 20, 400, 500.5], "device": "cpu",
        "batch_size": 8, "precision": "float32", "resize": "torch", "readers": 1, "memory": 64,
        "order": "viewport", "icc": False, "compile": False, "blend": "last",
        "disagreement": False,
    }  # fmt: skip


def test_a_level_is_read_as_it_is(call, slide_path, tmp_path):
    assert call("run", slide_path, *RUN, "--level", "1", "--out", tmp_path / "a.zarr")[0] == 0
    assert wh.open_heatmap(tmp_path / "a.zarr").grid.spec.level == 1


def test_what_is_not_typed_has_the_defaults_of_the_settings():
    args = cli.make_parser().parse_args(["run", "a.svs", "--model", "m", "--out", "o"])
    assert RunSettings.of(cli._settings(args)) == RunSettings()


def test_every_setting_can_be_typed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    for name in RunSettings.__dataclass_fields__:
        assert name == "viewport" or f"--{name.replace('_', '-')} " in text
    assert "(default: pad)" in text
    assert "0.1)" in text


def test_notes_of_plan_and_slide_go_to_stderr(call, slide_path, tmp_path):
    options = ["--window", "800", "--batch-size", "2", "--out", tmp_path / "a.zarr"]
    code, _, err = call("run", slide_path, *RUN, *options)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "larger than the slide" in line]
    assert line.startswith("note: ")


def test_quiet_says_nothing_but_the_result(slide_path, tmp_path, capsys):
    options = ["--model", "hematoxylin", "--roi", "0,0,200,200", "--out", str(tmp_path / "a.zarr")]
    assert cli.main(["run", slide_path, *options, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1


def test_the_same_run_again_has_nothing_left_to_do(call, slide_path, store):
    before = wh.open_heatmap(store)
    code, said, _ = call("run", slide_path, *RUN, "--out", store)
    assert code == 0
    assert f"{before.grid.size} windows done" in said
    assert call("resume", store)[0] == 0
    np.testing.assert_array_equal(wh.open_heatmap(store).values, before.values)


# wrong usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mpp", "1", "--level", "0"], "not allowed with"),
        (["--window", "0"], "'0' is no whole number above 0"),
        (["--window", "1,2,3"], "neither PX nor H,W"),
        (["--stride", "x"], "no whole number"),
        (["--roi", "1,2,3"], "not Y0,X0,Y1,X1"),
        (["--roi", "9,9,1,1"], "empty"),
        (["--mpp", "0"], "no number above 0"),
        (["--mpp", "nan"], "no number above 0"),
        (["--level", "-1"], "no whole number"),
        (["--edge", "nope"], "invalid choice"),
        (["--tissue", "nope"], "choose one of otsu[:T], none, variance[:T]"),
        (["--tissue-min", "2"], "share"),
        (["--batch-size", "1"], "at least 2"),
        (["--memory", "0"], "above 0"),
        (["--trust", "perhaps"], "sha256"),
        (["--nope"], "unrecognized"),
    ],
)
def test_wrong_usage_is_2(capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "a.svs", "--model", "hematoxylin", "--out", "a.zarr", *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["nope"], ["run", "a.svs"], ["export", "a.zarr"]])
def test_incomplete_commands_are_2(capsys, words):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"napari-wsi-heatmap {wh.__version__}\n"


# bad input: one line each, and nothing lost


def test_a_slide_that_is_not_there(fails, tmp_path):
    for command in (["info"], ["run", *RUN, "--out", tmp_path / "a.zarr"]):
        assert "no such file" in fails(*command, tmp_path / "none.svs")
    assert not list(tmp_path.iterdir())


def test_a_slide_that_cannot_be_read(fails, tmp_path):
    path = tmp_path / "junk.svs"
    path.write_bytes(bytes(range(256)) * 50)
    fails("run", path, *RUN, "--out", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_no_pixel_size_where_one_is_needed(fails, tmp_path):
    path = write_tiff(tmp_path / "plain.tif", [tissue(300, 300)], mpp=None)
    line = fails("run", path, *RUN, "--out", tmp_path / "a.zarr")
    assert "µm per pixel" in line
    assert "level" in line
    assert (
        cli.main(["run", str(path), *RUN, "--level", "0", "--out", str(tmp_path / "b.zarr")]) == 0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "5000", "--edge", "drop"], "no window of 5000 x 5000 px fits"),
        (["--level", "7"], "no level 7"),
        (["--device", "cuda:99"], "no device 'cuda:99'"),
        (["--roi", "9000,9000,9100,9100"], "no window is left"),
    ],
)
def test_runs_that_cannot_be(fails, slide_path, tmp_path, options, message):
    assert message in fails("run", slide_path, *RUN, *options, "--out", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_no_such_model_names_the_nearest(fails, slide_path, tmp_path):
    line = fails("run", slide_path, "--model", "hematoxilin", "--out", tmp_path / "a.zarr")
    assert "did you mean 'hematoxylin'" in line


def test_an_output_that_cannot_be_written(fails, slide_path, tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    assert "cannot write" in fails("run", slide_path, *SMALL, "--out", file / "a.zarr")
    assert file.read_text() == "precious"


def test_an_output_that_is_something_else(fails, slide_path, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    assert "something else" in fails("run", slide_path, *SMALL, "--out", tmp_path)
    assert "there is a file" in fails("run", slide_path, *SMALL, "--out", tmp_path / "notes.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_an_output_of_another_run(fails, slide_path, store):
    before = wh.open_heatmap(store).values
    line = fails("run", slide_path, *RUN, "--stride", "32", "--out", store)
    assert "stride" in line
    np.testing.assert_array_equal(wh.open_heatmap(store).values, before)


def test_an_output_that_somebody_writes(fails, slide_path, store):
    lock = StoreLock(store)
    try:
        assert "is writing here" in fails("run", slide_path, *RUN, "--out", store)
    finally:
        lock.release()


def test_nothing_to_resume_or_export(fails, tmp_path):
    assert "no heatmap" in fails("resume", tmp_path)
    assert "no heatmap" in fails("export", tmp_path, tmp_path / "a.csv")


def test_a_slide_that_has_gone_cannot_be_resumed(fails, slide_path, tmp_path):
    copy = Path(shutil.copy(slide_path, tmp_path / "copy.svs"))
    assert cli.main(["run", str(copy), *SMALL, "--out", str(tmp_path / "a.zarr")]) == 0
    copy.unlink()
    assert "no such file" in fails("resume", tmp_path / "a.zarr")


def test_an_unexpected_error_is_one_line_too(fails, slide_path, monkeypatch, capsys):
    def broken(_args):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(commands, "info", broken)
    line = fails("info", slide_path)
    assert "ZeroDivisionError: two lines" in line
    assert "--debug" in line
    assert cli.main(["info", slide_path, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


# windows that cannot be read


@pytest.fixture
def damaged(tmp_path):
    """A slide with one tile that cannot be decoded."""
    path = write_tiff(tmp_path / "damaged.tif", [tissue(700, 900)], mpp=0.5)
    smash_tile(path, 5)
    return path


def test_failed_windows_are_3_and_can_be_tried_again(call, damaged, tmp_path):
    out = tmp_path / "a.zarr"
    code, said, err = call("run", damaged, *RUN, "--out", out)
    assert code == 3
    failed = wh.open_heatmap(out).run["counts"]["failed"]
    assert failed > 0
    assert f"{failed} failed" in said
    assert "resume" in err
    assert "--failed" in err
    assert call("resume", out)[0] == 3
    assert call("resume", out, "--failed")[0] == 3
    assert wh.open_heatmap(out).run["counts"]["failed"] == failed
    assert call("export", out, tmp_path / "a.csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == wh.open_heatmap(out).grid.size - failed
    assert call("export", out, tmp_path / "a.png")[0] == 0


# several models


TWO = ["--model", "hematoxylin", "--model", "eosin", "--tissue", "none"]


@pytest.fixture(scope="module")
def folder(slide_path, tmp_path_factory):
    """A finished run of two models."""
    out = tmp_path_factory.mktemp("stores") / "two models"
    assert cli.main(["run", slide_path, *TWO, "--out", str(out), "--quiet"]) == 0
    return out


def test_several_models_have_a_store_each(call, slide_path, folder, store):
    code, said, _ = call("run", slide_path, *TWO, "--out", folder)  # of the same run: continued
    assert code == 0
    windows = wh.open_heatmap(store).grid.size
    assert said.splitlines() == [
        f"'{folder}/{name}.zarr': {windows} windows done, 0 failed"
        for name in ("hematoxylin", "eosin")
    ]
    found = wh.open_heatmap(folder / "hematoxylin.zarr")
    np.testing.assert_array_equal(found.values, wh.open_heatmap(store).values)


def test_info_of_several_is_a_block_each(call, folder, store):
    code, said, _ = call("info", folder)
    assert code == 0
    heads = [line for line in said.splitlines() if not line.startswith(" ")]
    assert heads == ["hematoxylin on a slide.svs", "eosin on a slide.svs"]
    told = json.loads(call("info", folder, "--json")[1])
    assert [record["model"]["name"] for record in told] == ["hematoxylin", "eosin"]
    assert json.loads(call("info", store, "--json")[1])["model"]["name"] == "hematoxylin"


def test_failed_windows_of_several_are_3_and_tried_again_together(call, damaged, tmp_path):
    out = tmp_path / "two"
    code, _, err = call("run", damaged, *TWO, "--out", out)
    assert code == 3
    failed = wh.open_heatmap(out / "eosin.zarr").run["counts"]["failed"]
    assert failed > 0
    notes = [line for line in err.splitlines() if "could not be read" in line]
    assert notes == [
        f"note: {name}: {failed} windows could not be read" for name in ("hematoxylin", "eosin")
    ]
    last = f"note: try them again with: napari-wsi-heatmap resume {out} --failed"
    assert err.splitlines()[-1] == last
    assert call("resume", out, "--failed")[0] == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_several_models_interrupted_are_resumed_by_their_folder(call, tmp_path, slide_path):
    out, options = tmp_path / "a b", [*TWO, "--stride", "6", "--batch-size", "2"]
    command = [*PROGRAM, "run", slide_path, *options, "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        seen = b""
        while b"win/s" not in seen:
            seen += process.stderr.read(1) or pytest.fail(f"it ended too early: {seen}")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1].decode().splitlines()
    assert process.returncode == 130
    assert [line.split(": ")[1] for line in rest[-3:-1]] == ["hematoxylin", "eosin"]
    assert rest[-1] == f"note: continue with: napari-wsi-heatmap resume '{out}'"
    code, said, _ = call("resume", out)
    assert code == 0
    assert len(said.splitlines()) == 2
    for name in ("hematoxylin", "eosin"):
        told = wh.open_heatmap(out / f"{name}.zarr").run
        assert (told["status"], told["counts"]["pending"]) == ("done", 0)


def test_several_models_interrupted_at_once_name_their_folder(call, folder, monkeypatch):
    def interrupted(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "resume", interrupted)
    _, _, err = call("resume", folder)
    assert err == f"note: interrupted; continue with: napari-wsi-heatmap resume '{folder}'"
    assert call("resume", folder.parent.parent)[2] == "note: interrupted"


def test_one_of_several_is_exported(fails, call, folder, tmp_path):
    line = fails("export", folder, tmp_path / "a.csv")
    assert "there are 2 heatmaps" in line
    assert "hematoxylin.zarr, eosin.zarr" in line
    assert call("export", folder / "eosin.zarr", tmp_path / "a.csv")[0] == 0


def test_one_models_store_is_no_folder_for_several(fails, slide_path, store, folder):
    assert "the output of one model" in fails("run", slide_path, *TWO, "--out", store)
    assert "something else" in fails("run", slide_path, *RUN, "--out", folder)


# export


def test_export_writes_the_table(call, store, tmp_path):
    code, said, _ = call("export", store, tmp_path / "a.csv")
    assert code == 0
    assert said.strip() == str(tmp_path / "a.csv")
    table, heatmap = pd.read_csv(tmp_path / "a.csv"), wh.open_heatmap(store)
    np.testing.assert_array_equal(table["hematoxylin"].to_numpy(np.float32), heatmap.values.ravel())
    np.testing.assert_array_equal(table["minx"], heatmap.positions[..., 1].ravel())


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_export_writes_every_format(call, fails, store, tmp_path, row):
    path = tmp_path / f"a{row.endings[0]}"
    asked = "export", store, path, "--format", row.name
    if row.name == "stamp":
        assert "there are no features" in fails(*asked)
        return
    code, said, err = call(*asked)
    assert (code, said.strip(), err) == (0, str(path), "")
    assert path.is_dir() if row.folder else path.stat().st_size > 100


def test_export_replaces_only_what_it_wrote(call, fails, store, tmp_path):
    (tmp_path / "a.h5").write_text("features of a week")
    assert "no such export of ours" in fails("export", store, tmp_path / "a.h5")
    assert "no such export of ours" in fails("export", store, store)
    for _ in range(2):
        assert call("export", store, tmp_path / "b.h5")[0] == 0


def test_export_draws_the_recorded_slide_below(call, store, tmp_path):
    code, _, err = call("export", store, tmp_path / "with.png")
    assert (code, err) == (0, "")
    heatmap = wh.open_heatmap(store)
    with wh.open_slide(heatmap.run["slide"]["path"]) as slide:
        heatmap.export(tmp_path / "same.png", slide=slide)
    assert pixels(tmp_path / "with.png") == pixels(tmp_path / "same.png")


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_export_draws_the_map_alone_and_says_so(call, slide_path, tmp_path, how):
    copy, out = Path(shutil.copy(slide_path, tmp_path / "copy.svs")), tmp_path / "a.zarr"
    assert call("run", copy, *SMALL, "--out", out)[0] == 0
    copy.unlink()
    if how == "changed":
        write_aperio(copy, strided(tissue(700, 900, seed=1), 4))
    code, _, err = call("export", out, tmp_path / "a.png")
    assert code == 0
    assert err.startswith("note: drawn without the slide: ")
    wh.open_heatmap(out).export(tmp_path / "alone.png")
    assert pixels(tmp_path / "a.png") == pixels(tmp_path / "alone.png")


def pixels(path):
    with Image.open(path) as image:
        return image.size, image.tobytes()


def test_export_of_a_file_that_others_wrote(call, fails, store, slide_path, tmp_path):
    assert call("export", store, tmp_path / "a.csv")[0] == 0
    assert "slide=" in fails("export", tmp_path / "a.csv", tmp_path / "a.geojson")
    placed = "export", tmp_path / "a.csv", tmp_path / "a.geojson", "--slide", slide_path
    assert call(*placed)[0] == 0
    assert call("export", store, tmp_path / "b.geojson")[0] == 0
    tiles = [json.loads((tmp_path / f"{a}.geojson").read_text())["features"] for a in "ab"]
    assert [[tile["geometry"], tile["properties"]] for tile in tiles[0]] == [
        [tile["geometry"], tile["properties"]] for tile in tiles[1]
    ]


def test_export_of_one_output(call, fails, slide_path, tmp_path):
    out = tmp_path / "a.zarr"
    heatmap = wh.compute_heatmap(slide_path, wh.load_model(mean_rgb, names=["r", "g", "1"]),
                                 out=out, tissue="none", progress=False)  # fmt: skip
    for typed, channel in (("g", 1), ("1", 2), ("0", 0)):
        path = tmp_path / f"{typed}.h5"
        assert call("export", out, path, "--output", typed)[0] == 0
        with h5py.File(path) as file:
            scores = file["attention_scores"][:, 0]
        np.testing.assert_array_equal(scores, heatmap.values[channel].ravel())
    assert "no channel 'b'" in fails("export", out, tmp_path / "a.png", "--output", "b")
    assert "holds all outputs" in fails("export", out, tmp_path / "a.csv", "--output", "g")
    lost = fails("export", out, tmp_path / "a.png", "--slide", tmp_path / "lost.svs")
    assert "lost.svs" in lost


def test_export_says_what_it_can_write(fails, store, tmp_path):
    for words in (["a.doc"], ["a.csv", "--format", "excel"]):
        line = fails("export", store, tmp_path / words[0], *words[1:])
        assert "csv" in line
        assert "png" in line
    assert "there is a folder" in fails("export", store, tmp_path, "--format", "csv")
    assert "no such folder" in fails("export", store, tmp_path / "none" / "a.csv")


# Ctrl-C


def test_ctrl_c_cancels_and_a_second_one_ends_at_once():
    control, before = RunControl(), signal.getsignal(signal.SIGINT)
    with commands.cancelled_by_ctrl_c(control):
        signal.raise_signal(signal.SIGINT)
        assert control.cancelled.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_interrupted_is_130_and_resume_gives_the_same_bits(call, tmp_path, slide_path):
    # Seconds of work, on any machine: thousands of small batches.
    out, options = tmp_path / "a b.zarr", [*RUN, "--stride", "6", "--batch-size", "2"]
    command = [*PROGRAM, "run", slide_path, *options, "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        seen = b""
        while b"win/s" not in seen:  # the bar is drawn
            seen += process.stderr.read(1) or pytest.fail(f"it ended too early: {seen}")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1].decode().splitlines()
    assert process.returncode == 130
    assert f"continue with: napari-wsi-heatmap resume '{out}'" in rest[-1]
    told = wh.open_heatmap(out).run
    assert told["status"] == "paused"
    assert 0 < told["counts"]["done"] < sum(told["counts"].values())
    assert call("resume", out)[0] == 0
    assert call("run", slide_path, *options, "--out", tmp_path / "whole.zarr")[0] == 0
    resumed, whole = wh.open_heatmap(out), wh.open_heatmap(tmp_path / "whole.zarr")
    np.testing.assert_array_equal(resumed.values.view(np.uint32), whole.values.view(np.uint32))
    np.testing.assert_array_equal(resumed.state, whole.state)


def test_interrupted_at_once_says_how_to_go_on(call, store, monkeypatch):
    def interrupted(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "resume", interrupted)
    code, _, err = call("resume", store)
    assert code == 130
    assert err == f"note: interrupted; continue with: napari-wsi-heatmap resume {store}"
    monkeypatch.setattr(commands, "info", interrupted)
    assert call("info", "a.svs")[2] == "note: interrupted"


# demo and view

HEADLESS = """
import sys
from functools import partial
import napari_wsi_heatmap.sample as sample
from napari_wsi_heatmap.cli import main
sample.sample_slide_path = partial(sample.sample_slide_path, size=(1200, 1600))
assert main(["demo"]) == 1
assert main(["view", "a.svs"]) == 1
code = main(["demo", "--headless", "--screenshot", sys.argv[1], "--out", sys.argv[2]])
loaded = [name for name in sys.modules if name.split(".")[0] in
          ("napari", "qtpy", "magicgui", "superqt", "PyQt5", "PyQt6", "PySide6", "vispy")]
assert not loaded, loaded
sys.exit(code)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have a display")
def test_the_headless_demo_needs_neither_napari_nor_qt_nor_a_display(call, tmp_path):
    picture, out = tmp_path / "demo.png", tmp_path / "demo.zarr"
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    environment = {k: v for k, v in os.environ.items() if k not in screens}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    ended = subprocess.run(
        [sys.executable, "-c", HEADLESS, picture, out],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stderr.splitlines()[:2]
    assert first.startswith("error: there is no display")
    assert "--headless" in first
    assert second.startswith("error: there is no display")
    assert "Making the sample slide" in ended.stderr
    assert f"view {tmp_path}/cache" in ended.stdout
    assert wh.open_heatmap(out).run["status"] == "done"
    with Image.open(picture) as image:
        assert min(image.size) > 800


def test_the_demo_checks_first_where_its_picture_goes(fails, tmp_path):
    for name in ("none/demo.png", "demo.doc"):
        fails("demo", "--headless", "--screenshot", tmp_path / name, "--out", tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


def test_without_qt_view_says_what_to_install(monkeypatch):
    with pytest.raises(HeatmapError, match="pip install"):
        commands.napari_part("no_such_part")


# a process of its own


def test_help_and_info_do_not_import_torch_or_napari(slide_path):
    code = (
        "import sys\nfrom napari_wsi_heatmap.cli import main\n"
        "assert main(['info', sys.argv[1]]) == 0\n"
        "heavy = {'torch', 'napari', 'qtpy', 'zarr', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", code, slide_path], check=True, capture_output=True, timeout=60
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_goes_away_is_no_error(slide_path):
    process = subprocess.Popen(
        [*PROGRAM, "info", slide_path, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141
    process.stderr.close()
