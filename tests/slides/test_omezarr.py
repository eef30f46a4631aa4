"""OME-Zarr folders as slides: every layout, calibration, and the slide as a whole."""

from __future__ import annotations

import functools
import os
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import ome_zarr_models
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

from contracts import SlideContract
from made_slides import noise, strided
from made_zarr import edit_json, edit_ome, write_ome_zarr
from napari_wsi_heatmap.errors import SlideChangedError, SlideReadError
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.omezarr import OmeZarrSlide

LEVELS = strided(noise(300, 421), 2, 8)
SMALL = [noise(100, 130)]
SHARDED = {"names": "yxc", "chunks": (32, 64, 3), "shards": (128, 128, 3)}
PLANES = {"names": "tczyx", "chunks": (1, 1, 1, 90, 70)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Give a function that writes the image of a class, once."""

    @functools.cache
    def make(cls):
        path = tmp_path_factory.mktemp(cls.__name__) / "a.zarr"
        return write_ome_zarr(path, cls.levels, **cls.options)

    return make


class OmeZarrContract(SlideContract):
    levels = LEVELS
    options = {}  # noqa: RUF012
    compression = "zstd"

    @pytest.fixture
    def path(self, made):
        return made(type(self))

    @pytest.fixture
    def opened(self, path):
        return open_slide(path)

    def truth(self, slide, level):
        return self.levels[level]

    def test_says_its_format(self, slide):
        assert slide.backend == "omezarr"
        assert slide.format == f"ome-zarr {self.options.get('version', '0.5')}"
        assert slide.compression == self.compression
        assert slide.mpp == (0.25, 0.25)
        assert slide.mpp_source == "the OME-Zarr's scale"
        assert slide.warnings == ()


class TestVersion4(OmeZarrContract):
    options = {"version": "0.4"}  # noqa: RUF012
    compression = "blosc"

    def test_it_is_valid(self, path):
        assert ome_zarr_models.open_ome_zarr(zarr.open_group(str(path), mode="r")).ome_zarr_version


class TestShardedWithChannelsLast(OmeZarrContract):
    options = SHARDED
    compression = "zstd (in shards)"

    def test_the_tile_is_a_chunk_of_the_shard(self, slide):
        assert slide.levels[0].tile == (32, 64)


class TestWithTimeAndDepth(OmeZarrContract):
    options = PLANES

    def test_it_is_valid(self, path):
        assert ome_zarr_models.open_ome_zarr(zarr.open_group(str(path), mode="r")).ome_zarr_version


class TestOneLineOfPixels(OmeZarrContract):
    levels = (noise(5000, 1),)
    options = {"chunks": (3, 1024, 1)}  # noqa: RUF012


class TestOnePixel(OmeZarrContract):
    levels = (noise(1, 1),)
    options = {"chunks": (3, 1, 1)}  # noqa: RUF012


def written_in_part():
    pixels = noise(300, 300)
    pixels[64:128, 64:128] = 0  # zarr writes no chunk of zeros
    pixels[128:192, 64:128, 1:] = 0  # here the one of red
    return pixels


class TestSparse(SlideContract):
    """What was never written is not scanned; a channel of zeros beside others is black."""

    levels = (written_in_part(),)
    options = {"chunks": (1, 64, 64), "shards": (3, 128, 128), "fill_value": 0}  # noqa: RUF012

    @pytest.fixture
    def opened(self, made):
        return open_slide(made(type(self)))

    def truth(self, slide, level):
        pixels = self.levels[level].copy()
        pixels[64:128, 64:128] = 255
        return pixels

    def test_what_was_scanned(self, slide):
        _, scanned = slide.read_scanned(0, 0, 0, 300, 300)
        wanted = np.ones((300, 300), bool)
        wanted[64:128, 64:128] = False
        np.testing.assert_array_equal(scanned, wanted)


# what it reads


@pytest.mark.parametrize(
    ("options", "compression"),
    [
        ({"version": "0.4", "order": "F"}, "blosc"),
        ({"version": "0.4", "compressors": None}, "none"),
        ({"version": "0.4", "chunk_key_encoding": {"name": "v2", "separator": "/"}}, "blosc"),
        ({"compressors": BloscCodec(cname="lz4", shuffle="shuffle", typesize=1)}, "blosc"),
        ({"compressors": GzipCodec()}, "gzip"),
        ({"compressors": [ZstdCodec(checksum=True), GzipCodec()]}, "zstd, gzip"),
        ({"compressors": None}, "none"),
        ({"filters": [TransposeCodec(order=(1, 2, 0))]}, "zstd"),
        ({"chunk_key_encoding": {"name": "default", "separator": "."}}, "zstd"),
        ({"chunks": (2, 100, 70)}, "zstd"),
        ({"chunks": (3, 1024, 1024)}, "zstd"),
        ({"chunks": (1, 64, 64), "shards": (3, 512, 512)}, "zstd (in shards)"),
    ],
)
def test_every_layout_gives_the_stored_pixels(tmp_path, options, compression):
    path = write_ome_zarr(tmp_path / "a.zarr", LEVELS, **options)
    with open_slide(path) as slide:
        assert slide.compression == compression
        for index, level in enumerate(LEVELS):
            whole = slide.read_region(index, 0, 0, *level.shape[:2])
            np.testing.assert_array_equal(whole, level)
        np.testing.assert_array_equal(
            slide.read_region(0, 33, 65, 90, 70), LEVELS[0][33:123, 65:135]
        )


@pytest.mark.parametrize("codec", ["zlib", "bz2", "lz4", "gzip", "zstd", "blosc"])
def test_codecs_of_numcodecs(tmp_path, codec):
    import numcodecs

    compressor = numcodecs.get_codec({"id": codec})
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, version="0.4", compressors=compressor)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 100, 130), SMALL[0])


def test_of_planes_the_first_is_shown(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, names="zcyx", chunks=(2, 3, 64, 64))
    group = zarr.open_group(str(path))
    del group["0"]
    stack = np.stack([SMALL[0].transpose(2, 0, 1), np.zeros((3, 100, 130), np.uint8)])
    group.create_array("0", data=stack, chunks=(2, 3, 64, 64))
    with open_slide(path) as slide:
        assert slide.warnings == ("of its planes (Z or T) only the first is shown",)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 100, 130), SMALL[0])


def test_levels_are_sorted(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", LEVELS)
    edit_ome(path, lambda ome: ome["multiscales"][0]["datasets"].reverse())
    with open_slide(path) as slide:
        assert [level.shape for level in slide.levels] == [level.shape[:2] for level in LEVELS]
        assert slide.mpp == (0.25, 0.25)
        np.testing.assert_array_equal(slide.read_region(1, 9, 8, 40, 50), LEVELS[1][9:49, 8:58])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("listed", [False, True])
def test_the_first_series_of_a_collection(tmp_path, version, listed):
    path = tmp_path / "a.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    names = ["main", "label"] if listed else ["0", "1"]
    for number, name in enumerate(names):
        write_ome_zarr(path / name, [noise(100, 130, seed=number)], version=version)
    layout, series = {"bioformats2raw.layout": 3}, {"series": names}
    wrap = (lambda d: {"ome": {"version": "0.5", **d}}) if version == "0.5" else dict
    root.attrs.update(wrap(layout))
    if listed:
        root.create_group("OME").attrs.update(wrap(series))
    with open_slide(path) as slide:
        assert slide.warnings == ("of its 2 images only the first is shown",)
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 100, 130), noise(100, 130))


# calibration


@pytest.mark.parametrize(
    ("unit", "scale", "mpp"),
    [
        ("micrometer", 0.5, 0.5), ("micrometre", 0.5, 0.5), ("um", 0.5, 0.5), ("µm", 0.5, 0.5),
        ("nanometer", 250, 0.25), ("millimeter", 0.00025, 0.25), ("meter", 2.5e-7, 0.25),
        ("angstrom", 2500, 0.25),
    ],
)  # fmt: skip
def test_units_of_length(tmp_path, unit, scale, mpp):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, mpp=scale, unit=unit)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((mpp, mpp))
        assert slide.warnings == ()


@pytest.mark.parametrize(
    ("unit", "scale", "warning"),
    [
        (None, 0.25, r"scale \(0.25\) has no unit: treated as uncalibrated"),
        ("parsec", 0.25, r"has the unit 'parsec': treated as uncalibrated"),
        ("meter", 0.25, r"states 250000 x 250000 µm per pixel, which no scanner has"),
        ("micrometer", float("nan"), r"states nan x nan µm"),
    ],
)
def test_sizes_that_are_not_believed(tmp_path, unit, scale, warning):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, mpp=scale, unit=unit)
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert slide.mpp_source is None
        (said,) = slide.warnings
    assert re.search(warning, said)
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.5, 0.5), "stated by the caller")
        assert slide.warnings == ()


def test_the_outer_scale_multiplies(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, mpp=1)
    outer = [{"type": "scale", "scale": [1.0, 0.2, 0.3]}]
    edit_ome(path, lambda ome: ome["multiscales"][0].update(coordinateTransformations=outer))
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.2, 0.3))


@pytest.mark.parametrize(
    "steps", [None, [], [{"type": "scale"}], [{"type": "scale", "scale": [1]}], "scale", [7]]
)
def test_no_scale(tmp_path, steps):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    edit_ome(
        path,
        lambda ome: ome["multiscales"][0]["datasets"][0].update(coordinateTransformations=steps),
    )
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert slide.warnings == (
            "the OME-Zarr states no pixel size (µm per pixel): treated as uncalibrated",
        )


@pytest.mark.parametrize("scale", ["x", {}, 10**400, True, None])
def test_scales_that_are_no_numbers(tmp_path, scale):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    steps = [{"type": "scale", "scale": [1, scale, -1]}]
    edit_ome(
        path,
        lambda ome: ome["multiscales"][0]["datasets"][0].update(coordinateTransformations=steps),
    )
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert len(slide.warnings) == 1


def test_channels_of_other_colours_are_warned_of(tmp_path):
    def coloured(*colours):
        return {"omero": {"channels": [{"color": colour} for colour in colours]}}

    for colours, warned in (
        (("FF0000", "00FF00", "0000FF"), False),
        (("FFFFFF",) * 3, False),
        (("0000FF", "00FF00", "FF0000"), True),
    ):
        path = write_ome_zarr(tmp_path / "a.zarr", SMALL, more=coloured(*colours))
        with open_slide(path) as slide:
            assert any("coloured 0000FF, 00FF00, FF0000" in w for w in slide.warnings) == warned


# the slide as a whole


def test_a_change_is_noticed(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    with open_slide(path) as slide:
        assert slide.changed() is None
        assert slide.identity()[0] == (path / "zarr.json").stat().st_size
        chunk = path / "0" / "c" / "0" / "0" / "1"
        chunk.write_bytes(chunk.read_bytes() + b"more")
        assert "1 was changed or replaced" in slide.changed()
        with pytest.raises(SlideChangedError):
            slide.read_region(0, 0, 64, 9, 9)


def test_the_fingerprint_is_of_content_alone(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", LEVELS)
    first = open_slide(path).fingerprint
    shutil.copytree(path, tmp_path / "b.zarr")
    assert open_slide(tmp_path / "b.zarr").fingerprint == first
    chunk = tmp_path / "b.zarr" / "0" / "c" / "0" / "2" / "2"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = open_slide(tmp_path / "b.zarr").fingerprint
    chunk.unlink()
    missing = open_slide(tmp_path / "b.zarr").fingerprint
    edit_ome(path, lambda ome: ome["multiscales"][0].update(name="another"))
    assert len({first, changed, missing, open_slide(path).fingerprint}) == 4


@pytest.mark.parametrize("mpp", [None, (0.25, 0.3)])
def test_pickles_as_its_path(tmp_path, mpp):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    with open_slide(path, mpp=mpp) as slide, pickle.loads(pickle.dumps(slide)) as again:
        assert (again.path, again.mpp, again.fingerprint) == (
            slide.path,
            slide.mpp,
            slide.fingerprint,
        )
        np.testing.assert_array_equal(again.read_region(0, 0, 0, 100, 130), SMALL[0])


FORKED = """
import os, sys, threading
from napari_wsi_heatmap.slides import open_slide
slide = open_slide(sys.argv[1])
wanted = slide.read_region(0, 0, 0, 100, 130)
child = os.fork()
if child == 0:
    os._exit(0 if (slide.read_region(0, 0, 0, 100, 130) == wanted).all() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_reads(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    done = subprocess.run([sys.executable, "-c", FORKED, path], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


WITHOUT_ZARR = """
import sys
from napari_wsi_heatmap.slides import looks_like_slide, open_slide
assert looks_like_slide(sys.argv[1])
assert "imagecodecs" not in sys.modules
open_slide(sys.argv[1]).read_region(0, 0, 0, 9, 9)
print(sorted({"zarr", "numcodecs", "torch", "dask"} & set(sys.modules)))
"""


def test_reading_imports_no_zarr(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ZARR, path], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_opening_a_million_chunks_touches_few_files(tmp_path, monkeypatch):
    path = write_ome_zarr(tmp_path / "a.zarr", [noise(64, 64)])
    edit_json(path / "0" / "zarr.json", lambda meta: meta.update(shape=[3, 64_000, 64_000]))
    opened, listed = [], []
    really = os.open
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args) or really(*args))
    monkeypatch.setattr(os, "scandir", listed.append)
    monkeypatch.setattr(os, "listdir", listed.append)
    with OmeZarrSlide(str(path)) as slide:
        assert slide.levels[0].shape == (64_000, 64_000)
        assert len(opened) < 100
        assert listed == []
        assert (slide.read_region(0, 63_000, 63_000, 500, 500) == 255).all()


def test_many_opens_leak_nothing(tmp_path):
    psutil = pytest.importorskip("psutil")
    me = psutil.Process()
    path = write_ome_zarr(tmp_path / "a.zarr", SMALL, chunks=(3, 32, 32), shards=(3, 64, 64))
    (path / "0" / "c" / "0" / "0" / "1").write_bytes(b"damaged")

    def series():
        for _ in range(200):
            with open_slide(path) as slide:
                slide.read_region(0, 0, 0, 64, 64)
                with pytest.raises(SlideReadError):
                    slide.read_region(0, 0, 0, 64, 130)

    series()
    count = me.num_fds if hasattr(me, "num_fds") else me.num_handles
    before = count(), me.memory_info().rss
    series()
    assert count() <= before[0]
    assert me.memory_info().rss - before[1] < 5 << 20


def test_the_made_metadata_are_what_zarr_reads(tmp_path):
    """The same pixels through zarr itself, for the layout that the contract uses."""
    path = write_ome_zarr(tmp_path / "a.zarr", LEVELS, **SHARDED)
    for index, level in enumerate(LEVELS):
        np.testing.assert_array_equal(zarr.open_array(str(path / str(index)), mode="r")[:], level)
