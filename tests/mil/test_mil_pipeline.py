"""The MIL pipeline from end to end: one command, and others open what it wrote."""

from __future__ import annotations

import json
import os
import shutil

import h5py
import mil_made
import numpy as np
import openslide
import pandas as pd
import pytest
import torch
import yaml
from mil_made import clam, dsmil, features, millab_abmil, transmil
from PIL import Image
from pipeline_made import (
    NAMES,
    PATCH,
    SIDE,
    grid,
    make_clam,
    make_millab,
    write_features,
    write_slide,
)

import napari_wsi_heatmap as wh
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.pipeline import run_config
from napari_wsi_heatmap.models import trust

RESULTS = "production/HEATMAP_DEMO/results.csv"


@pytest.fixture
def call(capsys):
    """Run the command; give exit code, lines of stdout and of stderr."""

    def calling(*words):
        capsys.readouterr()
        code = cli.main(["mil", *map(str, words)])
        out, err = capsys.readouterr()
        shown = [line for line in err.splitlines() if line and "win/s" not in line]
        return code, out.splitlines(), shown

    return calling


def edit(path, section, **values):
    """Change keys of a configuration."""
    sections = yaml.safe_load(path.read_text())
    sections[section] = (sections.get(section) or {}) | values
    path.write_text(yaml.safe_dump(sections))


