"""Opening, reading and closing again and again leaves neither files nor memory behind."""

from __future__ import annotations

import sys

import pytest
from leak_series import cycles_of
from mutations import damage_tile

from made_slides import noise, patch_tags, tissue, write_aperio, write_tiff

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CYCLES = 300
MOST_MB = 5


def svs(folder):
    return write_aperio(folder / "a.svs", [tissue(512, 512), tissue(256, 256)])


def smashed(folder):
    path = svs(folder)
    damage_tile(path, 0, "smashed")
    return path


def generic(folder):
    return write_tiff(folder / "a.tif", [noise(512, 512), noise(256, 256)])


def lfs_pointer(folder):
    path = folder / "a.svs"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    return path


def cut_off(folder):
    path = svs(folder)
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def dangerous(folder):
    path = generic(folder)
    patch_tags(path, 0, TileWidth=65536)
    return path


def unopenable(folder):
    path = generic(folder)
    patch_tags(path, 0, Compression=52479)
    return path


MADE = {f.__name__: f for f in (svs, generic, smashed)}
REFUSED = {f.__name__: f for f in (lfs_pointer, cut_off, dangerous, unopenable)}
REAL = {
    "mrxs": "slides/mrxs/Mirax2-Fluorescence-2.mrxs",
    "dicom": "slides/dicom/CMU-1-Small-Region",
    "ndpi": "slides/ndpi/test3-DAPI-2-(387).ndpi",
}


def assert_nothing_left(left):
    assert left.files == 0
    assert left.threads == 0
    assert left.mb < MOST_MB


@pytest.mark.parametrize("backend", [None, "openslide"])
@pytest.mark.parametrize("name", MADE)
def test_made_slides(tmp_path, name, backend):
    left = cycles_of(MADE[name](tmp_path), CYCLES, backend)
    assert_nothing_left(left)
    assert left.backend == (backend or "tiff")
    assert left.failed_reads == (CYCLES if name == "smashed" else 0)


@pytest.mark.parametrize("backend", [None, "openslide"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_files(tmp_path, name, backend):
    left = cycles_of(REFUSED[name](tmp_path), CYCLES, backend)
    assert_nothing_left(left)
    assert left.backend == "refused"


@pytest.mark.parametrize("name", REAL)
def test_formats_that_are_no_tiff(data_dir, name):
    path = data_dir / REAL[name]
    if path.is_dir():
        path = min(path.glob("*.dcm"))
    left = cycles_of(path, CYCLES // 3)
    assert_nothing_left(left)
    assert left.backend == "openslide"
