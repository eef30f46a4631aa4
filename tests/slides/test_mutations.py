"""Mutated slides: none kills, hangs or bloats the process, and every error is a line of ours."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from mutation_series import Tally, run_series
from mutations import MAKERS, damage_tile, flip_bits, make_base, mutated

from made_slides import decoded, noise, tissue, write_aperio
from napari_wsi_heatmap.errors import SlideReadError
from napari_wsi_heatmap.slides import guard, open_slide

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, limits memory")
BACKENDS = (None, "openslide")
SHORT = 40
LONG = 1000
"""Inputs for each of the bases, times two ways to open."""
MOST_MB = 200
"""By which one input of 0.3 MB may raise the peak."""


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_base_opens_and_reads_unmutated(tmp_path, name, backend):
    path = write_base(name, tmp_path)
    with open_slide(path, backend) as slide:
        assert slide.levels[0].shape == (256, 256)
        for level in range(len(slide.levels)):
            height, width = slide.levels[level].shape
            if "jpeg" in name or "JPEG" in name:
                wanted = decoded(path, level + 2 * ("Ventana" in name))
            else:
                wanted = (noise if name == "zlib" else tissue)(height, width)
            np.testing.assert_array_equal(slide.read_region(level, 0, 0, height, width), wanted)
        for image in slide.associated_images.values():
            assert image.shape == (40, 50, 3)


def test_the_same_seed_makes_the_same_file(tmp_path):
    base = make_base("zstd", tmp_path)
    made = [mutated("zstd", base, seed) for seed in range(20)]
    assert made == [mutated("zstd", base, seed) for seed in range(20)]
    assert len(set(made)) == 20


def assert_survived(tally: Tally, inputs: int) -> None:
    assert tally.deaths == []
    assert tally.hangs == []
    assert tally.unexpected == []
    assert tally.inputs == inputs == tally.refused + tally.opened
    assert tally.lost_files == 0
    assert tally.worst_mb < MOST_MB


@needs_linux
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_short_series(name, backend):
    tally = run_series(name, 0, SHORT, backend)
    assert_survived(tally, SHORT)
    assert tally.refused
    assert tally.opened


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_long_series(name, backend):
    assert_survived(run_series(name, 1_000_000, LONG, backend), LONG)


@needs_linux
def test_the_series_sees_a_death_a_hang_and_goes_on(monkeypatch, tmp_path):
    # What is measured above must be able to fail: a header check that lets everything pass.
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(SABOTAGE)
    monkeypatch.syspath_prepend(tmp_path)
    tally = run_series("lzw", 0, 12, "openslide")
    assert tally.inputs == 12
    assert [text.partition(":")[0] for text in tally.deaths] == ["lzw, seed 3, openslide"]
    assert "exit -6" in tally.deaths[0]
    assert [text.partition(":")[0] for text in tally.hangs] == ["lzw, seed 7, openslide"]
    assert len(tally.unexpected) == 1
    assert "ZeroDivisionError" in tally.unexpected[0]


SABOTAGE = """
import os, signal, sys
if sys.argv[:1] == ["-c"] or "mutation_series" in " ".join(sys.orig_argv):
    import napari_wsi_heatmap.slides.guard as guard
    def check_header(path):
        name = os.path.basename(path)
        if name.startswith("3."):
            os.abort()
        if name.startswith("7."):
            os.kill(os.getpid(), signal.SIGALRM)
        if name.startswith("9."):
            1 / 0
        return real(path)
    real, guard.check_header = guard.check_header, check_header
"""


PLAIN = [name for name in MAKERS if "Ventana" not in name]
"""Whose first directory is level 0."""
COMPRESSED = [name for name in PLAIN if "uncompressed" not in name]
HOW = ("smashed", "zeroed", "cut", "noise")
TILE = 9
"""Index of the damaged one: second in the third row of four."""
BOX = 0, 128, 64, 64, 64


@pytest.fixture
def no_child(monkeypatch):
    # Hundreds of files; what the child would say of them is a warning at most.
    monkeypatch.setattr(guard, "check_child", lambda path, fingerprint: None)


def write_base(name, folder):
    base = make_base(name, folder)
    return folder / f"base{base.suffix}"


def read(path, backend, box=BOX):
    """Pixels, or the error that was raised in place of them."""
    with open_slide(path, backend) as slide:
        try:
            return slide.read_region(*box)
        except SlideReadError as error:
            return error


@pytest.mark.usefixtures("no_child")
class TestDamagedTiles:
    @pytest.mark.parametrize("how", ["smashed", "zeroed"])
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("name", COMPRESSED)
    def test_the_damaged_tile_raises_and_the_others_read(self, tmp_path, name, backend, how):
        path = write_base(name, tmp_path)
        whole = read(path, backend, (0, 0, 0, 256, 256))
        damage_tile(path, TILE, how)
        for index in range(16):
            y, x = (64 * i for i in divmod(index, 4))
            got = read(path, backend, (0, y, x, 64, 64))
            if index == TILE:
                assert isinstance(got, SlideReadError)
                assert str(got).isprintable()
            else:
                np.testing.assert_array_equal(got, whole[y : y + 64, x : x + 64])

    @pytest.mark.parametrize("how", HOW)
    @pytest.mark.parametrize("name", PLAIN)
    def test_where_openslide_raises_nothing_is_shown(self, tmp_path, name, how):
        path = write_base(name, tmp_path)
        damage_tile(path, TILE, how)
        assert_no_worse_than_openslide(path)

    @pytest.mark.parametrize("name", PLAIN)
    def test_flipped_bits(self, tmp_path, name):
        path = write_base(name, tmp_path)
        healthy = path.read_bytes()
        for seed in range(40):
            path.write_bytes(healthy)
            flip_bits(path, TILE, seed)
            assert_no_worse_than_openslide(path)


def assert_no_worse_than_openslide(path):
    """The default raises wherever OpenSlide does; where both show pixels, they are the same."""
    theirs, ours = read(path, "openslide"), read(path, None)
    if isinstance(theirs, SlideReadError):
        assert isinstance(ours, SlideReadError)
    elif not isinstance(ours, SlideReadError):
        np.testing.assert_array_equal(ours, theirs)


def test_a_property_whose_name_is_no_text(tmp_path):
    # OpenSlide lists such a name, and has no value under it.
    path = write_aperio(tmp_path / "a.svs", [tissue(128, 128)], tile=64)
    path.write_bytes(path.read_bytes().replace(b"|MPP", b"|\xff\xfeP"))
    for backend in BACKENDS:
        with open_slide(path, backend) as slide:
            assert slide.mpp is None
            assert slide.read_region(0, 0, 0, 64, 64).shape == (64, 64, 3)
