"""Slides of odd geometry against the contract of a slide, read directly and by OpenSlide."""

from __future__ import annotations

import tracemalloc
from functools import cache

import imagecodecs
import numpy as np
import pytest
import tifffile

from contracts import SlideContract
from made_slides import DATA_AT, cut_up, noise, raw_tiff, strided, tiled, write_tiff, write_tiles
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import level_downsample
from napari_wsi_heatmap.slides.rawfile import RawFile

BACKENDS = ("tiff", "openslide")


def strided_by(height, width, *factors):
    return strided(noise(height, width), *factors)


def of_shapes(*shapes):
    return [noise(*shape, seed=index) for index, shape in enumerate(shapes)]


ODD = {
    "one pixel": (of_shapes((1, 1)), 16),
    "one column": (of_shapes((100_000, 1)), 16),
    "one row": (of_shapes((1, 100_000)), 16),
    "tiles of 16": (strided_by(300, 421, 4), 16),
    "smaller than a tile": (strided_by(70, 100, 2), 256),
    "last level of one pixel": (strided_by(301, 200, 4, 512), 64),
    "levels of different aspect": (of_shapes((600, 900), (300, 300), (75, 150)), 64),
    "downsample 2.0005": (of_shapes((2001, 64), (1000, 32)), 64),
    "downsample 4.0043": (of_shapes((920, 1403), (230, 350)), 128),
    "many levels": (strided_by(700, 500, 2, 4, 8, 16, 32, 64), 32),
}
"""Levels of the slide, and the side of its tiles."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Write each of them once."""
    folder = tmp_path_factory.mktemp("odd")

    @cache
    def make(name):
        levels, tile = ODD[name]
        return write_tiff(folder / f"{name}.tif", levels, tile=tile)

    return make


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ODD)
class TestOddSlides(SlideContract):
    @pytest.fixture
    def opened(self, made, name, backend):
        self.levels = ODD[name][0]
        return open_slide(made(name), backend=backend)

    def truth(self, slide, level):
        return self.levels[level]

    def test_has_all_its_levels(self, slide, made, name):
        assert [level.shape for level in slide.levels] == [p.shape[:2] for p in self.levels]
        with open_slide(made(name)) as chosen:
            assert (chosen.backend, chosen.why) == ("tiff", "")


@pytest.fixture(scope="module")
def unsorted_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("unsorted") / "a.tif"
    level0, level1, level2 = TestUnsorted.levels
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate((level2, level0, level1)):
            file.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="lzw",
                subfiletype=1 if index else 0,
                metadata=None,
            )
    return path


@pytest.mark.parametrize("backend", [None, "openslide"])
class TestUnsorted(SlideContract):
    """Directories in the order 4, 1, 2: the finest level comes first all the same."""

    levels = strided(noise(801, 603), 2, 4)

    @pytest.fixture
    def opened(self, unsorted_path, backend):
        return open_slide(unsorted_path, backend=backend)

    def truth(self, slide, level):
        return self.levels[level]

    def test_is_read_directly(self, slide, backend):
        assert slide.backend == (backend or "tiff")
        assert len(slide.levels) == 3


@pytest.fixture(scope="module")
def large_tiles_path(tmp_path_factory):
    tiles = [imagecodecs.zstd_encode(tile.tobytes()) for tile in cut_up(TestTilesOf4096.grey, 4096)]
    path = tmp_path_factory.mktemp("4096") / "a.tif"
    return write_tiles(path, tiles, TestTilesOf4096.grey.shape, 4096, compression=50000)


@pytest.mark.parametrize("backend", BACKENDS)
class TestTilesOf4096(SlideContract):
    """The largest tiles that are read, as grey levels."""

    grey = noise(300, 4300)[..., 0]

    @pytest.fixture
    def opened(self, large_tiles_path, backend):
        return open_slide(large_tiles_path, backend=backend)

    def truth(self, slide, level):
        return np.repeat(self.grey[..., None], 3, axis=2)

    def test_is_read_directly(self, slide, large_tiles_path):
        assert slide.levels[0].tile == (4096, 4096)
        with open_slide(large_tiles_path) as chosen:
            assert (chosen.backend, chosen.why) == ("tiff", "")


