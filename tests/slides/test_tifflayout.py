"""Where the tiles of a TIFF lie, which directories are its levels, and which files are not read."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from made_slides import (
    APERIO,
    DATA_AT,
    cut_up,
    decoded,
    noise,
    patch_tags,
    raw_tiff,
    strided,
    tiled,
    tissue,
    write_aperio,
    write_tiff,
    write_tiles,
)
from napari_wsi_heatmap.cli import main
from napari_wsi_heatmap.errors import SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import open_slide, tiffheader
from napari_wsi_heatmap.slides.content import identity
from napari_wsi_heatmap.slides.file import NotSureError
from napari_wsi_heatmap.slides.rawfile import RawFile
from napari_wsi_heatmap.slides.tifflayout import Tags, tiled_level

REAL = (
    "mil/heatmap_slide.tiff",
    "pydmed/slide_0.tif",
    "pydmed/slide_3.tif",
    "slides/aperio/CMU-1-Small-Region.svs",
    "slides/aperio/TCGA-CR-7395-01A-01-TS1.svs",
    "slides/openslide-python/boxes.tiff",
    "slides/openslide-python/small.svs",
    "slides/tiff/large_image-yb10kx5k.zstd.tiff",
    "vendors/aperio_jp2k_33003_ycbcr.svs",
    "vendors/aperio_jpeg_icc.svs",
    "vendors/generic_deflate_bigtiff.tif",
    "vendors/generic_lzw.tif",
    "vendors/generic_planar_separate.tif",
    "vendors/generic_zstd.tif",
    "vendors/ome_pyramid_subifd.ome.tif",
    "vendors/philips.tiff",
    "vendors/trestle.tif",
)


def laid_out(path):
    """(level, its tifffile page) of every tiled directory, and the places of its tiles."""
    raw = RawFile(str(path), identity(str(path)))
    try:
        tags = Tags(raw)
        with tifffile.TiffFile(path) as file:
            for directory, page in zip(tiffheader.directories(str(path)), file.pages, strict=True):
                if directory.tiled:
                    level = tiled_level(tags, directory)
                    yield level, page, places(level, raw)
    finally:
        raw.close()


def places(level, raw):
    """(offset, length) of every tile, plane by plane."""
    planes = [[] for _ in range(level.planes)]
    for row, start in itertools.product(range(level.grid[0]), range(0, level.grid[1], 3)):
        stop = min(start + 3, level.grid[1])
        for tile in level.places(raw, row, start, stop):
            for plane, place in zip(planes, tile, strict=True):
                plane.append(place)
    return [place for plane in planes for place in plane]


def assert_as_tifffile(path):
    count = 0
    for level, page, found in laid_out(path):
        assert level.shape == (page.imagelength, page.imagewidth)
        assert level.coding.tile == (page.tilelength, page.tilewidth)
        assert level.coding.compression == page.compression
        assert level.coding.samples * level.planes == page.samplesperpixel
        assert level.coding.predictor == page.predictor
        assert level.coding.photometric == page.photometric
        assert level.coding.tables == (page.jpegtables or b"")
        assert found == list(zip(page.dataoffsets, page.databytecounts, strict=True))
        count += 1
    assert count


class TestPlacesAreThoseOfTifffile:
    @pytest.mark.parametrize("name", REAL)
    def test_of_real_slides(self, data_dir, name):
        assert_as_tifffile(data_dir / name)

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("tile", [16, 64, 1024])
    def test_of_written_ones(self, tmp_path, byteorder, big, tile):
        path = tmp_path / "a.tif"
        with tifffile.TiffWriter(path, bigtiff=big, byteorder=byteorder) as file:
            for level in strided(tissue(200, 300), 2):
                file.write(level, tile=(tile, tile), compression="zlib", photometric="rgb")
        assert_as_tifffile(path)

    @pytest.mark.parametrize("planar", ["separate", "contig"])
    def test_of_planes(self, tmp_path, planar):
        pixels = noise(200, 300)
        data = pixels if planar == "contig" else np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path,
            data,
            tile=(64, 64),
            photometric="rgb",
            planarconfig=planar,
            compression="lzw",
            predictor=2,
        )
        assert_as_tifffile(path)
        with open_slide(path) as slide:
            assert slide.backend == "tiff"
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 200, 300), pixels)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(
        ("big", "offsets", "counts"),
        [(False, 4, 3), (False, 4, 4), (False, 3, 3), (True, 16, 16), (True, 16, 4), (True, 4, 3)],
    )
    @pytest.mark.parametrize("number", [1, 2, 6])
    def test_tables_of_every_type(self, tmp_path, order, big, offsets, counts, number):
        tiles = cut_up(noise(16, 16 * number), 16)
        data = b"".join(tile.tobytes() for tile in tiles)
        tags = tiled((16, 16 * number), 16, [], [])
        tags[324] = offsets, [DATA_AT + 768 * i for i in range(number)]
        tags[325] = counts, [768] * number
        path = raw_tiff(tmp_path / "a.tif", tags, data=data, order=order, big=big)
        assert_as_tifffile(path)
        with open_slide(path) as slide:
            # OpenSlide does not take a classic TIFF of this byte order for a slide.
            assert slide.format == ("tiff" if order == ">" and not big else "generic-tiff")
            assert (slide.backend, slide.why) == ("tiff", "")
            got = slide.read_region(0, 0, 0, 16, 16 * number)
        np.testing.assert_array_equal(got, noise(16, 16 * number))

    def test_a_part_of_the_rows_and_columns(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [noise(200, 300)], tile=16, compression=None)
        raw = RawFile(str(path), identity(str(path)))
        try:
            level = tiled_level(Tags(raw), tiffheader.directories(str(path))[0])
            part, row = level.places(raw, 3, 2, 9), level.places(raw, 3, 0, level.grid[1])
        finally:
            raw.close()
        assert part == row[2:9]
        assert len(set(part)) == 7


def write(path, pixels, **options):
    tifffile.imwrite(path, pixels, **{"tile": (64, 64), "metadata": None, **options})


def one_tile(path, **other):
    data = noise(64, 64).tobytes()
    raw_tiff(path, tiled((64, 64), 64, [DATA_AT], [len(data)], **other), data=data)


def of_16_bit(path):
    write(path, noise(100, 100).astype(np.uint16) * 256, photometric="rgb")


def of_four_samples(path):
    write(path, np.full((64, 64, 4), 99, np.uint8), photometric="rgb", extrasamples=["unassalpha"])


def of_two_bands(path):
    write(path, noise(64, 64)[..., :2].copy(), photometric="minisblack", planarconfig="contig")


def in_strips(path):
    """The first directory is tiled, so that OpenSlide takes it, a level of it is not."""
    write_tiff(path, [noise(100, 100)])
    with tifffile.TiffWriter(path, append=True) as file:
        file.write(noise(50, 50), photometric="rgb", subfiletype=1, metadata=None)


def turned(path):
    one_tile(path, t274=3)


def bits_reversed(path):
    one_tile(path, t266=2)


def predictor_of_floats(path):
    write(path, noise(100, 100), photometric="rgb", compression="zlib")
    with tifffile.TiffWriter(path) as file:
        file.write(noise(100, 100), tile=(64, 64), compression="lzw", predictor=2, metadata=None)
    patch_tags(path, 0, Predictor=3)


def predictor_without_codec(path):
    one_tile(path, t317=2)


def palette(path):
    tags = tiled((64, 64), 64, [DATA_AT], [4096], t262=3, t277=1, t258=8)
    raw_tiff(path, tags | {320: (3, range(0, 65536 * 3 // 768 * 768, 256))}, data=bytes(4096))


def cmyk(path):
    write(path, np.full((64, 64, 4), 99, np.uint8), photometric="separated")


def white_is_zero(path):
    write(path, noise(64, 64)[..., 0].copy(), photometric="miniswhite")


def ycbcr_without_jpeg(path):
    one_tile(path, t262=6)


def planar_jpeg(path):
    data = np.ascontiguousarray(np.moveaxis(tissue(100, 100), 2, 0))
    write(path, data, photometric="rgb", planarconfig="separate", compression="jpeg")


def two_of_one_size(path):
    with tifffile.TiffWriter(path) as file:
        for seed in range(2):
            file.write(
                noise(100, 100, seed),
                tile=(64, 64),
                photometric="rgb",
                subfiletype=seed,
                metadata=None,
            )


def more_entries_than_tiles(path):
    data = noise(64, 64).tobytes()
    raw_tiff(path, tiled((64, 64), 64, [DATA_AT] * 3, [len(data)] * 3), data=data)


def fewer_counts_than_tiles(path):
    data = noise(64, 64).tobytes()
    raw_tiff(path, tiled((64, 128), 64, [DATA_AT] * 2, [len(data)]), data=data)


def jpeg_2000_in_tiny_tiles(path):
    pixels = tissue(64, 64)
    data = io.BytesIO()
    options = {"tile_size": (8, 8), "no_jp2": True, "mct": 0}
    Image.fromarray(pixels).save(data, "JPEG2000", **options)
    text = APERIO.format(w=64, h=64, more="|MPP = 0.5")
    options = {"compression": 33005, "description": text}
    write_tiles(path, [data.getvalue()], pixels.shape, 64, **options)


UNSURE = {
    of_16_bit: "16-bit samples",
    of_four_samples: "4 samples per pixel",
    of_two_bands: "2 samples per pixel",
    bits_reversed: "its bits are stored in reverse",
    turned: "it is stored turned",
    predictor_of_floats: "its predictor",
    predictor_without_codec: "none tiles of its kind",
    palette: "colours of photometric interpretation 3",
    cmyk: "4 samples per pixel",
    white_is_zero: "colours of photometric interpretation 0",
    ycbcr_without_jpeg: "colours of photometric interpretation 6",
    planar_jpeg: "planar JPEG",
    two_of_one_size: "2 images of 100 x 100 px in it",
    more_entries_than_tiles: "its tag 324 lists 3 tiles of 1",
    jpeg_2000_in_tiny_tiles: "its JPEG 2000 has subsampled colours or tiny tiles",
}


def outcome(slide):
    """Pixels of level 0, or that nobody can read them."""
    try:
        return slide.read_region(0, 0, 0, *slide.levels[0].shape).tobytes()
    except SlideReadError as error:
        return error.what.rpartition(": ")[2]


def test_a_table_with_fewer_entries_than_tiles(tmp_path):
    fewer_counts_than_tiles(tmp_path / "a.tif")
    with pytest.raises(SlideOpenError, match="Invalid tile/strip counts"):
        open_slide(tmp_path / "a.tif")
    raw = RawFile(str(tmp_path / "a.tif"), identity(str(tmp_path / "a.tif")))
    try:
        directory = tiffheader.directories(str(tmp_path / "a.tif"))[0]
        with pytest.raises(NotSureError, match="its tag 325 lists 1 tiles of 2"):
            tiled_level(Tags(raw), directory)
    finally:
        raw.close()


@pytest.mark.parametrize("make", UNSURE, ids=lambda make: make.__name__)
class TestNotSure:
    def test_openslide_reads_it_and_why_says_why(self, tmp_path, make):
        path = tmp_path / "a.tif"
        make(path)
        with open_slide(path) as slide, open_slide(path, backend="openslide") as other:
            assert slide.backend == "openslide"
            assert slide.why.startswith("not tiff: ")
            assert slide.why.endswith(UNSURE[make])
            assert slide.why.isprintable()
            assert outcome(slide) == outcome(other)

    def test_and_so_does_info(self, tmp_path, make, capsys):
        path = tmp_path / "a.tif"
        make(path)
        assert main(["info", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if line.strip().startswith("read by")]
        assert "openslide (not tiff: " in line
        assert line.endswith(f"{UNSURE[make]})")
        assert main(["info", str(path), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["backend"] == "openslide"
        assert told["why_this_backend"].endswith(UNSURE[make])

    def test_asked_for_by_name_it_is_an_error(self, tmp_path, make):
        path = tmp_path / "a.tif"
        make(path)
        with pytest.raises(SlideOpenError) as caught:
            open_slide(path, backend="tiff")
        assert UNSURE[make] in str(caught.value)
        assert str(path) in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_slide_that_is_read_directly_gives_no_reason(tmp_path, capsys):
    path = write_tiff(tmp_path / "a.tif", [noise(100, 100)])
    assert main(["info", str(path)]) == 0
    assert "read by     tiff\n" in capsys.readouterr().out
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["why_this_backend"] is None


def test_overlapping_tiles_of_trestle(data_dir, tmp_path):
    """Its overlaps stand in the description; a file with any is composed by OpenSlide."""
    whole = (data_dir / "vendors" / "trestle.tif").read_bytes()
    assert whole.count(b"OverlapsXY=") >= 1
    at = whole.index(b"OverlapsXY=") + len(b"OverlapsXY=")
    text = whole[at : whole.index(b";", at)]
    changed = text.replace(b"0", b"8", 1)
    path = tmp_path / "a.tif"
    path.write_bytes(whole[:at] + changed + whole[at + len(text) :])
    with open_slide(path) as slide:
        assert (slide.backend, slide.format) == ("openslide", "trestle")
        assert slide.why == "not tiff: its tiles overlap"


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels BigEndian="false" DimensionOrder="XYCZT" ID="Pixels:0" '
    'PhysicalSizeX="0.5" PhysicalSizeY="0.25" SizeC="{channels}" SizeT="1" SizeX="{w}" '
    'SizeY="{h}" SizeZ="{depth}" Type="uint8"><TiffData IFD="{first}" PlaneCount="1"/>'
    "</Pixels></Image></OME>"
)


def write_ome(path, levels, *, sub=False, channels=3, depth=1, first=0, photometric="rgb", **how):
    text = OME.format(
        w=levels[0].shape[1], h=levels[0].shape[0], channels=channels, depth=depth, first=first
    )
    with tifffile.TiffWriter(path, **{"bigtiff": True, **how}) as file:
        for index, level in enumerate(levels):
            file.write(
                level,
                tile=(64, 64),
                photometric=photometric,
                compression="zlib",
                description=text if index == 0 else None,
                subifds=len(levels) - 1 if sub and index == 0 else 0,
                subfiletype=1 if sub and index else 0,
                metadata=None,
            )
    return path


class TestOmeTiff:
    @pytest.mark.parametrize("sub", [False, True])
    def test_levels_as_sub_directories_or_as_pages(self, tmp_path, sub):
        levels = strided(noise(601, 800), 2, 4, 9)
        with open_slide(write_ome(tmp_path / "a.ome.tif", levels, sub=sub)) as slide:
            assert (slide.backend, slide.format, slide.why) == ("tiff", "ome-tiff", "")
            assert slide.mpp == (0.25, 0.5)
            assert len(slide.levels) == 4
            for index, level in enumerate(levels):
                got = slide.read_region(index, 0, 0, *level.shape[:2])
                np.testing.assert_array_equal(got, level)

    def test_label_and_macro_are_no_levels(self, tmp_path):
        levels = strided(noise(600, 800), 2, 4)
        pages = [*levels, noise(120, 400, 1), noise(300, 100, 2)]
        with open_slide(write_ome(tmp_path / "a.ome.tif", pages)) as slide:
            assert [level.shape for level in slide.levels] == [p.shape[:2] for p in levels]

    def test_planes_of_a_stack_are_no_levels(self, tmp_path):
        pages = [noise(200, 300, seed) for seed in range(3)]
        with open_slide(write_ome(tmp_path / "a.ome.tif", pages, depth=3)) as slide:
            assert len(slide.levels) == 1
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 200, 300), pages[0])
            assert any("of its planes" in warning for warning in slide.warnings)

    def test_channels_of_their_own(self, tmp_path):
        pages = [np.ascontiguousarray(noise(200, 300)[..., c]) for c in range(3)]
        path = write_ome(tmp_path / "a.ome.tif", pages, channels=3, photometric="minisblack")
        with open_slide(path) as slide:
            assert slide.backend == "openslide"
            assert slide.why == "not tiff: its 3 channels stand in directories of their own"

    def test_the_first_plane_elsewhere(self, tmp_path):
        pages = [noise(200, 300, seed) for seed in range(2)]
        with open_slide(write_ome(tmp_path / "a.ome.tif", pages, first=1)) as slide:
            assert slide.why == "not tiff: its first plane stands in directory 1"

    def test_real_levels_are_those_of_tifffile(self, data_dir):
        path = data_dir / "vendors" / "ome_pyramid_subifd.ome.tif"
        with tifffile.TiffFile(path) as file, open_slide(path) as slide:
            levels = file.series[0].levels
            assert [level.shape for level in slide.levels] == [p.shape[:2] for p in levels]

    @pytest.mark.parametrize("big", [False, True])
    def test_big_endian_as_bio_formats_writes_it(self, tmp_path, big):
        """OpenSlide takes a classic TIFF of this byte order for no slide."""
        levels = strided(noise(601, 800), 2, 4)
        path = write_ome(tmp_path / "a.ome.tif", levels, sub=True, bigtiff=big, byteorder=">")
        with open_slide(path) as slide:
            assert (slide.backend, slide.format, slide.why) == ("tiff", "ome-tiff", "")
            assert (slide.mpp, slide.mpp_source) == ((0.25, 0.5), "the file's OME-XML")
            for index, level in enumerate(levels):
                got = slide.read_region(index, 0, 0, *level.shape[:2])
                np.testing.assert_array_equal(got, level)

    def test_damaged_sub_directories(self, tmp_path):
        path = write_ome(tmp_path / "a.ome.tif", strided(noise(600, 800), 2, 4), sub=True)
        with tifffile.TiffFile(path) as file:
            at = file.pages[0].tags["SubIFDs"].valueoffset
        with path.open("r+b") as file:
            file.seek(at)
            file.write((10**9).to_bytes(8, "little"))
        with open_slide(path) as slide:
            assert slide.backend == "openslide"
            assert slide.why.startswith("not tiff: its SubIFDs: a TIFF directory lies beyond")


CODECS = {
    34712: lambda tile: imagecodecs.jpeg2k_encode(tile, level=0, codecformat="J2K", mct=False),
    34925: lambda tile: imagecodecs.lzma_encode(tile.tobytes()),
    50001: lambda tile: imagecodecs.webp_encode(tile, lossless=True),
}


@pytest.mark.parametrize("compression", CODECS)
class TestCodecsThatOpenslideLacks:
    pixels = noise(150, 200)

    def write(self, path, compression, **options):
        tiles = [CODECS[compression](tile) for tile in cut_up(self.pixels, 64)]
        return write_tiles(path, tiles, (150, 200, 3), 64, compression=compression, **options)

    def test_open_directly(self, tmp_path, compression):
        path = self.write(tmp_path / "a.tif", compression)
        with open_slide(path) as slide:
            assert (slide.backend, slide.format, slide.why) == ("tiff", "tiff", "")
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 150, 200), self.pixels)
            np.testing.assert_array_equal(decoded(path, 0), self.pixels)
            assert slide.mpp is None
            assert dict(slide.associated_images) == {}
            assert slide.icc_profile is None
        with pytest.raises(SlideOpenError):
            open_slide(path, backend="openslide")

    @pytest.mark.parametrize(
        ("unit", "resolution", "mpp"),
        [
            ("CENTIMETER", (20000, 40000), (0.25, 0.5)),
            ("INCH", (50800, 25400), (1.0, 0.5)),
            ("NONE", (20000, 40000), None),
            ("CENTIMETER", (1, 1), None),
        ],
    )
    def test_pixel_size(self, tmp_path, compression, unit, resolution, mpp):
        path = self.write(
            tmp_path / "a.tif", compression, resolution=resolution, resolutionunit=unit
        )
        with open_slide(path) as slide:
            assert slide.mpp == mpp
            assert (slide.mpp_source is None) == (mpp is None)
            assert bool(slide.warnings) == (mpp is None)

    def test_cut_off_it_is_refused(self, tmp_path, compression):
        path = self.write(tmp_path / "a.tif", compression)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 3000)
        with pytest.raises(SlideOpenError, match="cut off or damaged"):
            open_slide(path)


def test_reduced_images_of_a_tiff_that_openslide_does_not_read(tmp_path):
    levels = strided(noise(600, 800), 2, 8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate([*levels, noise(90, 400)]):
            file.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="webp",
                compressionargs={"lossless": True},
                subfiletype=1 if index else 0,
                metadata=None,
            )
    with open_slide(path) as slide:
        assert len(slide.levels) == 3  # the picture of another aspect is none
        for index, level in enumerate(levels):
            got = slide.read_region(index, 0, 0, *level.shape[:2])
            np.testing.assert_array_equal(got, level)


def set_tile(path, page, index, *, offset=None, count=None):
    """Change a table's entry of one tile."""
    with tifffile.TiffFile(path) as file:
        for name, value in (("TileOffsets", offset), ("TileByteCounts", count)):
            tag = file.pages[page].tags[name]
            size = tag.valuebytecount // tag.count
            if value is not None:
                with Path(path).open("r+b") as raw:
                    raw.seek(tag.valueoffset + index * size)
                    raw.write(value.to_bytes(size, "little"))


