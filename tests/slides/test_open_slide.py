"""`open_slide`: what it takes, what it refuses, what it costs to import."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from made_slides import noise, strided, tissue, write_aperio, write_tiff
from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import BACKENDS, SLIDE_EXTENSIONS, looks_like_slide, open_slide
from napari_wsi_heatmap.slides.array import ArraySlide


@pytest.fixture(scope="module")
def svs(tmp_path_factory):
    return write_aperio(tmp_path_factory.mktemp("open") / "made.svs", [tissue(300, 400)])


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory):
    path = tmp_path_factory.mktemp("open") / "plain.tif"
    return write_tiff(path, [noise(300, 400)], mpp=None)


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_takes_any_path(svs, kind):
    with open_slide(kind(svs)) as slide:
        assert slide.path == str(svs)
        assert slide.name == "made.svs"
        assert slide.backend == "tiff"


def test_takes_a_relative_path_and_a_home(svs, monkeypatch):
    monkeypatch.chdir(svs.parent)
    monkeypatch.setenv("HOME", str(svs.parent))
    monkeypatch.setenv("USERPROFILE", str(svs.parent))
    for name in ("made.svs", "~/made.svs"):
        with open_slide(name) as slide:
            assert slide.path == str(svs)


def test_a_slide_passes_through(svs):
    slide = ArraySlide([noise(8, 8)])
    assert open_slide(slide) is slide
    assert open_slide(slide, backend="array") is slide
    with pytest.raises(SlideOpenError, match="no other backend or mpp"):
        open_slide(slide, mpp=0.5)
    with pytest.raises(SlideOpenError, match="no other backend or mpp"):
        open_slide(slide, backend="openslide")


def test_backend_by_name(svs):
    with open_slide(svs, backend="openslide") as slide:
        assert slide.backend == "openslide"
    with pytest.raises(SlideOpenError, match=r"no backend 'bioformats' - known: tiff, openslide"):
        open_slide(svs, backend="bioformats")


def test_every_row_of_the_table_can_be_imported():
    for row in BACKENDS:
        module = __import__(row.module, fromlist=[row.cls])
        assert getattr(module, row.cls).backend == row.name


def without(monkeypatch, library, *backends):
    for backend in backends:
        monkeypatch.delitem(sys.modules, f"napari_wsi_heatmap.slides.{backend}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)


def test_backend_whose_library_is_missing(svs, monkeypatch):
    without(monkeypatch, "openslide", "openslide", "tiff", "handle")
    with pytest.raises(SlideOpenError, match="pip install openslide-bin"):
        open_slide(svs)


def test_the_next_backend_reads_where_the_library_of_the_first_is_missing(svs, monkeypatch):
    modules = "tiff", "tiffpyramid", "tifflayout", "tilereading", "tilecodecs"
    without(monkeypatch, "simplejpeg", *modules)
    with open_slide(svs) as slide:
        assert slide.backend == "openslide"
        assert "simplejpeg" in slide.why
    with pytest.raises(SlideOpenError, match="simplejpeg"):
        open_slide(svs, backend="tiff")


def test_who_is_not_sure_says_why(data_dir):
    path = data_dir / "vendors" / "leica.scn"
    with open_slide(path) as slide:
        assert (slide.backend, slide.why) == ("openslide", "not tiff: format leica")
    with pytest.raises(SlideOpenError, match=r"not tiff: format leica - .*leica.scn - open it w"):
        open_slide(path, backend="tiff")


@pytest.mark.parametrize("path", [None, 5, ["a.svs"], {}])
def test_no_path_at_all(path):
    with pytest.raises(SlideOpenError, match="is not a path"):
        open_slide(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "no such file"),
        ("/nowhere/at/all.svs", "no such file"),
        ("a\0b.svs", "no such file"),
        ("https://example.org/a.svs", "web address - https://example.org/a.svs - download"),
        ("file:///tmp/a.svs", "web address"),
    ],
)
def test_no_such_file(path, reason):
    with pytest.raises(SlideOpenError, match=reason):
        open_slide(path)


@pytest.mark.parametrize("mpp", [0.3, (0.3, 0.3), np.float32(0.3), [0.3, 0.3]])
def test_the_caller_states_mpp(uncalibrated, mpp):
    with open_slide(uncalibrated, mpp=mpp) as slide:
        assert slide.mpp == pytest.approx((0.3, 0.3))
        assert slide.warnings == ()


def test_the_callers_mpp_is_y_x_and_overrides(svs):
    with open_slide(svs, mpp=(0.25, 0.3)) as slide:
        assert slide.mpp == (0.25, 0.3)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), 1e9, (0.5, 0), (1, 2, 3), "abc", ("a", "b")])
def test_the_callers_mpp_must_be_believable(svs, mpp):
    with pytest.raises(SlideOpenError, match="mpp="):
        open_slide(svs, mpp=mpp)


def test_no_mpp_is_said(uncalibrated):
    with open_slide(uncalibrated) as slide:
        assert slide.mpp is None
        assert slide.mpp_at(0) is None
        assert slide.warnings == (
            "the file states no pixel size (µm per pixel): treated as uncalibrated",
        )


@pytest.mark.parametrize("mpp", [None, (0.25, 0.3)])
def test_pickles_as_its_path(svs, mpp):
    with open_slide(svs, mpp=mpp) as slide:
        again = pickle.loads(pickle.dumps(slide))
        with again:
            assert again is not slide
            assert (again.path, again.mpp) == (slide.path, slide.mpp)
            assert again.fingerprint == slide.fingerprint
            box = 0, 10, 20, 64, 64
            np.testing.assert_array_equal(again.read_region(*box), slide.read_region(*box))


def test_importing_costs_no_library():
    code = (
        "import sys, napari_wsi_heatmap.slides as s;"
        "assert not s.looks_like_slide('no.svs');"
        "print(sorted({'torch', 'dask', 'openslide', 'tifffile', 'PIL', 'scipy', 'pandas'}"
        " & set(sys.modules)))"
    )
    source = str(Path(__file__).parents[2] / "src")
    env = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "[]", done.stderr


class TestLooksLikeSlide:
    @pytest.mark.parametrize("ending", SLIDE_EXTENSIONS)
    def test_every_ending_also_in_capitals(self, tmp_path, ending):
        for name in (f"a{ending}", f"B{ending.upper()}"):
            path = tmp_path / name
            path.write_bytes(b"II*\0 and so on")
            assert looks_like_slide(path)
            assert looks_like_slide(str(path))
            assert looks_like_slide(os.fsencode(path))

    def test_mrxs_begins_like_a_jpeg(self, tmp_path):
        path = tmp_path / "a.mrxs"
        path.write_bytes(b"\xff\xd8\xff\xe0")
        assert looks_like_slide(path)

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"version https://git-lfs.github.com/spec/v1\n",
            b"<!DOCTYPE html><html>",
            b"\n<HTML>",
            b"\x89PNG\r\n",
            b"PK\x03\x04",
        ],
    )
    def test_not_what_something_else_begins_with(self, tmp_path, head):
        path = tmp_path / "a.svs"
        path.write_bytes(head)
        assert not looks_like_slide(path)

    def test_not_other_endings_folders_pipes_or_nothing(self, tmp_path):
        (tmp_path / "folder.svs").mkdir()
        (tmp_path / "a.png").write_bytes(b"II*\0")
        paths = [tmp_path / "folder.svs", tmp_path / "a.png", tmp_path / "missing.svs"]
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "fifo.svs")
            paths.append(tmp_path / "fifo.svs")
        for path in (*paths, None, 5, [str(tmp_path)], "a\0.svs"):
            assert not looks_like_slide(path)


def test_levels_are_warned_of_when_they_are_squeezed(tmp_path):
    level0 = noise(600, 600)
    path = write_tiff(tmp_path / "a.tif", [level0, np.ascontiguousarray(level0[::2, ::3])])
    with open_slide(path) as slide:
        assert slide.levels[1].downsample == (2.0, 3.0)
        assert slide.warnings == ("level 1 is 2 times smaller in y and 3 in x",)
        down, across = slide.levels[1].shape
        np.testing.assert_array_equal(slide.read_region(1, 0, 0, down, across), level0[::2, ::3])


def test_many_opens_leak_nothing(svs, tmp_path):
    psutil = pytest.importorskip("psutil")
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"nothing of a slide")
    me = psutil.Process()

    def series():
        for _ in range(300):
            with open_slide(svs) as slide:
                slide.read_region(0, 0, 0, 64, 64)
            with pytest.raises(SlideOpenError):
                open_slide(tmp_path / "missing.svs")

    series()
    before = me.num_fds() if hasattr(me, "num_fds") else me.num_handles()
    memory = me.memory_info().rss
    series()
    after = me.num_fds() if hasattr(me, "num_fds") else me.num_handles()
    assert after <= before
    assert me.memory_info().rss - memory < 20 << 20


def test_a_pyramid_has_the_tile_of_its_file(tmp_path):
    path = write_tiff(tmp_path / "a.tif", strided(noise(700, 600), 2), tile=128)
    with open_slide(path) as slide:
        assert [level.tile for level in slide.levels] == [(128, 128)] * 2


def test_a_slide_from_a_function_that_fails_somewhere_still_has_a_fingerprint():
    def read(level, y, x, height, width):
        if y > 200:
            raise SlideReadError("a tile is damaged")
        return np.zeros((height, width, 3), np.uint8)

    slide = ArraySlide.from_callable(read, [(400, 400)])
    assert len(slide.fingerprint) == 64
    assert slide.fingerprint != ArraySlide([np.zeros((400, 400, 3), np.uint8)]).fingerprint
