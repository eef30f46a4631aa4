"""The XML of a Ventana slide must not name tiles that its directories do not have."""

from __future__ import annotations

import os
import struct

import pytest
import tifffile
from mutations import make_base

from made_slides import noise, write_tiff
from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import areas, guard, open_slide, tiffheader

LEVEL_0, LEVEL_1 = 2, 3
"""Directories; a label and a thumbnail come before them."""


@pytest.fixture
def slide(tmp_path):
    make_base("jpeg, Ventana", tmp_path)
    return tmp_path / "base.bif"


def restate(path, page, tag, value):
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[page].tags[tag].offset
    with path.open("r+b") as file:
        file.seek(at + 2)
        file.write(struct.pack("<HQQ", 16, 1, value))


def replace(path, old, new):
    assert len(old) == len(new)
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))


def refused(path, match):
    with pytest.raises(SlideOpenError, match=match) as caught:
        guard.check_header(str(path))
    assert str(caught.value).isprintable()


def test_a_healthy_one_opens(slide):
    assert len(guard.check_header(str(slide))) == 4
    with open_slide(slide, "openslide") as opened:
        assert opened.format == "ventana"
        assert [level.shape for level in opened.levels] == [(256, 256), (128, 128)]
        assert opened.read_region(0, 0, 0, 256, 256).std() > 10


@pytest.mark.parametrize(
    ("page", "tag", "value"),
    [
        (LEVEL_0, "ImageLength", 15),
        (LEVEL_0, "ImageLength", 192),
        (LEVEL_0, "ImageWidth", 192),
        (LEVEL_1, "ImageLength", 64),
        (LEVEL_1, "ImageWidth", 1),
    ],
)
def test_a_smaller_image_than_its_areas(slide, page, tag, value):
    # Its table of tiles is as long as ever, so that nothing else in the header tells.
    restate(slide, page, tag, value)
    refused(slide, "its XML names 4 x 4 tiles, a level does not have them")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b'NumRows="4"', b'NumRows="9"', "its XML names 4 x 9 tiles"),
        (b'NumCols="4"', b'NumCols="5"', "its XML names 5 x 4 tiles"),
        (b'OriginY="0"/>', b'OriginY="64">', None),
        (b'Pos-X="0"', b'Pos-Z="0"', None),
        (b'NumRows="4"', b'NumRows="x"', "nonsense for numbers"),
    ],
)
def test_other_areas_than_the_image(slide, old, new, told):
    replace(slide, old, new)
    if told is None:  # no XML any more, or nothing that decides
        assert len(guard.check_header(str(slide))) == 4
    else:
        refused(slide, told)


def test_an_area_that_begins_further_down(slide):
    replace(slide, b'AOI0 OriginX="0" OriginY="0"', b'AOI0 OriginY="64"           ')
    refused(slide, "its XML names 4 x 5 tiles")


def test_an_xml_that_is_too_long(slide):
    with tifffile.TiffFile(slide) as tiff:
        at = tiff.pages[LEVEL_0].tags["XMP"].offset
    place, length = slide.stat().st_size, areas.MAX_XML + 1
    os.truncate(slide, place + length)
    with slide.open("r+b") as file:
        file.seek(at + 4)
        file.write(struct.pack("<QQ", length, place))
    refused(slide, "the XML that describes its areas is too long")


def test_entities_that_multiply_are_not_followed(slide):
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">' + b"".join(
        b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in b"cdefghijkl"
    )
    bomb += b"]><EncodeInfo>&l;</EncodeInfo>"
    replaced = slide.read_bytes()
    start = replaced.index(b'<?xml version="1.0"?><EncodeInfo')
    slide.write_bytes(replaced[:start] + bomb + replaced[start + len(bomb) :])
    assert len(guard.check_header(str(slide))) == 4


def test_other_slides_are_none_of_its_business(tmp_path):
    path = write_tiff(tmp_path / "a.tif", [noise(64, 64)], tile=64)
    assert areas.misplaced(str(path), tiffheader.directories(str(path))) is None


def test_the_real_layout(data_dir):
    path = data_dir / "vendors" / "ventana.bif"
    assert areas.misplaced(str(path), tiffheader.directories(str(path))) is None
