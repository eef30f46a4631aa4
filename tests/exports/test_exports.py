"""Which format a file gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import napari_wsi_heatmap as wh
from exports.contract import files_of_at_most
from made import mean_grey, noise_slide
from made_features import with_features
from made_slides import noise, write_tiff
from napari_wsi_heatmap.errors import ExportError, StoreFullError
from napari_wsi_heatmap.exports import FORMATS, choose_format, export


def test_every_format_can_be_imported_and_found():
    for row in FORMATS:
        assert callable(row.writer())
        assert choose_format(Path("x"), row.name) is row


def test_an_ending_of_several_formats_means_the_first():
    assert choose_format(Path("a.h5")).name == "h5"
    assert choose_format(Path("a.h5"), "stamp").name == "stamp"
    assert choose_format(Path("a.tiff")).name == "tiff"
    assert choose_format(Path("a.tiff"), "overlay").name == "overlay"


def test_the_endings_that_are_promised():
    endings = {ending for row in FORMATS for ending in row.endings}
    promised = "csv geojson h5 png jpg tiff pdmcsv parquet json zarr"
    assert endings >= {f".{ending}" for ending in promised.split()}


@pytest.mark.parametrize(("file", "name"), [("a.doc", None), ("a", None), ("a.csv", "excel")])
def test_no_such_format_names_those_there_are(file, name):
    with pytest.raises(ExportError, match=r"there are csv .*png"):
        choose_format(Path(file), name)


KILLED = """if True:
    import os, signal, sys
    import napari_wsi_heatmap as wh
    heatmap = wh.open_heatmap(sys.argv[1])
    os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
    heatmap.export(sys.argv[2], format=sys.argv[3])
"""


@pytest.mark.skipif(os.name == "nt", reason="processes are killed in another way there")
@pytest.mark.parametrize("name", ["csv", "h5", "zarr"])
def test_killed_in_the_middle_leaves_nothing_under_the_name(tmp_path, name):
    out, path = tmp_path / "a.zarr", tmp_path / f"export.{name}"
    settings = {"window": 50, "tissue": "none", "progress": False}
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, out=out, **settings)
    command = [sys.executable, "-c", KILLED, out, path, name]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert not path.exists()
    assert export(heatmap, path) == path  # what was left does not stand in the way


@pytest.fixture(scope="module")
def featured():
    settings = {"window": 8, "tissue": "none", "progress": False}
    return wh.compute_heatmap(noise_slide(300, 700), with_features(), **settings)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
@pytest.mark.parametrize("name", ["csv", "geojson", "h5", "stamp", "parquet", "overlay"])
def test_a_disk_that_fills_up_half_way(tmp_path, featured, name):
    path = tmp_path / "a"
    with files_of_at_most(20_000), pytest.raises(StoreFullError, match="cannot write: "):
        export(featured, path, format=name)
    assert not list(tmp_path.iterdir())
    assert export(featured, path, format=name).stat().st_size > 20_000


def test_a_slide_is_not_taken_for_an_export(tmp_path):
    slide = write_tiff(tmp_path / "slide.tiff", [noise(600, 600)])
    pixels = slide.read_bytes()
    heatmap = wh.compute_heatmap(slide, mean_grey, window=100, tissue="none", progress=False)
    for name in ("tiff", "overlay"):
        with pytest.raises(ExportError, match="no such export of ours"):
            export(heatmap, slide, slide=slide, format=name)
    assert slide.read_bytes() == pixels
