"""The command ``mil``: what may be typed, what it says, and how it ends."""

from __future__ import annotations

import builtins
import subprocess
import sys

import pytest
import torch
import yaml
from mil_made import millab_abmil
from pipeline_made import make_millab

from napari_wsi_heatmap import cli
from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.mil import pipeline
from napari_wsi_heatmap.mil.config import read_config


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command, where nobody answers; give exit code, lines of stdout and of stderr."""

    def asked(*_):
        raise AssertionError("it asks")

    def calling(*words):
        monkeypatch.setattr(builtins, "input", asked)
        monkeypatch.setattr(sys, "stdin", None)
        capsys.readouterr()
        code = cli.main(["mil", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return calling


@pytest.fixture
def one(tmp_path):
    """A configuration for one slide, at the slide's small level."""
    config = make_millab(tmp_path, ["normal_1"])
    config.write_text(config.read_text().replace("vis_level: -1", "vis_level: 1"))
    return config


# R7, R32


def test_a_template_is_written_and_read(call, tmp_path):
    path = tmp_path / "new.yaml"
    code, out, err = call("--make-config", path)
    assert (code, err) == (0, [])
    assert out[0].startswith(str(path))
    assert read_config(path).experiment["save_exp_code"] == "HEATMAP_DEMO"
    code, out, err = call("--make-config", path)
    assert (code, out, len(err)) == (1, [], 1)
    assert "there is a file already" in err[0]


def test_a_template_filled_in_runs(call, one, tmp_path):
    call("--make-config", tmp_path / "new.yaml")
    sections = yaml.safe_load((tmp_path / "new.yaml").read_text())
    for section, values in yaml.safe_load(one.read_text()).items():
        for key in ("raw_save_dir", "production_save_dir", "data_dir", "slide_ext", "features_dir",
                    "ckpt_path", "patch_size", "vis_level"):  # fmt: skip
            if key in values:
                sections[section][key] = values[key]
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(sections))
    code, out, err = call("--config", tmp_path / "new.yaml")
    assert code == 0
    assert "1 done" in out[-1]
    assert not [line for line in err if "new.yaml" in line]


def test_a_list_is_made_and_used(call, one):
    folder, out = one.parent, one.parent / "list.csv"
    code, said, err = call(
        "--make-process-list", folder / "slides", folder / "features", out, "--slide-ext", ".tif"
    )
    assert (code, said, err) == (0, [f"{out}: 1 slide"], [])
    one.write_text(one.read_text().replace("process_list: null", f"process_list: {out}"))
    assert call("--config", one)[0] == 0
    code, said, err = call(
        "--make-process-list", folder / "slides", folder / "raw", folder / "2.csv",
        "--slide-ext", "tif", "--slide-ext", "svs",
    )  # fmt: skip
    assert code == 0
    assert "1 of them have no features" in err[0]


# R8, R33


def test_several_configurations_one_after_the_other(call, one, tmp_path):
    second = tmp_path / "second.yaml"
    second.write_text(one.read_text().replace("HEATMAP_DEMO", "SECOND"))
    code, out, err = call("--config", tmp_path / "none.yaml", "--config", one, "--config", second)
    assert code == 3
    assert [line for line in err if line.startswith("error: ")] == [
        f"error: the configuration does not exist - {tmp_path / 'none.yaml'} - check the path"
    ]
    summaries = [line for line in out if "results.csv" in line]
    assert [("HEATMAP_DEMO" in line, "SECOND" in line) for line in summaries] == [
        (True, False), (False, True),
    ]  # fmt: skip
    assert call("--config", tmp_path / "none.yaml")[0] == 1


def test_two_configurations_never_write_one_experiment(call, one, tmp_path):
    second = tmp_path / "second.yaml"
    second.write_text(one.read_text())
    code, out, err = call("--config", one, "--config", second)
    assert (code, len([line for line in out if "results.csv" in line])) == (3, 1)
    assert "writes the same experiment" in err[-1]