def whole(slide, level):
    """Pixels of a level and where they were scanned, or that they cannot be read."""
    try:
        return [
            part.tobytes() for part in slide.read_scanned(level, 0, 0, *slide.levels[level].shape)
        ]
    except SlideReadError:
        return None


class TestMissingTiles:
    """A tile of no bytes was not scanned; what is drawn there is what OpenSlide draws."""

    @pytest.mark.parametrize("level", [0, 1])
    @pytest.mark.parametrize("write", [write_aperio, write_tiff])
    @pytest.mark.parametrize("index", [0, 3, 5])
    def test_as_openslide(self, tmp_path, write, level, index):
        path = write(tmp_path / "a.svs", strided(tissue(700, 900), 2), tile=128)
        set_tile(path, level, index, count=0)
        with open_slide(path) as slide, open_slide(path, backend="openslide") as other:
            assert (slide.backend, slide.why) == ("tiff", "")
            for here in (0, 1):
                box = here, 0, 0, *slide.levels[here].shape
                rgb, scanned = slide.read_scanned(*box)
                their_rgb, their_scanned = other.read_scanned(*box)
                np.testing.assert_array_equal(scanned, their_scanned)
                np.testing.assert_array_equal(rgb, their_rgb)
                assert (rgb[~scanned] == slide.background).all()
            scanned = slide.read_scanned(level, 0, 0, *slide.levels[level].shape)[1]
            drawn_from_below = write is write_aperio and level == 1
            assert scanned.all() == drawn_from_below
            assert scanned.any()

    @pytest.mark.parametrize(
        "name",
        [
            "aperio_jp2k_33003_ycbcr.svs",
            "aperio_jpeg_icc.svs",
            "generic_planar_separate.tif",
            "ome_pyramid_subifd.ome.tif",
            "philips.tiff",
            "trestle.tif",
        ],
    )
    @pytest.mark.parametrize("page", [0, 2])
    def test_of_real_slides_as_openslide(self, data_dir, tmp_path, name, page):
        path = tmp_path / name
        path.write_bytes((data_dir / "vendors" / name).read_bytes())
        with tifffile.TiffFile(path) as file:
            if page >= len(file.pages) or not file.pages[page].is_tiled:
                pytest.skip("it has no such level")
            last = len(file.pages[page].dataoffsets) - 1
        set_tile(path, page, min(1, last), count=0, offset=0)
        with open_slide(path) as slide, open_slide(path, backend="openslide") as other:
            assert (slide.backend, slide.why) == ("tiff", "")
            for index in range(len(other.levels)):
                assert whole(slide, index) == whole(other, index)

    def test_where_a_format_knows_no_gaps(self, data_dir, tmp_path):
        path = tmp_path / "a.tif"
        path.write_bytes((data_dir / "vendors" / "trestle.tif").read_bytes())
        set_tile(path, 0, 1, count=0)
        with open_slide(path) as slide:
            with pytest.raises(SlideReadError, match=r"^a tile is missing - .*level 0, 9 x 300 px"):
                slide.read_region(0, 0, 0, 9, 300)
            assert slide.read_region(0, 0, 0, 9, 200).shape == (9, 200, 3)

    def test_all_of_them(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [tissue(100, 100)], tile=64)
        for index in range(4):
            set_tile(path, 0, index, count=0, offset=0)
        with open_slide(path) as slide:
            rgb, scanned = slide.read_scanned(0, 0, 0, 100, 100)
            assert not scanned.any()
            assert (rgb == slide.background).all()

    def test_another_tile_is_compared_where_the_middle_is_missing(self, tmp_path, monkeypatch):
        """Colours that OpenSlide draws otherwise are seen in a slide with gaps, too."""
        path = write_tiff(tmp_path / "a.tif", [noise(700, 900)], tile=128, compression=None)
        set_tile(path, 0, 8 * 2 + 3, count=0)
        set_tile(path, 0, 8 * 3 + 4, count=0)
        from napari_wsi_heatmap.slides import tiffchecks

        compared = []

        def differ(slide, ours, theirs):
            compared.append((ours == 255).all())
            return False

        monkeypatch.setattr(tiffchecks, "_differ", differ)
        with open_slide(path) as slide:
            assert slide.backend == "tiff"
        assert compared[-1] is np.False_


def test_a_tile_of_two_gigabytes_is_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", strided(noise(300, 300), 2), tile=64)
    tags = {"TileByteCounts": 1 << 31}
    single = write_tiff(tmp_path / "b.tif", [noise(64, 64)], tile=64)
    patch_tags(single, 0, **tags)
    with pytest.raises(SlideOpenError, match="a tile of 64 x 64 pixels claims 2147483648 bytes"):
        open_slide(single)
    assert open_slide(path).read_region(0, 0, 0, 9, 9).shape == (9, 9, 3)


def test_only_a_tiff_is_laid_out(tmp_path):
    directory = tiffheader.Directory({}, {}, {})
    path = write_tiff(tmp_path / "a.tif", [noise(64, 64)], tile=64)
    raw = RawFile(str(path), identity(str(path)))
    try:
        with pytest.raises(NotSureError, match="damaged: a TIFF directory claims 0 x 0 pixels"):
            tiled_level(Tags(raw), directory)
    finally:
        raw.close()