def contents(folder):
    """Bytes of all files below a folder, by their name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# MIL-Lab: features, one after the other


@pytest.fixture(scope="module")
def millab(tmp_path_factory):
    """A MIL-Lab experiment that was run by one command: its folder."""
    folder = tmp_path_factory.mktemp("millab")
    config = make_millab(folder)
    (folder / "list.csv").write_text(
        "slide_id,label,x1,y1,x2,y2\nnormal_1,normal,,,,\ntumor_1,tumor,,,,\n"
        "tumor_2.tif,tumor,256,128,700,600\n"
    )
    edit(config, "data_arguments", process_list="list.csv")
    edit(config, "sample_arguments", samples=[
        {"name": "top", "k": 4, "mode": "topk"}, {"name": "low", "k": 2, "mode": "bottomk"},
        {"name": "middle", "k": 3, "mode": "range", "score_start": 0.4, "score_end": 0.6},
        {"name": "unused", "sample": False},
    ])  # fmt: skip
    assert cli.main(["mil", "--config", str(config)]) == 0
    return folder


@pytest.fixture(scope="module")
def bags(millab):
    """What the model says of each slide, computed by itself."""
    mil = wh.load_mil(millab / "best_model.pth", device="cpu")
    return {
        name: mil(torch.load(millab / "features" / "pt_files" / f"{name}.pt", weights_only=True))
        for name in NAMES
    }


def test_results_open_in_pandas(millab, bags):
    table = pd.read_csv(millab / RESULTS)
    assert list(table["slide_id"]) == list(NAMES)
    assert list(table["label"]) == ["normal", "tumor", "tumor"]
    assert list(table) == [
        "slide_id", "label", "bag_size", "Pred_0", "Pred_1", "p_0", "p_1", "Y_hat", "prediction",
    ]  # fmt: skip
    for row, bag in zip(table.to_dict("records"), bags.values(), strict=True):
        assert row["bag_size"] == len(bag) == len(grid())
        assert row["prediction"] == row["Y_hat"] == bag.prediction
        assert row[f"Pred_{bag.prediction}"] == bag.prediction
        assert np.isnan(row[f"Pred_{1 - bag.prediction}"])
        assert np.float32([row["p_0"], row["p_1"]]).tolist() == bag.probabilities.tolist()


def test_blockmaps_open_in_h5py(millab, bags):
    for name, bag in bags.items():
        label = name.split("_")[0]
        path = millab / "raw" / "HEATMAP_DEMO" / label / name / f"{name}_blockmap.h5"
        with h5py.File(path) as file:
            scores, coords = file["attention_scores"][:], file["coords"][:]
        assert (scores.dtype, coords.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(scores[:, 0], bag.patch_score)
        np.testing.assert_array_equal(coords, grid())


def test_the_configuration_is_kept_beside_the_scores(millab):
    kept = millab / "raw" / "HEATMAP_DEMO" / "config.yaml"
    assert kept.read_bytes() == (millab / "config.yaml").read_bytes()


def test_pictures_open_in_pillow(millab):
    folder = millab / "production" / "HEATMAP_DEMO"
    for name in NAMES[:2]:
        label = name.split("_")[0]
        sizes = set()
        for kind in ("heatmap", "original"):
            with Image.open(folder / label / f"{name}_{kind}.png") as picture:
                picture.load()
                assert picture.mode == "RGB"
                sizes.add(picture.size)
        # vis_level -1: 32 times smaller, though the slide has no such level.
        assert sizes == {(SIDE[1] // 32, SIDE[0] // 32)}


def test_colours_are_those_of_ranks_over_the_slide(millab, bags):
    path = millab / "production" / "HEATMAP_DEMO" / "tumor" / "tumor_1_heatmap.png"
    heatmap, original = (
        np.asarray(Image.open(path.with_name(f"tumor_1_{kind}.png")), int)
        for kind in ("heatmap", "original")
    )
    ranks = bags["tumor_1"].patch_score.argsort().argsort()
    for index, red_over_blue in ((ranks.argmax(), True), (ranks.argmin(), False)):
        x, y = grid()[index] // 32
        change = heatmap[y, x] - original[y, x]
        assert (change[0] > change[2]) == red_over_blue
    assert (heatmap[0, 0] == original[0, 0]).all()


def test_a_region_is_drawn_and_sampled_alone(millab, bags):
    folder = millab / "production" / "HEATMAP_DEMO"
    for kind in ("heatmap", "original"):
        with Image.open(folder / "tumor" / f"tumor_2_{kind}.png") as picture:
            assert picture.size == (700 // 32 - 256 // 32, 600 // 32 - 128 // 32)
    prediction = bags["tumor_2"].prediction
    patches = folder / "sampled_patches" / f"label_tumor_pred_{prediction}" / "top"
    places = [name.name.split("_") for name in patches.glob("*_tumor_2_*")]
    assert len(places) == 4
    for parts in places:
        x, y = int(parts[parts.index("x") + 1]), int(parts[parts.index("y") + 1])
        assert 256 <= x <= 700
        assert 128 <= y <= 600


def test_sampled_patches_have_the_names_and_pixels_of_the_guide(millab, bags):
    bag = bags["normal_1"]
    folder = millab / "production" / "HEATMAP_DEMO" / "sampled_patches"
    folder = folder / f"label_normal_pred_{bag.prediction}"
    assert sorted(path.name for path in folder.iterdir()) == ["low", "middle", "top"]
    order = np.argsort(-bag.patch_score)
    expected = []
    for rank, index in enumerate(order[:4]):
        (x, y), score = grid()[index], bag.patch_score[index]
        expected.append(f"{rank}_normal_1_x_{x}_y_{y}_score_{score:.4f}.png")
    assert sorted(path.name for path in (folder / "top").glob("*normal_1*")) == expected
    with wh.open_slide(millab / "slides" / "normal_1.tif") as slide:
        x, y = grid()[order[0]].tolist()
        pixels = slide.read_region(0, y, x, PATCH, PATCH)
    np.testing.assert_array_equal(Image.open(folder / "top" / expected[0]), pixels)
    lowest = sorted((folder / "low").iterdir())[0].name
    assert lowest.endswith(f"score_{bag.patch_score.min():.4f}.png")
    assert len(list((folder / "middle").iterdir())) == 3


# CLAM: an encoder, two passes


@pytest.fixture(scope="module")
def clam_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clam")
    config = make_clam(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "folder", lambda: folder / "trusted")
        patch.chdir(folder)
        code = cli.main(["mil", "--config", str(config), "--trust", "yes", "--device", "cpu"])
    assert code == 0
    return folder


def test_an_encoder_and_mil_by_one_command(clam_run):
    production, raw = (
        clam_run / "production" / "HEATMAP_OUTPUT",
        clam_run / "raw" / "HEATMAP_OUTPUT",
    )
    table = pd.read_csv(production / "results.csv")
    assert list(table["slide_id"]) == ["slide_a", "slide_b"]
    assert list(table["label"]) == ["LUAD", "LSCC"]
    assert {"Pred_2", "p_2"} <= set(table)
    for label, name in zip(table["label"], table["slide_id"], strict=True):
        with h5py.File(raw / label / name / f"{name}_blockmap.h5") as file:
            coarse, scores = file["coords"][:], file["attention_scores"][:]
        with h5py.File(raw / label / name / f"{name}_0.5_roi_False.h5") as file:
            fine, finer = file["coords"][:], file["attention_scores"][:, 0]
        assert (coarse % PATCH == 0).all()
        assert (fine % (PATCH // 2) == 0).all()
        assert len(fine) > 2 * len(coarse)
        # The same branch, on raw scores: a patch of both passes has one score.
        both = {tuple(place): score for place, score in zip(fine.tolist(), finer, strict=True)}
        shared = [(both[tuple(c)], s) for c, s in zip(coarse.tolist(), scores[:, 0], strict=True)]
        np.testing.assert_allclose(*zip(*shared, strict=True), rtol=1e-4, atol=1e-5)
        for kind in ("heatmap", "original"):
            with Image.open(production / label / f"{name}_{kind}.jpg") as picture:
                assert picture.size == (SIDE[1] // 4, SIDE[0] // 4)  # vis_level 1
        with Image.open(raw / label / name / f"{name}_mask.jpg") as picture:
            assert picture.mode == "RGB"
        samples = list((production / "sampled_patches").glob(f"label_{label}_pred_*/topk*/*.png"))
        assert len(samples) == 3


def test_the_bag_is_that_of_the_encoder(clam_run):
    table = pd.read_csv(clam_run / "production" / "HEATMAP_OUTPUT" / "results.csv")
    store = clam_run / "raw" / "HEATMAP_OUTPUT" / "LUAD" / "slide_a" / "slide_a.zarr"
    from napari_wsi_heatmap.mil.bags import read_features

    bag = wh.load_mil(clam_run / "s_0_checkpoint.pt", device="cpu")(read_features(store).features)
    assert table["bag_size"][0] == len(bag)
    assert table["Y_hat"][0] == bag.prediction
    np.testing.assert_allclose(
        table.loc[0, ["p_0", "p_1", "p_2"]].to_numpy(float), bag.probabilities, rtol=1e-4
    )


def test_another_checkpoint_encodes_nothing_again(clam_run, tmp_path, call, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(clam_run, folder)
    config = folder / "clam.yaml"
    text = config.read_text().replace(str(clam_run), str(folder))
    config.write_text(text)
    state = {name: -value for name, value in clam(3).items()}
    torch.save(state, folder / "s_0_checkpoint.pt")
    stores = folder / "raw" / "HEATMAP_OUTPUT" / "LUAD" / "slide_a"
    before = {p: p.stat().st_mtime_ns for p in stores.glob("*.zarr/features/**/*") if p.is_file()}
    monkeypatch.chdir(folder)
    code, out, _ = call("--config", config, "--trust", "yes")
    assert code == 0
    assert "2 slides: 2 done" in out[-1]
    assert before
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_other_patches_are_encoded_anew(clam_run, tmp_path, call, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(clam_run, folder)
    config = folder / "clam.yaml"
    config.write_text(config.read_text().replace(str(clam_run), str(folder)))
    edit(config, "patching_arguments", patch_size=128, overlap=0.0)
    monkeypatch.chdir(folder)
    code, out, _ = call("--config", config, "--trust", "yes")
    assert (code, "2 slides: 2 done" in out[-1]) == (0, True)
    path = folder / "raw" / "HEATMAP_OUTPUT" / "LUAD" / "slide_a"
    with h5py.File(path / "slide_a_blockmap.h5") as file:
        assert (file["coords"][:] % 128 == 0).all()
        assert file["coords"].attrs["patch_size_level0"] == 128
    # What belongs to it no more has gone.
    assert not (path / "slide_a_0.5_roi_False.h5").exists()


def test_an_encoder_that_is_code_needs_consent(clam_run, call, monkeypatch):
    monkeypatch.chdir(clam_run)
    code, out, err = call("--config", clam_run / "clam.yaml")
    assert (code, out) == (1, [])
    (line,) = [line for line in err if line.startswith("error: ")]
    assert "encoder.pt" in line
    assert "trust" in line


def test_an_encoder_by_an_unknown_name(clam_run, tmp_path, call, monkeypatch):
    config = shutil.copy(clam_run / "clam.yaml", tmp_path)
    monkeypatch.chdir(clam_run)
    text = (tmp_path / "clam.yaml").read_text()
    text = text.replace(str(clam_run / "encoder.pt"), "conch_v1")
    (tmp_path / "clam.yaml").write_text(text)
    code, _, err = call("--config", config)
    assert code == 1
    assert "the layers of conch_v1 are its authors' own code" in err[-1]
    assert "features_dir" in err[-1]
    (tmp_path / "clam.yaml").write_text(text.replace("conch_v1", "resnet5"))
    code, _, err = call("--config", config)
    assert code == 1
    assert "no encoder 'resnet5'" in err[-1]
    assert "resnet50_trunc" in err[-1]


def test_an_encoder_that_does_not_fit_is_refused_before_it_runs(
    clam_run, tmp_path, call, monkeypatch
):
    folder = tmp_path / "copy"
    shutil.copytree(clam_run, folder, ignore=shutil.ignore_patterns("raw", "production"))
    config = folder / "clam.yaml"
    config.write_text(config.read_text().replace(str(clam_run), str(folder)))
    edit(config, "model_arguments", embed_dim=20)
    monkeypatch.setattr(mil_made, "D", 20)
    torch.save(clam(3), folder / "s_0_checkpoint.pt")
    monkeypatch.chdir(folder)
    code, _, err = call("--config", config, "--trust", "yes")
    assert code == 1
    failed = [line for line in err if line.startswith("error: ")]
    assert len(failed) == 2
    assert all("12 numbers" in line and "20 numbers" in line for line in failed)
    assert not list(folder.glob("raw/**/run.json"))


def test_a_region_with_an_encoder(clam_run, tmp_path, call, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(clam_run, folder, ignore=shutil.ignore_patterns("raw", "production"))
    config = folder / "clam.yaml"
    config.write_text(config.read_text().replace(str(clam_run), str(folder)))
    (folder / "heatmaps" / "process_lists" / "heatmap_demo_dataset.csv").write_text(
        "slide_id,x1,y1,x2,y2\nslide_a,256,128,640,512\n"
    )
    edit(config, "heatmap_arguments", use_roi=True, save_ext="png")
    monkeypatch.chdir(folder)
    assert call("--config", config, "--trust", "yes")[0] == 0
    path = folder / "raw" / "HEATMAP_OUTPUT" / "Unspecified" / "slide_a"
    with h5py.File(path / "slide_a_0.5_roi_True.h5") as file:
        coords = file["coords"][:]
    assert coords.min(0).tolist() == [256, 128]
    assert coords.max(0).tolist() == [640, 512]
    with h5py.File(path / "slide_a_blockmap.h5") as file:
        assert file["coords"][:].max(0)[0] > 640  # the bag is that of the whole slide
    pictures = folder / "production" / "HEATMAP_OUTPUT" / "Unspecified"
    with Image.open(pictures / "slide_a_heatmap.png") as picture:
        assert picture.size == (96, 96)


# what comes of one slide, with one slide


@pytest.fixture
def one(tmp_path):
    """A configuration for one slide."""
    config = make_millab(tmp_path, NAMES[:1])
    edit(config, "heatmap_arguments", vis_level=1)
    return config


def test_tiff_opens_in_openslide_where_the_slide_lies(one, call):
    edit(one, "heatmap_arguments", save_ext="tiff")
    assert call("--config", one)[0] == 0
    folder = one.parent / "production" / "HEATMAP_DEMO" / "Unspecified"
    for kind in ("heatmap", "original"):
        path = folder / f"normal_1_{kind}.tiff"
        assert openslide.OpenSlide.detect_format(str(path)) == "generic-tiff"
        with openslide.OpenSlide(str(path)) as slide:
            assert slide.dimensions == (SIDE[1] // 4, SIDE[0] // 4)
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.0, rel=1e-3)


def picture(config, kind="heatmap"):
    folder = config.parent / "production" / "HEATMAP_DEMO" / "Unspecified"
    return np.asarray(Image.open(folder / f"normal_1_{kind}.png"), int)


EFFECTS = (
    {"alpha": 1.0},
    {"cmap": "coolwarm"},
    {"blur": True},
    {"binarize": True, "binary_thresh": 0.5},
    {"blank_canvas": True},
    {"segment": False},
    {"convert_to_percentiles": False},
    {"convert_to_percentiles": False, "display": "weights"},
)
"""Keys of the picture, other than by default."""


def test_keys_of_the_picture_have_their_effect(one, call):
    (one.parent / "list.csv").write_text("slide_id,a_t,a_h\nnormal_1,0.1,0.01\n")
    edit(one, "data_arguments", process_list="list.csv")
    assert call("--config", one)[0] == 0
    plain, original = one.read_text(), picture(one, "original")
    scores = (one.parent / RESULTS).read_bytes()
    seen = [picture(one)]
    for values in EFFECTS:
        one.write_text(plain)
        edit(one, "heatmap_arguments", **values)
        assert call("--config", one)[0] == 0
        seen.append(picture(one))
        np.testing.assert_array_equal(picture(one, "original"), original)
        assert (one.parent / RESULTS).read_bytes() == scores
    for first in range(len(seen)):
        for second in range(first):
            assert (seen[first] != seen[second]).any(), (first, second)


def test_a_smaller_picture_and_its_original_alike(one, call):
    edit(one, "heatmap_arguments", custom_downsample=2, save_orig=False)
    assert call("--config", one)[0] == 0
    assert picture(one).shape == (SIDE[0] // 8, SIDE[1] // 8, 3)
    folder = one.parent / "production" / "HEATMAP_DEMO" / "Unspecified"
    assert [path.name for path in folder.iterdir()] == ["normal_1_heatmap.png"]
    edit(one, "heatmap_arguments", save_orig=True)
    assert call("--config", one)[0] == 0
    assert picture(one, "original").shape == picture(one).shape


def test_a_model_without_a_classifier(one, call):
    state = {k: v for k, v in millab_abmil(classes=2).items() if not k.startswith("classifier")}
    torch.save(state, one.parent / "best_model.pth")
    assert call("--config", one)[0] == 0
    (row,) = pd.read_csv(one.parent / RESULTS).to_dict("records")
    assert row["prediction"] == "none"
    folder = one.parent / "production" / "HEATMAP_DEMO" / "sampled_patches"
    assert [path.name for path in folder.iterdir()] == ["label_Unspecified_pred_none"]


# R39: CLAM's folders


def test_features_of_the_h5_where_there_is_no_pt(one, call):
    shutil.rmtree(one.parent / "features" / "pt_files")
    assert call("--config", one)[0] == 0


def test_features_beside_the_h5_and_3d(one, call):
    folder = one.parent / "features"
    with h5py.File(folder / "h5_files" / "normal_1.h5", "a") as file:
        vectors = file["features"][:]
        del file["features"]
    torch.save(torch.from_numpy(vectors)[None], folder / "pt_files" / "normal_1.pt")
    assert call("--config", one)[0] == 0
    assert pd.read_csv(one.parent / RESULTS)["bag_size"].tolist() == [len(grid())]


def test_files_that_the_list_names(one, call):
    elsewhere = one.parent / "elsewhere"
    shutil.move(one.parent / "features", elsewhere)
    (one.parent / "list.csv").write_text(
        "slide_id,features_path,coords_path\n"
        f"normal_1,{elsewhere}/pt_files/normal_1.pt,elsewhere/h5_files/normal_1.h5\n"
    )
    edit(one, "data_arguments", process_list="list.csv")
    assert call("--config", one)[0] == 0


# R40, resuming by content


def test_nothing_is_done_twice(one, call):
    assert call("--config", one)[1][-1].endswith("1 slide: 1 done, 0 up to date, 0 failed")
    before = contents(one.parent / "production") | contents(one.parent / "raw")
    times = {path: path.stat().st_mtime_ns for path in (one.parent / "raw").rglob("*.h5")}
    code, out, _ = call("--config", one)
    assert (code, out[-1].split(": ", 1)[1]) == (0, "1 slide: 0 done, 1 up to date, 0 failed")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert contents(one.parent / "production") | contents(one.parent / "raw") == before


def test_half_a_file_is_not_taken_for_a_whole_one(one, call):
    call("--config", one)
    before = contents(one.parent / "production") | contents(one.parent / "raw")
    for name in ("raw/HEATMAP_DEMO/Unspecified/normal_1/normal_1_blockmap.h5",
                 "production/HEATMAP_DEMO/Unspecified/normal_1_heatmap.png"):  # fmt: skip
        path = one.parent / name
        path.write_bytes(path.read_bytes()[:100])
        code, out, _ = call("--config", one)
        assert (code, "1 done" in out[-1]) == (0, True)
        after = contents(one.parent / "production") | contents(one.parent / "raw")
        assert {k: v for k, v in after.items() if not k.endswith(".h5")} == {
            k: v for k, v in before.items() if not k.endswith(".h5")
        }


@pytest.mark.parametrize("changed", ["features", "checkpoint", "slide", "label"])
def test_what_decides_the_result_makes_it_anew(one, call, changed):
    call("--config", one)
    before = contents(one.parent / "production")
    if changed == "features":
        write_features(one.parent / "features", "normal_1", seed=9)
    elif changed == "checkpoint":
        state = {k: -v for k, v in millab_abmil(classes=2).items()}
        torch.save(state, one.parent / "best_model.pth")
    elif changed == "slide":
        write_slide(one.parent / "slides" / "normal_1.tif", seed=9)
    else:
        (one.parent / "list.csv").write_text("slide_id,label\nnormal_1,benign\n")
        edit(one, "data_arguments", process_list="list.csv")
    code, out, _ = call("--config", one)
    assert (code, "1 done" in out[-1]) == (0, True)
    assert contents(one.parent / "production") != before


def test_patches_of_an_earlier_choice_do_not_stay_but_those_of_others_do(one, call):
    call("--config", one)
    folder = one.parent / "production" / "HEATMAP_DEMO" / "sampled_patches"
    first = sorted(folder.rglob("*.png"))
    assert len(first) == 4
    first[0].write_bytes(b"edited")
    (first[0].parent / "mine.png").write_bytes(b"mine")
    edit(one, "sample_arguments", samples=[{"name": "top_attention_patches", "k": 1}])
    call("--config", one)
    left = sorted(path.name for path in folder.rglob("*.png"))
    assert left == sorted([first[0].name, "mine.png"])


def test_a_record_that_was_tampered_with_touches_nothing_outside(one, call):
    call("--config", one)
    victim = one.parent / "victim.txt"
    victim.write_text("mine")
    record = one.parent / "raw" / "HEATMAP_DEMO" / "Unspecified" / "normal_1" / "normal_1.json"
    found = json.loads(record.read_text())
    import hashlib

    digest = hashlib.sha256(b"mine").hexdigest()
    for name in (f"raw/{victim}", "raw/../../victim.txt"):
        found["steps"]["pictures"] = {"key": "x", "files": {name: digest}}
        record.write_text(json.dumps(found))
        assert call("--config", one)[0] == 0
        assert victim.read_text() == "mine"
    record.write_text("[")
    assert call("--config", one)[0] == 0


# one bad slide


def test_one_bad_slide_does_not_end_the_batch(tmp_path, call):
    config = make_millab(tmp_path, ("a", "b", "c", "d", "e", "f", "g"))
    slides, files = tmp_path / "slides", tmp_path / "features"
    (slides / "b.tif").write_bytes(b"version https://git-lfs")
    (files / "h5_files" / "c.h5").unlink()
    with h5py.File(files / "h5_files" / "d.h5", "a") as file:
        coords = file["coords"][:-1]
        del file["coords"]
        file["coords"] = coords
    write_features(files, "e", length=13)
    broken = features(len(grid()))
    broken[3, 2] = np.nan
    torch.save(torch.from_numpy(broken), files / "pt_files" / "f.pt")
    (tmp_path / "list.csv").write_text(
        "slide_id\n" + "".join(f"{c}\n" for c in "abcdefg") + "../x\n"
    )
    edit(config, "data_arguments", process_list="list.csv")
    code, out, err = call("--config", config)
    assert code == 3
    assert out[-1].endswith("8 slides: 2 done, 0 up to date, 6 failed")
    failed = [line for line in err if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in failed] == ["b", "c", "d", "e", "f", "../x"]
    for line, why in zip(failed, (
        "Git LFS", "coordinates", "coord", "13 numbers", "NaN", "leads out of its folder"),
        strict=True,
    ):  # fmt: skip
        assert why in line
    assert list(pd.read_csv(tmp_path / RESULTS)["slide_id"]) == ["a", "g"]
    told = pd.read_csv(tmp_path / "production" / "HEATMAP_DEMO" / "failed.csv")
    assert list(told["slide_id"]) == ["b", "c", "d", "e", "f", "../x"]
    assert [f"error: {row.slide_id}: {row.error}" for row in told.itertuples()] == failed


def test_all_slides_bad_is_1(one, call):
    (one.parent / "slides" / "normal_1.tif").write_bytes(b"")
    code, out, err = call("--config", one)
    assert code == 1
    assert "1 failed" in out[-1]
    assert any("normal_1: " in line and line.startswith("error: ") for line in err)


def test_patches_beyond_the_slide_are_refused(one, call):
    path = one.parent / "features" / "h5_files" / "normal_1.h5"
    with h5py.File(path, "a") as file:
        file["coords"][0] = (5000, 0)
    code, _, err = call("--config", one)
    assert code == 1
    assert f"1 of {len(grid())} patches lie beyond normal_1.tif" in "\n".join(err)


def test_hdf5_that_leads_elsewhere_is_refused(one, call):
    path = one.parent / "features" / "h5_files" / "normal_1.h5"
    with h5py.File(path, "a") as file:
        del file["coords"]
        file["coords"] = h5py.ExternalLink(os.devnull, "coords")
    code, _, err = call("--config", one)
    assert code == 1
    assert len([line for line in err if line.startswith("error: ")]) == 1


def test_slides_are_worked_on_one_after_the_other(tmp_path):
    config = make_millab(tmp_path, NAMES[:2])
    (tmp_path / "production" / "HEATMAP_DEMO" / "Unspecified").mkdir(parents=True)
    outcomes = run_config(read_config(config))
    seen = [
        (next(outcomes).slide_id, sorted(p.name for p in tmp_path.glob("raw/*/*/*")))
        for _ in NAMES[:2]
    ]
    assert seen == [("normal_1", ["normal_1"]), ("tumor_1", ["normal_1", "tumor_1"])]
    outcomes.close()
    assert list(pd.read_csv(tmp_path / RESULTS)["slide_id"]) == ["normal_1", "tumor_1"]


# the configuration against the checkpoint: R10, R12, R13


KINDS = {
    "clam_sb": lambda: clam(classes=2),
    "clam_mb": lambda: clam(2),
    "transmil": transmil,
    "dsmil": dsmil,
    "abmil": lambda: millab_abmil(classes=2, heads=3),
}


def test_every_type_has_its_score_in_the_blockmap(one, call):
    vectors = torch.load(one.parent / "features" / "pt_files" / "normal_1.pt", weights_only=True)
    path = "raw/HEATMAP_DEMO/Unspecified/normal_1/normal_1_blockmap.h5"
    for kind, make in KINDS.items():
        torch.save(make(), one.parent / "best_model.pth")
        edit(one, "model_arguments", model_type=kind)
        assert call("--config", one)[0] == 0
        bag = wh.load_mil(one.parent / "best_model.pth", device="cpu")(vectors)
        with h5py.File(one.parent / path) as file:
            np.testing.assert_array_equal(file["attention_scores"][:, 0], bag.patch_score)
        (row,) = pd.read_csv(one.parent / RESULTS).to_dict("records")
        assert row["prediction"] == bag.prediction
        assert np.float32([row["p_0"], row["p_1"]]).tolist() == bag.probabilities.tolist()


@pytest.mark.parametrize(
    ("section", "values", "why"),
    [
        ("exp_arguments", {"n_classes": 5}, "n_classes differs"),
        ("model_arguments", {"in_dim": 1024}, "in_dim is given as 1024"),
        ("model_arguments", {"model_type": "clam_mb"}, "model_type is given as clam_mb"),
        ("model_arguments", {"model_type": "resnet"}, "no MIL type 'resnet'"),
        ("model_arguments", {"ckpt_path": "none.pt"}, "ckpt_path not found"),
        ("data_arguments", {"data_dir": "nowhere"}, "data_dir not found"),
        ("heatmap_arguments", {"cmap": "nonsense"}, "nonsense"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(one, call, section, values, why):
    edit(one, section, **values)
    code, out, err = call("--config", one)
    assert (code, out) == (1, [])
    (line,) = [line for line in err if line.startswith("error: ")]
    assert why in line
    assert not (one.parent / "raw").exists()


def test_another_attention_dim_is_told_and_no_error(one, call):
    code, _, err = call("--config", one)
    assert code == 0
    assert any("attention_dim is given as 256" in line for line in err)


def test_another_definition_of_attention(one, call):
    torch.save(transmil(), one.parent / "best_model.pth")
    edit(one, "model_arguments", model_type="transmil", attention="dot")
    assert call("--config", one)[0] == 0
    before = contents(one.parent / "raw")
    edit(one, "model_arguments", attention="nystrom")
    assert call("--config", one)[0] == 0
    assert contents(one.parent / "raw") != before
