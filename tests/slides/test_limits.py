"""Headers that claim too much are refused before anything is allocated by them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import tifffile

from made_slides import APERIO, noise, tissue, write_tiff
from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import guard, open_slide, tiffheader
from napari_wsi_heatmap.slides.tiffheader import BadTiff, directories, sub_directories

needs_signals = pytest.mark.skipif(os.name != "posix", reason="deaths are told by POSIX signals")
MIB = 1 << 20


def point_tag(path, tag, count, place, *, kind=None):
    """Let a tag of every directory state `count` values at `place`."""
    with tifffile.TiffFile(path) as tiff:
        entries = [page.tags[tag].offset for page in tiff.pages]
        big = tiff.is_bigtiff
    with path.open("r+b") as file:
        for at in entries:
            if kind is not None:
                file.seek(at + 2)
                file.write(struct.pack("<H", kind))
            file.seek(at + 4)
            file.write(struct.pack("<QQ" if big else "<II", count, place))


def grown(path, more):
    """Append that many zeros without writing them; return where they begin."""
    size = path.stat().st_size
    os.truncate(path, size + more)
    return size


def described(path, pages, length):
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(pages):
            tiff.write(noise(64, 64), tile=(64, 64), description="x" * 99, metadata=None)
    point_tag(path, "ImageDescription", length, grown(path, length))
    return path


def refused(path, match):
    """The header check refuses, with little memory, and so does `open_slide`."""
    tracemalloc.start()
    with pytest.raises(SlideOpenError, match=match) as caught:
        guard.check_header(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * MIB
    assert str(caught.value).isprintable()
    with pytest.raises(SlideOpenError, match=match):
        open_slide(path)


class TestDescriptions:
    def test_a_long_one_is_refused(self, tmp_path):
        refused(described(tmp_path / "a.tif", 1, 9 * MIB), "description of 9 MiB, at most 8 MiB")

    def test_a_longish_one_is_not(self, tmp_path):
        path = described(tmp_path / "a.tif", 1, 3 * MIB)
        with open_slide(path, "openslide") as slide:
            assert slide.levels[0].shape == (64, 64)

    def test_shared_by_many_directories(self, tmp_path):
        # 17 s in libtiff where the limit of each is 16 MiB.
        refused(described(tmp_path / "a.tif", 100, 6 * MIB), "its header claims 600 MiB of tags")

    def test_more_text_than_is_kept(self, tmp_path):
        refused(described(tmp_path / "a.tif", 300, 100_000), "hold more than 16 MiB of text")


def write_big(path, **options):
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(tissue(256, 256), tile=(64, 64), metadata=None, **options)
    return path


def restate(path, page_tag, value):
    """Rewrite a number of a BigTIFF's first directory."""
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags[page_tag].offset
    with path.open("r+b") as file:
        file.seek(at + 2)
        file.write(struct.pack("<HQQ", 16, 1, value))


