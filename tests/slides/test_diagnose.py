"""The true cause why a file is no slide, one line each."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from made_slides import noise, write_tiff
from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.diagnose import why_not_a_slide

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes of POSIX")


@contextlib.contextmanager
def another_user():
    """Be nobody for a while, since root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def assert_cause(path, cause, do):
    reason = why_not_a_slide(str(path))
    assert cause in reason
    assert do in reason
    assert "\n" not in reason
    with pytest.raises(SlideOpenError, match=cause) as caught:
        open_slide(path)
    assert do in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_slide_has_none(tmp_path):
    assert why_not_a_slide(str(write_tiff(tmp_path / "a.tif", [noise(64, 64)]))) is None


def test_missing(tmp_path):
    assert_cause(tmp_path / "no.svs", "no such file", "check the path")
    (tmp_path / "file").write_text("x")
    assert_cause(tmp_path / "file" / "no.svs", "no such file", "check the path")
    assert_cause(tmp_path / ("n" * 300 + ".svs"), "cannot be reached: File name too long", "")


@posix
def test_links(tmp_path):
    (tmp_path / "dangling.svs").symlink_to(tmp_path / "gone.svs")
    (tmp_path / "a.svs").symlink_to(tmp_path / "b.svs")
    (tmp_path / "b.svs").symlink_to(tmp_path / "a.svs")
    assert_cause(tmp_path / "dangling.svs", "a link that leads nowhere", "not mounted")
    assert_cause(tmp_path / "a.svs", "a link that leads in a circle", "open the file itself")


def test_folders(tmp_path):
    (tmp_path / "folder.svs").mkdir()
    assert_cause(tmp_path / "folder.svs", "a folder", "open a slide file in it")
    (tmp_path / "slide").mkdir()
    (tmp_path / "slide.mrxs").write_bytes(b"\xff\xd8\xff")
    assert_cause(tmp_path / "slide", "data folder of a MRXS slide", "open the .mrxs file")


@posix
def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.svs")
    (tmp_path / "zero.svs").symlink_to("/dev/zero")
    listening = socket.socket(socket.AF_UNIX)
    with contextlib.closing(listening), contextlib.chdir(tmp_path):
        listening.bind("socket.svs")
        for name in ("fifo.svs", "zero.svs", "socket.svs"):
            assert_cause(tmp_path / name, "not a regular file", "open a slide file")


def test_empty(tmp_path):
    (tmp_path / "a.svs").touch()
    assert_cause(tmp_path / "a.svs", "the file is empty", "download or copy it again")


@posix
def test_no_permission(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perm")
    base = tmp_path_factory.getbasetemp()
    for parent in (folder, base, *base.parents):
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)
    path = write_tiff(folder / "a.tif", [noise(64, 64)])
    path.chmod(0)
    with another_user():
        assert_cause(path, "no permission to read the file", "ask its owner")
    path.chmod(0o644)
    folder.chmod(0o600)
    with another_user():
        assert_cause(path, "no permission to look into its folder", "ask its owner")
    folder.chmod(0o755)


@pytest.mark.parametrize(
    ("head", "cause", "do"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "an HTML or XML page", "download or copy it again"),
        (b"\xef\xbb\xbf\r\n <HTML lang='en'>", "an HTML or XML page", "download or copy it again"),
        (b"<?xml version='1.0'?><Error>", "an HTML or XML page", "download or copy it again"),
        (b"\x1f\x8b\x08", "a gzip archive", "unpack it first"),
        (b"PK\x03\x04", "a zip archive", "unpack it first"),
        (b"\x89PNG\r\n\x1a\n", "an ordinary PNG picture", "open it with napari itself"),
        (b"\xff\xd8\xff\xe0", "an ordinary JPEG picture", "open it with napari itself"),
        (b"some text", "not a slide of a format that OpenSlide reads", "tiled TIFF"),
    ],
)
def test_first_bytes(tmp_path, head, cause, do):
    path = tmp_path / "a.svs"
    path.write_bytes(head + bytes(100))
    if "format" in cause:
        assert why_not_a_slide(str(path)) is None
        with pytest.raises(SlideOpenError, match=f"{cause}.*{do}"):
            open_slide(path)
    else:
        assert_cause(path, cause, do)


class TestMirax:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "Slide 1.mrxs"
        path.write_bytes(b"\xff\xd8\xff\xe0 a thumbnail")
        return path

    @pytest.fixture
    def folder(self, path):
        path.with_suffix("").mkdir()
        return path.with_suffix("")

    def test_without_its_folder(self, path):
        assert_cause(path, "the folder 'Slide 1' that belongs beside", "copy it too")

    def test_without_its_index(self, path, folder):
        assert_cause(path, "Slide 1/Slidedat.ini is missing or empty", "copy the folder again")
        (folder / "Slidedat.ini").touch()
        assert_cause(path, "Slide 1/Slidedat.ini is missing or empty", "copy the folder again")
        (folder / "Slidedat.ini").write_text("[GENERAL]")
        assert_cause(path, "Slide 1/Index.dat is missing", "copy the folder again")


class TestTiff:
    def test_directory_beyond_the_end(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [noise(300, 300), noise(150, 150)])
        raw = path.read_bytes()
        with tifffile.TiffFile(path) as tiff:
            last = tiff.pages[1].offset
        path.write_bytes(raw[: last + 10])
        cause = "cut off: a TIFF directory lies beyond the end of the file"
        assert_cause(path, cause, "download or copy it again")

    def test_tiles_beyond_the_end(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [noise(512, 512)], compression=None)
        path.write_bytes(path.read_bytes()[:-300_000])
        assert_cause(path, "cut off or damaged: 2 of 4 tiles", "download or copy it again")

    def test_strips(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.zeros((300, 300, 3), np.uint8), photometric="rgb")
        assert_cause(path, "a striped TIFF", "convert it to a tiled pyramid")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_names_that_break_lines(tmp_path):
    path = os.fsencode(tmp_path) + b"/new\nline\xff\x1b[31m.svs"
    with open(path, "wb"):
        pass
    with pytest.raises(SlideOpenError) as caught:
        open_slide(path)
    assert str(caught.value).isprintable()
