"""Fingerprints tell contents apart; identities tell that a file was replaced."""

from __future__ import annotations

import os
import shutil

import pytest

from made_slides import noise, smash_tile, write_tiff
from napari_wsi_heatmap.slides import content, open_slide


@pytest.fixture
def path(tmp_path):
    return write_tiff(tmp_path / "a.tif", [noise(300, 300)])


def big_file(path, size=20 << 20):
    with path.open("wb") as file:
        file.truncate(size)
    return path


def poke(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))


def test_a_copy_has_the_same_fingerprint(path, tmp_path):
    copy = shutil.copy(path, tmp_path / "renamed.tif")
    assert content.fingerprint(str(copy)) == content.fingerprint(str(path))


def test_one_smashed_tile_changes_the_fingerprint(path):
    before = content.fingerprint(str(path))
    smash_tile(path, 1)
    assert content.fingerprint(str(path)) != before


@pytest.mark.parametrize("at", [0, 5, 65_000, -1, -60_000, 10 << 20])
def test_header_tail_and_samples_of_a_large_file_count(tmp_path, at):
    path = big_file(tmp_path / "big.tif", 65 * (400 << 10))
    size = path.stat().st_size
    before = content.fingerprint(str(path))
    at = 26 * (size // 65) if at == 10 << 20 else at % size
    poke(path, at)
    assert content.fingerprint(str(path)) != before


def test_size_counts(tmp_path):
    one = content.fingerprint(str(big_file(tmp_path / "1.tif")))
    assert content.fingerprint(str(big_file(tmp_path / "2.tif", (20 << 20) + 1))) != one


def test_a_mirax_slide_is_all_of_its_folder(tmp_path):
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "a").mkdir()
    for name, text in (("Slidedat.ini", b"[GENERAL]"), ("Data0000.dat", b"pixels")):
        (tmp_path / "a" / name).write_bytes(text)
    path = str(tmp_path / "a.mrxs")
    before = content.fingerprint(path)
    assert len(content.slide_files(path)) == 3
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixelz")
    assert content.fingerprint(path) != before


def test_a_vms_slide_is_what_its_index_names(tmp_path):
    (tmp_path / "a.vms").write_text("[Virtual Microscope Specimen]\nImageFile=im.jpg\nX=../a\n")
    (tmp_path / "im.jpg").write_bytes(b"1")
    (tmp_path / "other.jpg").write_bytes(b"2")
    names = [os.path.basename(name) for name in content.slide_files(str(tmp_path / "a.vms"))]
    assert names == ["a.vms", "im.jpg"]


def test_every_file_of_a_dicom_series_is_the_same_slide(data_dir, tmp_path):
    source = data_dir / "vendors" / "dicom_3levels"
    folder = shutil.copytree(source, tmp_path / "series")
    shutil.copy(data_dir / "slides" / "openslide-python" / "boxes_0.dcm", folder)
    files = sorted(folder.glob("1.2*.dcm"))
    assert {len(content.slide_files(str(name))) for name in files} == {6}
    assert len({content.fingerprint(str(name)) for name in files}) == 1
    assert content.slide_files(str(folder / "boxes_0.dcm")) == (str(folder / "boxes_0.dcm"),)


def test_real_slides_differ(data_dir):
    paths = [p for p in data_dir.glob("slides/*/*.*") if p.is_file()]
    assert len(paths) > 5
    assert len({content.fingerprint(str(p)) for p in paths}) == len(paths)


class TestChanged:
    def test_untouched(self, path):
        with open_slide(path) as slide:
            size, mtime, inode = slide.identity()
            status = path.stat()
            assert (size, mtime, inode) == (status.st_size, status.st_mtime_ns, status.st_ino)
            slide.read_region(0, 0, 0, 64, 64)
            assert slide.changed() is None

    def test_gone(self, path):
        with open_slide(path) as slide:
            path.rename(path.with_name("away.tif"))
            assert slide.changed() == "a.tif is gone"
            path.with_name("away.tif").rename(path)
            assert slide.changed() is None

    def test_written_to(self, path):
        with open_slide(path) as slide:
            with path.open("ab") as file:
                file.write(b"x")
            assert slide.changed() == "a.tif was changed or replaced"

    def test_replaced_by_a_slide_of_the_same_size_and_time(self, path, tmp_path):
        with open_slide(path) as slide:
            status = path.stat()
            other = write_tiff(tmp_path / "b.tif", [noise(300, 300, seed=0)])
            os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert other.stat().st_size == status.st_size
            os.replace(other, path)
            assert slide.changed() == "a.tif was changed or replaced"