def test_options_win_over_the_configuration(call, one):
    code, out, _ = call("--config_file", one, "--save_exp_code", "OTHER", "--device", "cpu")
    assert code == 0
    assert "OTHER" in out[-1]
    for wrong in (["--save-exp-code", "../up"], ["--overlap", "1"], ["--make-config", "a"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(["mil", "--config", str(one), *wrong])
        assert caught.value.code == 2
    with pytest.raises(SystemExit):
        cli.main(["mil"])


def test_a_configuration_of_clam_named_alone(call, one, tmp_path, monkeypatch):
    home = tmp_path / "heatmaps" / "configs"
    home.mkdir(parents=True)
    one.rename(home / "demo.yaml")
    monkeypatch.chdir(tmp_path)
    assert call("--config", "demo.yaml")[0] == 0


# what it says


def test_what_became_of_each_slide(call, one):
    code, out, err = call("--config", one)
    assert code == 0
    assert out[0].startswith("normal_1: 92 patches, class ")
    assert out[-1].endswith("results.csv: 1 slide: 1 done, 0 up to date, 0 failed")
    assert all(line.startswith("note: ") for line in err)
    code, out, err = call("--config", one, "--quiet")
    assert (code, len(out), err) == (0, 1, [])


def test_debug_is_verbose(call, one):
    code, _, err = call("--config", one, "--debug")
    told = "\n".join(line for line in err if line.startswith("note: debug: "))
    assert code == 0
    for text in ("1 slides", "normal_1.tif", "normal_1.pt", "92 x 12 features", "_blockmap.h5"):
        assert text in told
    (one.parent / "slides" / "normal_1.tif").write_bytes(b"")
    code, _, err = call("--config", one, "--debug")
    assert code == 1
    assert any("Traceback" in line for line in err)
    assert not any("Traceback" in line for line in call("--config", one)[2])


def test_interrupted_goes_on_where_it_stopped(call, one, monkeypatch):
    def interrupted(_self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.SlideJob, "run", interrupted)
        code, _, err = call("--config", one)
    assert code == 130
    assert "the same command goes on" in err[-1]
    code, out, _ = call("--config", one)
    assert (code, "1 done" in out[-1]) == (0, True)


def test_another_process_that_writes_there_is_named(call, one):
    raw = one.parent / "raw" / "HEATMAP_DEMO"
    raw.mkdir(parents=True)
    lock = StoreLock(raw)
    try:
        code, _, err = call("--config", one)
    finally:
        lock.release()
    assert code == 1
    assert "is writing here" in err[-1]
    assert call("--config", one)[0] == 0


def test_a_full_disk_ends_it_and_can_be_gone_on_with(call, one, monkeypatch):
    def full(*_):
        raise StoreFullError("cannot write: No space left on device", "there", "make room")

    with monkeypatch.context() as patch:
        patch.setattr("napari_wsi_heatmap.mil.slidejob.write_blockmap", full)
        code, out, err = call("--config", one)
    assert (code, out) == (1, [])
    assert "No space left" in err[-1]
    assert call("--config", one)[0] == 0


def test_whatever_one_slide_meets_is_one_line(call, one, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("napari_wsi_heatmap.mil.slidejob.write_blockmap", broken)
    code, _, err = call("--config", one)
    assert code == 1
    assert err[-1] == "error: normal_1: unexpected ZeroDivisionError: two lines"


# R34


def test_out_of_memory_says_what_to_choose(call, one, monkeypatch):
    def large(*_, **__):
        raise MemoryError

    monkeypatch.setattr("napari_wsi_heatmap.mil.render.render_clam", large)
    code, _, err = call("--config", one)
    assert code == 1
    assert "a coarser visualisation level (a larger level number)" in err[-1]
    assert "larger custom_downsample" in err[-1]


def test_a_checkpoint_that_is_none(call, one):
    torch.save({"layer.weight": torch.zeros(2, 2)}, one.parent / "best_model.pth")
    code, _, err = call("--config", one)
    assert code == 1
    assert "no MIL model that is known: it holds layer.weight" in err[-1]
    state = millab_abmil(classes=2)
    del state["global_attn.attention_c.bias"]
    torch.save(state, one.parent / "best_model.pth")
    assert "missing: global_attn.attention_c.bias" in call("--config", one)[2][-1]


def test_a_level_that_is_not_there_says_what_to_choose(call, one):
    one.write_text(one.read_text().replace("vis_level: 1", "vis_level: 9"))
    code, _, err = call("--config", one)
    assert code == 1
    assert "9" in err[-1]
    assert "level" in err[-1]


def test_features_that_are_not_there_are_told_with_what_was_tried(call, one):
    one.write_text(one.read_text().replace("h5_files", "nowhere"))
    code, _, err = call("--config", one)
    assert code == 1
    assert "features of normal_1 not found" in err[-1]
    assert str(one.parent / "features" / "nowhere" / "normal_1.pt") in err[-1]


def test_a_template_costs_no_torch(one):
    code = (
        "import sys\nfrom napari_wsi_heatmap.cli import main\n"
        "assert main(['mil', '--make-config', sys.argv[1]]) == 0\n"
        "heavy = {'torch', 'napari', 'zarr', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", code, one.parent / "new.yaml"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
