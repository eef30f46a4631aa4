"""Headers of TIFFs, read by hand: against tifffile, and against nonsense."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made_slides import noise, write_aperio, write_tiff
from napari_wsi_heatmap.slides import tiffheader
from napari_wsi_heatmap.slides.tiffheader import BadTiff, directories, is_tiff
from napari_wsi_heatmap.slides.tifftables import tiles_beyond_end


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("header") / "a.tif"
    return write_tiff(path, [noise(300, 200), noise(150, 100)], tile=64)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_reads_what_tifffile_reads(tmp_path, bigtiff, byteorder):
    path = tmp_path / "a.tif"
    text = "a description, longer than a few bytes"
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as tiff:
        for index, size in enumerate((300, 150)):
            tiff.write(
                np.zeros((size, size + 1, 3), np.uint16),
                tile=(64, 128),
                photometric="rgb",
                subfiletype=index,
                description=text,
                metadata=None,
            )
    found = directories(str(path))
    assert [d.shape for d in found] == [(300, 301), (150, 151)]
    assert {d.tile for d in found} == {(64, 128)}
    assert {d.samples for d in found} == {3}
    assert {d.numbers[tiffheader.BITS] for d in found} == {(16, 16, 16)}
    assert {d.description for d in found} == {text}
    assert all(d.tiled for d in found)
    assert [tiles_beyond_end(str(path), d) for d in found] == [(0, 15), (0, 6)]


def test_real_slides_like_tifffile(data_dir):
    for path in sorted([*data_dir.glob("slides/*/*"), *data_dir.glob("vendors/*")]):
        if not path.is_file() or not is_tiff(path.read_bytes()[:4]):
            continue
        found = directories(str(path))
        with tifffile.TiffFile(path) as tiff:
            assert len(found) == len(tiff.pages)
            for ours, page in zip(found, tiff.pages, strict=True):
                assert ours.shape == (page.imagelength, page.imagewidth)
                assert ours.tiled == ("TileWidth" in page.tags)
                assert ours.samples == page.samplesperpixel
        assert all(tiles_beyond_end(str(path), d)[0] == 0 for d in found if d.tiled)


def test_a_strip_is_no_tile(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(64, 64), photometric="rgb")
    (only,) = directories(str(path))
    assert not only.tiled
    assert only.tile == (0, 0)


@pytest.mark.parametrize("size", range(0, 200, 9))
def test_cut_off_anywhere_in_the_headers(plain, tmp_path, size):
    path = tmp_path / "cut.tif"
    path.write_bytes(plain.read_bytes()[:size])
    with pytest.raises(BadTiff) as caught:
        directories(str(path))
    assert caught.value.cut_off


def test_tiles_cut_off(plain, tmp_path):
    path = tmp_path / "cut.tif"
    path.write_bytes(plain.read_bytes()[:-20])
    lost = [tiles_beyond_end(str(path), d)[0] for d in directories(str(path))]
    assert sum(lost) >= 1


def test_a_chain_in_a_circle(plain, tmp_path):
    raw = bytearray(plain.read_bytes())
    (first,) = struct.unpack_from("<I", raw, 4)
    (count,) = struct.unpack_from("<H", raw, first)
    struct.pack_into("<I", raw, first + 2 + 12 * count, first)
    path = tmp_path / "loop.tif"
    path.write_bytes(raw)
    with pytest.raises(BadTiff, match="circle"):
        directories(str(path))


def test_a_chain_without_end(tmp_path):
    entry = struct.pack("<HHII", 256, 4, 1, 5)
    raw = bytearray(b"II*\0" + struct.pack("<I", 8))
    for _ in range(tiffheader.MAX_DIRECTORIES + 2):
        raw += struct.pack("<H", 1) + entry + struct.pack("<I", len(raw) + 18)
    path = tmp_path / "long.tif"
    path.write_bytes(raw)
    with pytest.raises(BadTiff, match="more than 4096"):
        directories(str(path))


def test_many_directories_are_no_fault(tmp_path):
    path = tmp_path / "stack.ome.tif"
    planes = np.zeros((150, 64, 64), np.uint8)
    tifffile.imwrite(path, planes, tile=(64, 64), photometric="minisblack")
    assert len(directories(str(path))) == 150


def test_no_image(tmp_path):
    path = tmp_path / "none.tif"
    path.write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(BadTiff, match="without any image"):
        directories(str(path))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=12),
    keep=st.integers(0, 100_000),
)
def test_nonsense_never_raises_anything_else(tmp_path, edits, keep):
    path = tmp_path / "base.svs"
    if not path.exists():
        write_aperio(path, [np.zeros((256, 256, 3), np.uint8)] * 2, tile=64)
    raw = bytearray(path.read_bytes()[: keep + 1])
    for at, byte in edits:
        raw[at % len(raw)] = byte
    broken = tmp_path / "broken.svs"
    broken.write_bytes(raw)
    try:
        found = directories(str(broken))
    except BadTiff:
        return
    assert found
    for directory in found:
        lost, listed = tiles_beyond_end(str(broken), directory)
        assert 0 <= lost <= listed
