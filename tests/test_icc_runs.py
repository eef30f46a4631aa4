"""Runs over colours by the ICC profile: only where asked for, recorded, and resumed as begun."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

import napari_wsi_heatmap as wh
from made import mean_rgb
from made_slides import SWAPPED, red_for_blue, strided, tissue, write_tiff
from napari_wsi_heatmap import cli
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import GridError, PlanMismatchError
from napari_wsi_heatmap.launch import predict_windows, prepare, resume
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.icc import IccSlide

SETTINGS = {"window": 50, "level": 0, "tissue": "none", "batch_size": 4}
CONVERTED = f"sRGB by the ICC profile {SWAPPED} (perceptual)"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A slide whose profile says that red is blue."""
    levels = strided(tissue(500, 600), 4)
    return write_tiff(tmp_path_factory.mktemp("icc") / "swapped.tif", levels, icc=red_for_blue())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same pixels without a profile."""
    return write_tiff(tmp_path_factory.mktemp("icc") / "plain.tif", [tissue(500, 600)])


def compute(slide, **settings):
    return wh.compute_heatmap(slide, mean_rgb, progress=False, **(SETTINGS | settings))


@pytest.fixture(scope="module")
def raw(path):
    return compute(path)


@pytest.fixture(scope="module")
def converted(path):
    return compute(path, icc=True)


def bits(heatmap):
    return heatmap.values.view(np.uint32)


def begun(out, slide, **settings):
    """Compute some batches of a run into a store, and stop it."""
    control = RunControl()
    run = prepare(slide, mean_rgb, out=out, control=control, **(SETTINGS | settings))
    for _ in itertools.islice(run.pieces(), 3):
        control.cancel()
    assert run.record["counts"]["pending"] > 0


def test_a_model_gets_pixels_as_stored_unless_asked(raw, converted):
    assert raw.run["slide"]["colours"] == "as stored"
    assert raw.run["settings"]["icc"] is False
    assert converted.run["slide"]["colours"] == CONVERTED
    assert converted.run["settings"]["icc"] is True
    assert not np.array_equal(raw.values[0], raw.values[2])
    np.testing.assert_array_equal(converted.values, raw.values[::-1])
    assert raw.run["plan"]["slide"] != converted.run["plan"]["slide"]


def test_a_slide_that_was_opened_so_is_seen_so(path, converted):
    with open_slide(path, icc=True) as slide:
        heatmap = compute(slide)
    assert heatmap.run["settings"]["icc"] is True
    assert heatmap.run["plan"] == converted.run["plan"]
    np.testing.assert_array_equal(bits(heatmap), bits(converted))


def test_an_open_slide_is_left_open_and_as_it_was(path, converted):
    with open_slide(path) as slide:
        np.testing.assert_array_equal(bits(compute(slide, icc=True)), bits(converted))
        assert slide.read_region(0, 0, 0, 500, 600).tolist() == tissue(500, 600).tolist()


def test_windows_at_coordinates(path, tmp_path):
    coords = np.array([[0, 0], [100, 200], [301, 77]])
    options = {"window": 50, "level": 0, "batch_size": 4}
    stored = predict_windows(path, mean_rgb, coords, **options)
    seen = predict_windows(path, mean_rgb, coords, icc=True, out=tmp_path / "a.zarr", **options)
    np.testing.assert_array_equal(seen, stored[:, ::-1])
    assert wh.open_heatmap(tmp_path / "a.zarr").run["slide"]["colours"] == CONVERTED


def test_it_is_yes_or_no(path):
    for value in ("yes", 1, None):
        with pytest.raises(GridError, match="icc is "):
            compute(path, icc=value)


@pytest.mark.parametrize("icc", [True, False])
def test_a_resumed_run_sees_the_same_colours(path, tmp_path, raw, converted, icc):
    begun(tmp_path / "a.zarr", path, icc=icc)
    run = resume(tmp_path / "a.zarr", model=mean_rgb)
    assert isinstance(run.plan.slide, IccSlide) is icc
    list(run.pieces())
    wanted = converted if icc else raw
    heatmap = wh.open_heatmap(tmp_path / "a.zarr")
    np.testing.assert_array_equal(bits(heatmap), bits(wanted))
    assert heatmap.run["slide"]["colours"] == wanted.run["slide"]["colours"]


def test_a_run_over_a_slide_opened_so_is_resumed_from_its_path(path, tmp_path, converted):
    with open_slide(path, icc=True) as slide:
        begun(tmp_path / "a.zarr", slide)
    list(resume(tmp_path / "a.zarr", model=mean_rgb).pieces())
    np.testing.assert_array_equal(bits(wh.open_heatmap(tmp_path / "a.zarr")), bits(converted))


@pytest.mark.parametrize("icc", [True, False])
def test_colours_are_never_mixed(path, tmp_path, icc):
    begun(tmp_path / "a.zarr", path, icc=icc)
    with pytest.raises(PlanMismatchError, match=r"begun with colours .*, not .* - ") as caught:
        compute(path, out=tmp_path / "a.zarr", icc=not icc)
    assert CONVERTED in str(caught.value)
    assert "as stored" in str(caught.value)


def test_without_a_profile_it_is_said_and_computed_as_stored(plain, tmp_path):
    stored = compute(plain)
    begun(tmp_path / "a.zarr", plain, icc=True)
    run = resume(tmp_path / "a.zarr", model=mean_rgb)
    list(run.pieces())
    told = run.record["slide"]
    assert told["colours"] == "as stored"
    assert "no ICC profile: colours as stored" in told["warnings"]
    assert run.record["plan"] == stored.run["plan"]
    np.testing.assert_array_equal(bits(run.heatmap), bits(stored))


# the command line

RUN = ["--model", "hematoxylin", "--tissue", "none", "--window", "64", "--level", "0"]


def call(*words):
    return cli.main([str(word) for word in words])


def test_run_resume_and_export(path, tmp_path, capsys):
    out, whole = tmp_path / "a.zarr", tmp_path / "whole.zarr"
    control = RunControl()
    settings = {"tissue": "none", "window": 64, "level": 0, "icc": True, "batch_size": 4}
    run = prepare(path, "hematoxylin", out=out, control=control, **settings)
    for _ in itertools.islice(run.pieces(), 2):
        control.cancel()
    assert call("resume", out) == 0
    assert call("run", path, *RUN, "--icc", "--batch-size", "4", "--out", whole) == 0
    assert call("export", out, tmp_path / "a.png") == 0
    resumed, at_once = wh.open_heatmap(out), wh.open_heatmap(whole)
    assert resumed.run["slide"]["colours"] == at_once.run["slide"]["colours"] == CONVERTED
    np.testing.assert_array_equal(bits(resumed), bits(at_once))
    assert "drawn without the slide" not in capsys.readouterr().err


def test_a_picture_shows_the_colours_that_the_model_saw(path, tmp_path):
    pictures = []
    for name, options in (("raw", []), ("icc", ["--icc"])):
        out, file = tmp_path / f"{name}.zarr", tmp_path / f"{name}.png"
        roi = ["--roi", "0,0,64,64"]
        assert call("run", path, *RUN, *roi, *options, "--out", out, "--quiet") == 0
        assert call("export", out, file) == 0
        pictures.append(np.asarray(Image.open(file).convert("RGB"))[250:300, 250:300].astype(int))
    assert abs(pictures[0] - pictures[1][..., ::-1]).max() <= 2
    assert abs(pictures[0] - pictures[1]).max() > 20


def test_run_notes_that_there_is_no_profile(plain, tmp_path, capsys):
    assert call("run", plain, *RUN, "--icc", "--out", tmp_path / "a.zarr") == 0
    assert "note: no ICC profile: colours as stored" in capsys.readouterr().err
    assert call("run", plain, *RUN, "--out", tmp_path / "b.zarr") == 0
    assert "ICC" not in capsys.readouterr().err


def test_info_names_the_profile(path, capsys):
    assert call("info", path) == 0
    assert f"colours     as stored; ICC profile: {SWAPPED}" in capsys.readouterr().out