SIDE, TILE, KINDS = 40_960, 512, 8


def kind_of_tile(row, column):
    return (3 * row + column) % KINDS


def pixels_at(y, x, height, width):
    """What the large slide holds there, by formula."""
    rows, columns = np.mgrid[y : y + height, x : x + width]
    kind = kind_of_tile(rows // TILE, columns // TILE)
    return np.stack([rows % TILE % 251, columns % TILE % 241, 30 * kind], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def large_path(tmp_path_factory):
    """40,960 px square in 40 kB: 6400 tiles, each one of eight."""
    across = SIDE // TILE
    tiles = [
        imagecodecs.zlib_encode(pixels_at(0, column * TILE, TILE, TILE).tobytes())
        for column in range(KINDS)
    ]
    starts = DATA_AT + np.cumsum([0, *(len(tile) for tile in tiles)])
    rows, columns = np.mgrid[:across, :across]
    kinds = kind_of_tile(rows, columns).ravel()
    lengths = np.array([len(tile) for tile in tiles])
    tags = tiled((SIDE, SIDE), TILE, starts[kinds], lengths[kinds], t259=8)
    path = tmp_path_factory.mktemp("large") / "a.tif"
    return raw_tiff(path, tags, data=b"".join(tiles))


@pytest.mark.parametrize("backend", BACKENDS)
class TestOneLevelOf40960(SlideContract):
    """No whole level is read: 5 GB."""

    @pytest.fixture
    def opened(self, large_path, backend):
        return open_slide(large_path, backend=backend)

    def truth(self, slide, level):
        return None

    def test_boxes_are_what_the_formula_says(self, slide):
        rng = np.random.default_rng(4)
        last = SIDE - 700
        corners = [(0, 0), (0, last), (last, 0), (last, last), (SIDE // 2, SIDE // 2)]
        for y, x in [*corners, *rng.integers(0, last, (20, 2)).tolist()]:
            height, width = (int(n) for n in rng.integers(1, 700, 2))
            got = slide.read_region(0, y, x, height, width)
            np.testing.assert_array_equal(got, pixels_at(y, x, height, width))

    def test_a_strip_across_all_of_it(self, slide):
        got = slide.read_region(0, 20_470, 0, 30, SIDE)
        np.testing.assert_array_equal(got, pixels_at(20_470, 0, 30, SIDE))

    def test_over_the_far_corner(self, slide):
        got = slide.read_region(0, SIDE - 10, SIDE - 20, 50, 50)
        np.testing.assert_array_equal(got[:10, :20], pixels_at(SIDE - 10, SIDE - 20, 10, 20))
        assert (got[10:] == slide.background).all()
        assert (got[:, 20:] == slide.background).all()

    def test_opening_takes_little_memory(self, large_path, backend):
        open_slide(large_path, backend=backend).close()
        tracemalloc.start()
        try:
            open_slide(large_path, backend=backend).close()
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


def test_opening_reads_as_much_of_a_large_slide_as_of_a_small_one(
    large_path, tmp_path, monkeypatch
):
    lengths = []

    def counted(self, offset, length, read=RawFile.read):
        lengths.append(length)
        return read(self, offset, length)

    monkeypatch.setattr(RawFile, "read", counted)
    data = imagecodecs.zlib_encode(pixels_at(0, 0, TILE, TILE).tobytes())
    small = raw_tiff(
        tmp_path / "a.tif", tiled((TILE, TILE), TILE, [DATA_AT], [len(data)], t259=8), data=data
    )
    spent = []
    for path in (small, large_path):
        lengths.clear()
        open_slide(path, backend="tiff").close()
        spent.append((len(lengths), sum(lengths)))
    (few, little), (many, much) = spent
    assert many == few
    assert abs(much - little) < 200  # one tile, which compresses a little otherwise


def test_downsamples_of_odd_levels():
    """The averages that OpenSlide takes for these are 2.0005 and 4.0043."""
    assert level_downsample((2001, 64), (1000, 32)) == (2.0, 2.0)
    assert level_downsample((920, 1403), (230, 350)) == (4.0, 4.0)
