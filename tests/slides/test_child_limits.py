"""What has no header that could be checked is left to a child process, within its limits."""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys

import pytest

from made_slides import noise, patch_tags, write_tiff
from napari_wsi_heatmap.errors import SlideError, SlideOpenError
from napari_wsi_heatmap.slides import open_slide, probe

resource = pytest.importorskip("resource")


class TestChild:
    @pytest.fixture
    def dicom(self, data_dir, tmp_path):
        raw = bytearray((data_dir / "slides" / "openslide-python" / "boxes_0.dcm").read_bytes())

        def write(**numbers):
            for (group, element, kind), value in numbers.values():
                start = raw.find(struct.pack("<HH", group, element) + kind)
                while start >= 0:
                    size = 2 if kind == b"US" else 4
                    raw[start + 8 : start + 8 + size] = value.to_bytes(size, "little")
                    start = raw.find(struct.pack("<HH", group, element) + kind, start + 1)
            path = tmp_path / "a.dcm"
            path.write_bytes(raw)
            return path

        return write

    ROWS, COLUMNS = (0x28, 0x10, b"US"), (0x28, 0x11, b"US")
    ALL_COLUMNS, ALL_ROWS = (0x48, 6, b"UL"), (0x48, 7, b"UL")

    def test_as_it_is_it_opens(self, dicom):
        with open_slide(dicom()) as slide:
            assert slide.levels[0].shape == (16, 16)

    def test_a_tile_of_16_gib_dies_in_the_child(self, dicom):
        path = dicom(a=(self.ROWS, 65535), b=(self.COLUMNS, 65535))
        with pytest.raises(SlideOpenError, match=r"crashes .*SIGABRT, asking for 16\.0 GiB"):
            open_slide(path)

    def test_a_slide_of_2_billion_pixels_a_side(self, dicom):
        side = (1 << 31) - 1
        path = dicom(a=(self.ALL_ROWS, side), b=(self.ALL_COLUMNS, side))
        with pytest.raises(SlideOpenError, match=f"it claims a side of {side} pixels"):
            open_slide(path)

    def test_a_pipe_among_the_files_of_a_slide(self, dicom, tmp_path):
        path = dicom()
        os.mkfifo(tmp_path / "b.dcm")  # OpenSlide looks into every file beside a DICOM
        verdict = probe.ask(str(path), timeout_s=2)
        assert verdict.refusal.startswith("OpenSlide did not answer within 2 s")

    @pytest.fixture
    def mirax(self, data_dir, tmp_path):
        source = data_dir / "slides" / "mrxs" / "Mirax2-Fluorescence-2"
        shutil.copytree(source, tmp_path / "a", copy_function=shutil.copyfile)
        (tmp_path / "a").chmod(0o755)  # the source may be read-only
        return shutil.copyfile(f"{source}.mrxs", tmp_path / "a.mrxs")

    @pytest.mark.parametrize("level", [1, 4, 6])
    def test_a_tile_of_2_billion_pixels_in_one_level_of_a_mrxs(self, mirax, level):
        # Only where there is tissue, and only in this level: neither corner nor overview shows it.
        index = mirax.with_suffix("") / "Slidedat.ini"
        before, section, after = index.read_bytes().partition(b"[LAYER_0_LEVEL_%d_SECTION]" % level)
        after = re.sub(rb"(DIGITIZER_HEIGHT = )\d+", rb"\g<1>2147483647", after, count=1)
        index.write_bytes(before + section + after)
        with pytest.raises(SlideOpenError, match=r"OpenSlide crashes on this file \(SIGABRT"):
            open_slide(mirax)

    def test_a_pipe_in_the_folder_of_a_mrxs(self, mirax, tmp_path):
        path = mirax
        (tmp_path / "a" / "Index.dat").unlink()
        os.mkfifo(tmp_path / "a" / "Index.dat")
        verdict = probe.ask(str(path), timeout_s=2)
        assert verdict.refusal.startswith("OpenSlide did not answer within 2 s")

    def test_its_memory_is_its_own(self, tmp_path):
        # 16 GiB are refused by the child's limit, whatever this process may take.
        path = write_tiff(tmp_path / "a.tif", [noise(512, 512)], compression="zlib")
        patch_tags(path, 0, ImageWidth=65536, ImageLength=65536, TileWidth=65536, TileLength=65536)
        before = resource.getrlimit(resource.RLIMIT_AS)
        assert "SIGABRT, asking for 16.0 GiB" in probe.ask(str(path)).refusal
        assert resource.getrlimit(resource.RLIMIT_AS) == before

    def test_without_a_child_the_header_check_stays(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        path = write_tiff(tmp_path / "a.tif", [noise(512, 512)])
        patch_tags(path, 0, TileWidth=65536)
        with pytest.raises(SlideError, match="its tiles are 65536 x 256 pixels"):
            open_slide(path)