class TestTables:
    def test_more_tiles_than_anybody_has(self, tmp_path):
        path = write_big(tmp_path / "a.tif", compression="zlib", photometric="rgb")
        for tag, value in {
            "ImageWidth": 1 << 16,
            "ImageLength": 1 << 15,
            "TileWidth": 16,
            "TileLength": 16,
        }.items():
            restate(path, tag, value)
        tiles = 1 << 23
        for tag in ("TileOffsets", "TileByteCounts"):
            point_tag(path, tag, tiles, grown(path, 8 * tiles), kind=16)
        refused(path, f"a level of {tiles} tiles, at most 4194304 are read")

    def test_a_count_of_4_billion(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [noise(256, 256)], tile=64)
        point_tag(path, "TileOffsets", 2**32 - 1, 8)
        refused(path, "a level of 4294967295 tiles|16384 MiB of tags")

    def test_a_count_of_4_billion_in_a_tag_that_nobody_needs(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [noise(256, 256)], tile=64)
        point_tag(path, "Software", 2**32 - 1, 8)
        refused(path, "its header claims 4096 MiB of tags")

    def test_a_large_slide_is_no_fault(self, tmp_path):
        # 131072 px square in tiles of 256: the table of 262144 tiles is looked at in blocks.
        path = tmp_path / "large.tif"
        side, tile = 1 << 17, b"\0" * 300
        tiles = (tile for _ in range((side // 256) ** 2))
        with tifffile.TiffWriter(path, bigtiff=True) as tiff:
            options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
            tiff.write(tiles, shape=(side, side, 3), dtype=np.uint8, metadata=None, **options)
        tracemalloc.start()
        (only,) = guard.check_header(str(path))
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        tracemalloc.stop()
        assert only.shape == (side, side)


READ_TILE_10 = """
import resource, sys, openslide
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
openslide.OpenSlide(sys.argv[1]).read_region((128, 128), 0, (64, 64))
"""


def claim_tile_length(path, index, length):
    with tifffile.TiffFile(path) as tiff:
        counts = list(tiff.pages[0].databytecounts)
    counts[index] = length
    place = path.stat().st_size
    with path.open("ab") as file:
        file.write(np.array(counts, "<u8").tobytes())
    point_tag(path, "TileByteCounts", len(counts), place, kind=16)


@needs_signals
@pytest.mark.parametrize("compression", ["jpeg", 33005])
class TestLengthOfATile:
    """One of 2^40 bytes, in the middle of the slide where the child does not read."""

    def hostile(self, path, compression):
        description = APERIO.format(w=256, h=256, more="|MPP = 0.5")
        colours = "ycbcr" if compression == "jpeg" else "rgb"
        write_big(path, compression=compression, photometric=colours, description=description)
        claim_tile_length(path, 10, 1 << 40)
        return path

    def test_kills_who_reads_it(self, tmp_path, compression):
        path = self.hostile(tmp_path / "a.svs", compression)
        command = [sys.executable, "-c", READ_TILE_10, path]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == -6
        assert b"failed to allocate 1099511627776 bytes" in done.stderr

    def test_is_refused_by_the_table(self, tmp_path, compression):
        path = self.hostile(tmp_path / "a.svs", compression)
        refused(path, "a tile of 64 x 64 pixels claims 1099511627776 bytes")

    def test_also_in_a_table_that_claims_more_than_is_there(self, tmp_path, compression):
        path = self.hostile(tmp_path / "a.svs", compression)
        place = path.stat().st_size - 16 * 8
        point_tag(path, "TileByteCounts", 1000, place, kind=16)
        refused(path, "a tile of 64 x 64 pixels claims 1099511627776 bytes")


class TestSubDirectories:
    @pytest.fixture(params=[False, True], ids=["classic", "big"])
    def path(self, request, tmp_path):
        path = tmp_path / "a.ome.tif"
        options = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
        with tifffile.TiffWriter(path, bigtiff=request.param) as tiff:
            tiff.write(noise(256, 256), subifds=2, **options)
            tiff.write(noise(128, 128), subfiletype=1, **options)
            tiff.write(noise(64, 64), subfiletype=1, **options)
        return path

    def of(self, path):
        return sub_directories(str(path), directories(str(path))[0])

    def test_in_their_order(self, path):
        found = self.of(path)
        assert [d.shape for d in found] == [(128, 128), (64, 64)]
        assert [d.tile for d in found] == [(64, 64)] * 2
        assert [guard.dangerous(d) or guard.heavy_tile(str(path), d) for d in found] == [None] * 2

    def test_none(self, tmp_path):
        assert self.of(write_tiff(tmp_path / "a.tif", [noise(64, 64)], tile=64)) == ()

    @pytest.mark.parametrize(
        ("offsets", "reason"),
        [
            ([2**31, 2**31 - 8], "beyond the end"),
            ([500, 500], "wrongly"),
            ([0, 4], "inside the file's header"),
            (range(16, 16 + 300), "lists 300 smaller images"),
        ],
    )
    def test_nonsense(self, path, offsets, reason):
        place = path.stat().st_size
        with path.open("ab") as file:
            file.write(np.array(offsets, "<u8").tobytes())
        point_tag(path, "SubIFDs", len(offsets), place, kind=16)
        with pytest.raises(BadTiff, match=reason):
            self.of(path)
        # Who reads the main chain only does not care.
        assert len(guard.check_header(str(path))) == 1

    def test_of_a_type_that_is_no_place(self, path):
        with tifffile.TiffFile(path) as tiff:
            tag = tiff.pages[0].tags["SubIFDs"]
        point_tag(path, "SubIFDs", tag.count, tag.valueoffset, kind=2)
        with pytest.raises(BadTiff, match="wrongly"):
            self.of(path)

    def test_one_that_is_its_own_parent_ends(self, path):
        with path.open("rb") as file:
            head = file.read(16)
        (first,) = struct.unpack_from(
            "<Q" if head[2] == 43 else "<I", head, 8 if head[2] == 43 else 4
        )
        place = path.stat().st_size
        with path.open("ab") as file:
            file.write(struct.pack("<QQ", first, place))
        point_tag(path, "SubIFDs", 1, place, kind=16)
        if head[2] == 43:
            point_tag(path, "SubIFDs", 1, first, kind=16)  # one value stands in the entry itself
        assert [d.shape for d in self.of(path)] == [(256, 256)]


def chain(path, directories_, entries):
    """A chain of directories that all share most of their entries' numbers."""
    raw = bytearray(b"II*\0" + struct.pack("<I", 8))
    body = b"".join(struct.pack("<HHII", 1000 + i, 4, 1, 5) for i in range(entries))
    for _ in range(directories_):
        following = len(raw) + 2 + len(body) + 4
        raw += struct.pack("<H", entries) + body + struct.pack("<I", following)
    raw[-4:] = bytes(4)
    path.write_bytes(raw)
    return path


def test_entries_of_all_directories_are_bounded(tmp_path):
    path = chain(tmp_path / "a.tif", 60, 4000)
    tracemalloc.start()
    with pytest.raises(BadTiff, match="more than 131072 entries"):
        directories(str(path))
    assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    tracemalloc.stop()
    assert len(directories(str(chain(tmp_path / "b.tif", 30, 4000)))) == 30


def test_the_limits_are_those_of_real_slides(data_dir):
    """No real slide comes near any of them."""
    for path in sorted([*data_dir.glob("slides/*/*"), *data_dir.glob("vendors/*")]):
        if not path.is_file() or not tiffheader.is_tiff(path.read_bytes()[:4]):
            continue
        found = guard.check_header(str(path))
        assert sum(d.claimed for d in found) < guard.MAX_TAGS / 100
        assert sum(len(d.entries) for d in found) < tiffheader.MAX_ENTRIES / 100
        for directory in found:
            assert guard.heavy_tile(str(path), directory) is None
            assert len(sub_directories(str(path), directory)) < 10
