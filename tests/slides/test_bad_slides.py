"""Eighty malformed, hostile and unusual slides: each opens, or says its true cause in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from napari_wsi_heatmap.errors import SlideError, SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import open_slide

CUT_OFF = "^cut off: a TIFF directory lies beyond the end of the file"
PICTURE = "^an ordinary (PNG|JPEG) picture, not a slide"
NO_REGULAR_FILE = "^not a regular file"
NO_SLIDE = "^not a slide of a format that OpenSlide reads"
REFUSED = {
    "zero_byte.svs": "^the file is empty",
    "header_only_8bytes.svs": CUT_OFF,
    "random_64k.svs": NO_SLIDE,
    "text.svs": NO_SLIDE,
    "html_error_page.svs": "^an HTML or XML page",
    "git_lfs_pointer.svs": "^a Git LFS pointer.*run: git lfs pull",
    "truncated_25pct.svs": CUT_OFF,
    "truncated_50pct.svs": CUT_OFF,
    "truncated_90pct.svs": CUT_OFF,
    "truncated_99pct.svs": CUT_OFF,
    "trunc50_generic_1level.tif": "^cut off or damaged: 42 of 108 tiles lie beyond its end",
    "png_named_svs.svs": PICTURE,
    "jpeg_named_tif.tif": PICTURE,
    "gz_of_svs.svs.gz": "^a gzip archive - .* - unpack it first",
    "directory.svs": "^a folder",
    "loop_a.svs": "^a link that leads in a circle",
    "loop_b.svs": "^a link that leads in a circle",
    "dangling.svs": "^a link that leads nowhere",
    "fifo.svs": NO_REGULAR_FILE,
    "devzero.svs": NO_REGULAR_FILE,
    "mrxs_no_dir.mrxs": "^the folder 'mrxs_no_dir' that belongs beside a .mrxs file is missing",
    "mrxs_empty_slidedat.mrxs": "^mrxs_empty_slidedat/Slidedat.ini is missing or empty",
    "mrxs_truncated_index.mrxs": "^OpenSlide cannot open it: Cannot read slide position info",
    "mrxs_no_index.mrxs": "^mrxs_no_index/Index.dat is missing",
    "tile_mid_offset_past_eof.svs": "^cut off or damaged: 1 of 130 tiles",
    "huge_dims_header.svs": "^damaged: the header claims 37888 x 37888 pixels",
    "zero_width_header.svs": "^damaged: a TIFF directory claims 0 x 2967 pixels",
    "ifd_loop.svs": "^damaged: its chain of TIFF directories runs in a circle",
    "first_ifd_past_eof.svs": CUT_OFF,
    "leica_fluorescence.scn": "^OpenSlide cannot open it: Can't find main image",
    "gray32f.tif": "^32-bit samples, which OpenSlide cannot read",
    "rgb32f.tif": "^32-bit samples, which OpenSlide cannot read",
    "bilevel.tif": "^OpenSlide cannot open it: Cannot get required TIFF tag: 258",
    "fiveband.tif": "^5 samples per pixel, colours would be wrong",
}
UNCALIBRATED = "treated as uncalibrated"
GENERIC = f"states no pixel size.*{UNCALIBRATED}"
OPENS = {  # name: what each of its warnings says, in order
    "wrong_ext_svs_named_png.png": (),
    "wrong_ext_svs_named_mrxs.mrxs": (),
    "wrong_ext_svs_noext": (),
    "name with space, ümlaut 😐 %20#?.svs": (),
    "n" * 240 + ".svs": (),
    "newline\nname.svs": (),
    os.fsdecode(b"nonutf8_\xff\xfe.svs"): (),
    "mrxs_missing_low_level.mrxs": ("Data0005.dat, Data0006.dat, Data0008.dat are missing",),
    "tile_mid_SOI_smashed.svs": (),
    "tile_mid_entropy_random.svs": (),
    "tile_mid_all_zero.svs": (),
    "tile_mid_eoi_cut.svs": (),
    "tile_mid_bytecount0.svs": (),
    "tile_mid_offset0.svs": (),
    "ml_tile_smashed.svs": (),
    "ml_tile_offset_past_eof.svs": (),
    "ml_tile_bytecount0.svs": (),
    "lowest_level_tile_smashed.tif": (GENERIC,),
    "jp2k_tile_header_smashed.svs": (),
    "jp2k_tile_body_random.svs": (),
    "icc_garbage.svs": ("its ICC profile is damaged",),
    "philips_xml_broken.tiff": (
        GENERIC,
        "a Philips slide whose description is broken",
        "level 2 is 3 times smaller in y and 4 in x",
        "level 3 is 6 times smaller in y and 4 in x",
    ),
    "mpp_missing.svs": (GENERIC,),
    "mpp_zero.svs": (f"states 0 x 0 µm per pixel.*{UNCALIBRATED}",),
    "mpp_text.svs": (GENERIC,),
    "mpp_comma.svs": (),
    "mpp_negative.svs": (f"states -0.499 x -0.499.*{UNCALIBRATED}",),
    "mpp_nan.svs": (GENERIC,),
    "mpp_huge.svs": (f"states 1e\\+300.*{UNCALIBRATED}",),
    "appmag_missing.svs": (),
    "tiny_1x1.tif": (GENERIC,),
    "tiny_1x1_lzw.tif": (GENERIC,),
    "thin_1x100000.tif": (GENERIC,),
    "thin_100000x1.tif": (GENERIC,),
    "gray8.tif": (GENERIC,),
    "gray16.tif": (GENERIC, "16-bit pixels are reduced to 8 bit"),
    "rgb16.tif": (GENERIC, "16-bit pixels are reduced to 8 bit"),
    "cmyk.tif": (GENERIC, "CMYK pixels are converted"),
    "twoband.tif": (GENERIC, "of its 2 bands only the first is shown"),
    "zstack_5d.ome.tif": (GENERIC, "of its planes .* only the first"),
    "tile16_tiny_tiles.tif": (GENERIC,),
    "one_tile_4096.tif": (GENERIC,),
    "levels_wrong_aspect.tif": (GENERIC, "level 1 is 1.999 .* 3 in x", "level 2 is 7.997 .* 4"),
    "levels_unsorted.tif": (GENERIC,),
}
LEFT_TO_OPENSLIDE = {
    "mrxs_missing_low_level.mrxs": "not tiff: it is no TIFF",
    "gray16.tif": "not tiff: 16-bit samples",
    "rgb16.tif": "not tiff: 16-bit samples",
    "cmyk.tif": "not tiff: 4 samples per pixel",
    "twoband.tif": "not tiff: 2 samples per pixel",
}
AS_ROOT_ONLY = "noperm.svs"
MOSAIC = 240
"""Side of the tiles of CMU-1-Small-Region."""


@pytest.fixture(scope="module")
def bad(tools_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad") / "set"
    command = [sys.executable, str(tools_dir / "make_bad.py"), str(folder), "--no-huge"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"make_bad.py failed: {done.stderr[-300:]}")
    yield folder
    for name in folder.iterdir():  # the MRXS copies are read-only, as their source may be
        if name.is_dir() and not name.is_symlink():
            name.chmod(0o755)


def test_every_file_of_the_set_has_an_expectation(bad):
    beside = re.compile("mrxs_[a-z_]+$")
    there = {name for name in os.listdir(bad) if not beside.match(name)}
    assert there == {*REFUSED, *OPENS, AS_ROOT_ONLY}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_true_cause(bad, name):
    with pytest.raises(SlideOpenError, match=REFUSED[name]) as caught:
        open_slide(bad / name)
    message = str(caught.value)
    assert message.isprintable()
    assert str(bad / name) in message
    assert len(message) < 500


@pytest.mark.parametrize("name", OPENS, ids=ascii)
def test_opens_and_warns_of_what_is_lost(bad, name):
    with open_slide(bad / name) as slide:
        assert len(slide.warnings) == len(OPENS[name]), slide.warnings
        for got, want in zip(slide.warnings, OPENS[name], strict=True):
            assert re.search(want, got)
            assert got.isprintable()
        assert (slide.mpp is None) == any("pixel" in w and "size" in w for w in slide.warnings) or (
            any(UNCALIBRATED in w for w in slide.warnings)
        )
        assert slide.read_region(0, 0, 0, 64, 64).shape == (64, 64, 3)


def test_one_pixel_that_openslide_cannot_read(bad):
    """TIFFRGBAImageGet fails on it; its one pixel is there all the same."""
    with open_slide(bad / "tiny_1x1.tif", backend="openslide") as slide:
        assert any("a part of it cannot be read: TIFFRGBAImageGet" in w for w in slide.warnings)
        with pytest.raises(SlideReadError, match="TIFFRGBAImageGet failed"):
            slide.read_region(0, 0, 0, 1, 1)
    with open_slide(bad / "tiny_1x1.tif") as slide:
        assert slide.backend == "tiff"
        assert slide.read_region(0, 0, 0, 1, 1).tolist() == [[[200, 200, 200]]]


def test_which_are_left_to_openslide(bad):
    """What is only damaged is still read directly, and no slower than it must be."""
    why = {}
    for name in OPENS:
        with open_slide(bad / name) as slide:
            if slide.backend != "tiff":
                why[name] = slide.why
    assert why == LEFT_TO_OPENSLIDE


def test_a_decimal_comma_is_understood(bad):
    with open_slide(bad / "mpp_comma.svs") as slide:
        assert slide.mpp == (0.499, 0.499)
    with open_slide(bad / "appmag_missing.svs") as slide:
        assert slide.objective_power is None


def test_no_permission(bad):
    path = bad / AS_ROOT_ONLY
    if os.geteuid() == 0:
        with open_slide(path) as slide:  # root may read it
            assert slide.mpp == (0.499, 0.499)
    else:
        with pytest.raises(SlideOpenError, match=r"^no permission to read the file"):
            open_slide(path)


@pytest.mark.parametrize(
    "name",
    [
        "tile_mid_SOI_smashed.svs",
        "tile_mid_entropy_random.svs",
        "tile_mid_all_zero.svs",
        "tile_mid_eoi_cut.svs",
        "tile_mid_offset0.svs",
    ],
)
def test_exactly_the_damaged_tile_fails(bad, data_dir, name):
    failed = []
    with (
        open_slide(bad / name) as slide,
        open_slide(data_dir / "slides" / "aperio" / "CMU-1-Small-Region.svs") as whole,
    ):
        height, width = slide.levels[0].shape
        for y in range(0, height, MOSAIC):
            for x in range(0, width, MOSAIC):
                try:
                    got = slide.read_region(0, y, x, MOSAIC, MOSAIC)
                except SlideError as error:
                    failed.append(error)
                else:
                    want = whole.read_region(0, y, x, MOSAIC, MOSAIC)
                    np.testing.assert_array_equal(got, want)
    (error,) = failed
    assert isinstance(error, SlideReadError)
    assert str(error).startswith("the tile at y 1440, x 2160 is damaged: ")


@pytest.mark.parametrize(
    ("name", "lost"),
    [("tile_mid_bytecount0.svs", 240 * 60), ("ml_tile_bytecount0.svs", 256 * 256)],
)
def test_a_tile_that_is_not_there_is_background(bad, name, lost):
    with open_slide(bad / name) as slide:
        height, width = slide.levels[0].shape
        rgb, scanned = slide.read_scanned(0, 0, 0, height, width)
    assert (~scanned).sum() == lost
    assert (rgb[~scanned] == 255).all()


def test_a_smashed_lowest_level_leaves_the_others(bad):
    with open_slide(bad / "lowest_level_tile_smashed.tif") as slide:
        height, width = slide.levels[1].shape
        with pytest.raises(SlideReadError, match="level 1"):
            slide.read_region(1, height - 50, width - 50, 50, 50)
        assert slide.read_region(0, 2500, 2000, 200, 200).shape == (200, 200, 3)


def test_mirax_levels_without_data_fail_and_the_others_read(bad):
    with open_slide(bad / "mrxs_missing_low_level.mrxs") as slide:
        y, x, height, width = slide.bounds
        for level in range(len(slide.levels)):
            down = slide.levels[level].downsample[0]
            at = int((y + height / 2) / down), int((x + width / 2) / down)
            if level in (0, 1, 3):
                with pytest.raises(SlideReadError, match=r"Data000\d\.dat"):
                    slide.read_region(level, *at, 32, 32)
            else:
                assert slide.read_region(level, *at, 32, 32).shape == (32, 32, 3)


def test_the_unopenable_and_the_unreadable(data_dir):
    folder = data_dir / "slides" / "openslide-python"
    with pytest.raises(SlideOpenError, match="Unsupported TIFF compression: 52479"):
        open_slide(folder / "unopenable.tiff")
    with open_slide(folder / "unreadable.svs") as slide:
        for _ in range(2):
            with pytest.raises(SlideReadError, match=r"^the tile at y 0, x 0 is damaged: JPEG: "):
                slide.read_region(0, 0, 0, 16, 16)
            with pytest.raises(SlideReadError, match="image 'thumbnail'"):
                slide.associated_images["thumbnail"]
