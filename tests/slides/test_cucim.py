"""cuCIM: the pixels of OpenSlide, at every downsample, and an error wherever a tile is damaged."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import shutil
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("cucim", reason="cuCIM is not installed (extra cucim)")

from contracts import SlideContract
from made_slides import (
    decoded,
    noise,
    patch_tags,
    smash_tile,
    strided,
    tissue,
    write_aperio,
    write_tiff,
)
from napari_wsi_heatmap.errors import (
    SlideChangedError,
    SlideError,
    SlideOpenError,
    SlideReadError,
)
from napari_wsi_heatmap.slides import cucim as cucim_backend
from napari_wsi_heatmap.slides import cucim_child, cucim_worker, open_slide
from napari_wsi_heatmap.slides.cucim import CucimSlide
from napari_wsi_heatmap.slides.file import NotSureError
from napari_wsi_heatmap.slides.openslide import OpenSlideSlide

MOST_PIXELS = 16 << 20
EQUAL = (
    "slides/aperio/CMU-1-Small-Region.svs",
    "slides/openslide-python/small.svs",
    "vendors/aperio_jpeg_icc.svs",
    "vendors/generic_deflate_bigtiff.tif",
    "vendors/generic_lzw.tif",
    "vendors/ome_pyramid_subifd.ome.tif",
    "vendors/philips.tiff",
    "pydmed/slide_0.tif",
    "pydmed/slide_3.tif",
)
LEFT = {
    "slides/aperio/TCGA-CR-7395-01A-01-TS1.svs": "does not read JPEG 2000",
    "slides/openslide-python/boxes.tiff": "it crashed",
    "slides/tiff/large_image-yb10kx5k.zstd.tiff": "does not read zstd",
    "slides/ndpi/test3-TRITC 2 (560).ndpi": "tiled TIFF only",
    "slides/mrxs/Mirax2-Fluorescence-2.mrxs": "tiled TIFF only",
    "vendors/aperio_jp2k_33003_ycbcr.svs": "does not read JPEG 2000",
    "vendors/aperio_jp2k_33005_rgb.svs": "does not read JPEG 2000",
    "vendors/generic_planar_separate.tif": "8-bit RGB tiles only",
    "vendors/generic_rgb16.tif": "8-bit RGB tiles only",
    "vendors/generic_zstd.tif": "does not read zstd",
    "vendors/leica.scn": "does not read leica slides",
    "vendors/trestle.tif": "does not read trestle slides",
    "vendors/ventana.bif": "does not read ventana slides",
}


@pytest.fixture(scope="module")
def generic_path(tmp_path_factory):
    return write_tiff(tmp_path_factory.mktemp("generic") / "odd.tif", TestGenericTiff.levels)


@pytest.fixture(scope="module")
def aperio_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("aperio") / "made.svs"
    return write_aperio(path, strided(tissue(1100, 1301), 4, 16))


class TestGenericTiff(SlideContract):
    """Deflate; downsamples 4 and 15.915, and noise, so that a wrong position shows."""

    levels = strided(noise(1500, 1000), 4, 16)

    @pytest.fixture
    def opened(self, generic_path):
        return open_slide(generic_path, backend="cucim")

    def truth(self, slide, level):
        return self.levels[level]


class TestDownsampleNearTwo(SlideContract):
    """Downsample 2.0005, where OpenSlide interpolates most pixels."""

    levels = (noise(3001, 64), noise(1500, 32, seed=1))

    @pytest.fixture
    def opened(self, tmp_path):
        return CucimSlide(str(write_tiff(tmp_path / "two.tif", self.levels)))

    def truth(self, slide, level):
        return self.levels[level]


class TestAperioJpeg(SlideContract):
    """Truth: what imagecodecs, not cuCIM, decodes."""

    @pytest.fixture
    def opened(self, aperio_path):
        return CucimSlide(str(aperio_path))

    def truth(self, slide, level):
        return decoded(Path(slide.path), level)

    def test_says_what_openslide_says(self, slide):
        assert slide.backend == "cucim"
        assert slide.mpp == (0.5, 0.5)
        assert slide.mpp_source == "the file's properties"
        assert slide.objective_power == 20
        assert (slide.format, slide.compression) == ("aperio", "JPEG")
        assert slide.warnings == ()
        assert slide.properties["cucim.device"] == "cpu"
        assert slide.properties["aperio.AppMag"] == "20"


class TestMissingTiles(SlideContract):
    """Tiles of no bytes: not scanned."""

    levels = strided(noise(700, 900), 4)

    @pytest.fixture
    def opened(self, tmp_path):
        path = write_tiff(tmp_path / "sparse.tif", self.levels, compression="jpeg")
        empty_tiles(path, 0, 1, 6)
        return CucimSlide(str(path))

    def truth(self, slide, level):
        with OpenSlideSlide(slide.path) as beside:
            return beside.read_region(level, 0, 0, *slide.levels[level].shape)

    def test_they_are_masked_as_openslide_masks_them(self, slide):
        with OpenSlideSlide(slide.path) as beside:
            for box in ((0, 0, 0, 700, 900), (0, 300, 200, 100, 100), (0, 10, 300, 50, 60)):
                for ours, theirs in zip(
                    slide.read_scanned(*box), beside.read_scanned(*box), strict=True
                ):
                    np.testing.assert_array_equal(ours, theirs)
        assert not slide.read_scanned(0, 0, 256, 256, 256)[1].any()


@pytest.mark.parametrize("name", EQUAL)
class TestRealSlides(SlideContract):
    """Truth: whole levels as OpenSlide draws them."""

    @pytest.fixture
    def opened(self, data_dir, name):
        if not (data_dir / name).exists():
            pytest.skip(f"{data_dir / name} is not there")
        return CucimSlide(str(data_dir / name))

    def truth(self, slide, level):
        height, width = slide.levels[level].shape
        if height * width > MOST_PIXELS:
            return None
        with OpenSlideSlide(slide.path) as beside:
            return beside.read_region(level, 0, 0, height, width)

    def test_rest_is_openslides(self, slide):
        with OpenSlideSlide(slide.path) as beside:
            assert slide.levels == beside.levels
            assert slide.icc_profile == beside.icc_profile
            assert slide.fingerprint == beside.fingerprint
            assert list(slide.associated_images) == list(beside.associated_images)
            for image, pixels in slide.associated_images.items():
                np.testing.assert_array_equal(pixels, beside.associated_images[image])


@pytest.mark.parametrize("name", LEFT)
def test_leaves_the_rest_and_says_why(data_dir, name):
    if not (data_dir / name).exists():
        pytest.skip(f"{data_dir / name} is not there")
    with pytest.raises(NotSureError, match=LEFT[name]):
        CucimSlide(str(data_dir / name))


def empty_tiles(path, page, *indices):
    """Say that tiles have no bytes, as a scanner does for glass."""
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[page].tags["TileByteCounts"]
        at, size = tag.valueoffset, {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
    with path.open("r+b") as file:
        for index in indices:
            file.seek(at + size * index)
            file.write(bytes(size))


def replace_tile(path, index, data):
    """Put other bytes in place of those of a tile."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        tag = page.tags["TileByteCounts"]
        at, room, size = page.dataoffsets[index], page.databytecounts[index], tag.dtype
    assert len(data) <= room
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
        file.seek(tag.valueoffset + {3: 2, 4: 4, 16: 8}[int(size)] * index)
        file.write(len(data).to_bytes({3: 2, 4: 4, 16: 8}[int(size)], "little"))


def jpeg_of(tmp_path, pixels):
    """A whole JPEG stream of one tile."""
    path = write_tiff(tmp_path / "one.tif", [pixels], compression="jpeg", tile=len(pixels))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        with path.open("rb") as file:
            file.seek(page.dataoffsets[0])
            data = file.read(page.databytecounts[0])
        tables = page.tags["JPEGTables"].value if "JPEGTables" in page.tags else b""
    return tables[:-2] + data[2:] if tables else data


class TestDamage:
    """Where cuCIM says nothing, or dies: that read fails, others do not."""

    LEVEL = tissue(800, 900)
    TILE = 6
    """Of 4 tiles in a row: its pixels begin at y 256, x 512; the middle of the slide is in 5."""

    def check(self, path, match):
        with CucimSlide(str(path)) as slide:
            for box in ((0, 256, 512, 256, 256), (0, 0, 0, 800, 900), (0, 300, 600, 1, 1)):
                with pytest.raises(SlideReadError, match=match) as seen:
                    slide.read_region(*box)
                assert "\n" not in str(seen.value)
                assert "level 0" in str(seen.value)
            whole = decoded_tiles(path, self.TILE)
            for y, x in ((0, 0), (256, 0), (512, 512)):
                got = slide.read_region(0, y, x, 256, 256)
                np.testing.assert_array_equal(got, whole[y : y + 256, x : x + 256])

    @pytest.mark.parametrize("compression", ["jpeg", "zlib", "lzw"])
    def test_smashed_tile(self, tmp_path, compression):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression=compression)
        smash_tile(path, self.TILE)
        self.check(path, "^cuCIM cannot read it: ")

    @pytest.mark.parametrize("compression", ["jpeg", "zlib", "lzw"])
    def test_overwritten_middle_of_a_tile(self, tmp_path, compression):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression=compression)
        with tifffile.TiffFile(path) as tiff:
            at = tiff.pages[0].dataoffsets[self.TILE]
            size = tiff.pages[0].databytecounts[self.TILE]
        with path.open("r+b") as file:
            file.seek(at + size // 2)
            file.write(noise(1, size // 4, seed=3).tobytes()[: size // 4])
        self.check(path, "^cuCIM cannot read it: ")

    @pytest.mark.parametrize("side", [64, 128])
    def test_jpeg_tile_of_fewer_pixels(self, tmp_path, side):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression="jpeg")
        replace_tile(path, self.TILE, jpeg_of(tmp_path, tissue(side, side)))
        self.check(path, "a JPEG tile whose header says")

    def test_jpeg_tile_of_more_pixels_than_there_is_room(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression="jpeg")
        data = bytearray(jpeg_of(tmp_path, tissue(64, 64)))
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 4096, 4096)
        replace_tile(path, self.TILE, bytes(data))
        self.check(path, "a JPEG tile whose header says")

    def test_deflated_tile_of_fewer_bytes(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL])
        replace_tile(path, self.TILE, zlib.compress(bytes(1000)))
        self.check(path, "a tile of 1000 bytes instead of 196608")

    def test_tile_beyond_the_end(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression="jpeg")
        slide = CucimSlide(str(path))
        with tifffile.TiffFile(path) as tiff:
            end = tiff.pages[0].dataoffsets[8]
        os.truncate(path, end)
        with pytest.raises(SlideChangedError):
            slide.read_region(0, 512, 0, 256, 256)
        slide.close()

    def test_coarse_level(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", strided(tissue(2000, 2400), 2), compression="jpeg")
        smash_tile(path, 0, page=1)
        with CucimSlide(str(path)) as slide:
            with pytest.raises(SlideReadError, match="level 1"):
                slide.read_region(1, 0, 0, 300, 300)
            got = slide.read_region(1, 256, 256, 300, 300)
        np.testing.assert_array_equal(got, decoded_tiles(path, 0, page=1)[256:556, 256:556])

    def test_process_that_dies_is_one_error(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression="jpeg")
        with CucimSlide(str(path)) as slide:
            with slide._workers.borrow() as worker:
                pass
            os.kill(worker._process.pid, 9)
            with pytest.raises(SlideReadError, match=r"it crashed \(signal 9\)"):
                slide.read_region(0, 0, 0, 256, 256)
            np.testing.assert_array_equal(
                slide.read_region(0, 0, 0, 256, 256), decoded(path, 0)[:256, :256]
            )

    def test_process_that_falls_silent(self, tmp_path, monkeypatch):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression="jpeg")
        with CucimSlide(str(path)) as slide:
            with slide._workers.borrow() as worker:
                pass
            monkeypatch.setattr(cucim_worker, "READ_S", 0.2)
            os.kill(worker._process.pid, 19)
            with pytest.raises(SlideReadError, match="did not answer within"):
                slide.read_region(0, 0, 0, 256, 256)

    def test_process_of_no_answer_is_a_reason(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression="jpeg")
        with pytest.raises(SlideError, match="no process for it can be started"):
            CucimSlide(str(path))

    def test_host_sees_nothing_printed(self, tmp_path, capfd):
        path = write_tiff(tmp_path / "a.tif", [self.LEVEL], compression="jpeg")
        smash_tile(path, self.TILE)
        with CucimSlide(str(path)) as slide, pytest.raises(SlideReadError):
            slide.read_region(0, 256, 512, 256, 256)
        assert capfd.readouterr() == ("", "")


def decoded_tiles(path, broken, *, page=0):
    """All pixels of a directory but those of one tile, which are zero."""
    with tifffile.TiffFile(path) as tiff:
        pages = tiff.pages[page]
        out = np.zeros((*pages.shape[:2], 3), np.uint8)
        rows_of_tiles = -(-pages.shape[1] // pages.tilewidth)
        for index in range(len(pages.dataoffsets)):
            if index == broken:
                continue
            y, x = divmod(index, rows_of_tiles)
            with path.open("rb") as file:
                file.seek(pages.dataoffsets[index])
                data = file.read(pages.databytecounts[index])
            tile = pages.decode(data, index, jpegtables=pages.jpegtables)[0][0]
            y, x = y * pages.tilelength, x * pages.tilewidth
            part = out[y : y + tile.shape[0], x : x + tile.shape[1]]
            part[:] = tile[: part.shape[0], : part.shape[1]]
    return out


class TestNotSure:
    def test_missing_tiles_of_an_aperio_slide(self, tmp_path):
        path = write_aperio(tmp_path / "a.svs", strided(tissue(1100, 1301), 4))
        empty_tiles(path, 0, 3)
        with pytest.raises(NotSureError, match="an Aperio slide with missing tiles"):
            CucimSlide(str(path))

    def test_level_hardly_smaller(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [noise(300, 400), noise(270, 360)])
        with pytest.raises(NotSureError, match="hardly smaller"):
            CucimSlide(str(path))

    def test_other_pixels(self, tmp_path, monkeypatch):
        path = write_tiff(tmp_path / "a.tif", [noise(300, 400)])
        real = cucim_backend._openslide_box

        def brighter(*args):
            y, x, pixels = real(*args)
            pixels[7, 9, 1] ^= 1
            return y, x, pixels

        monkeypatch.setattr(cucim_backend, "_openslide_box", brighter)
        with pytest.raises(NotSureError, match="other pixels than OpenSlide in level 0"):
            CucimSlide(str(path))

    def test_tables_that_end_too_early(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", [noise(300, 400)])
        patch_tags(path, 0, TileByteCounts=5)
        with pytest.raises(SlideOpenError):
            CucimSlide(str(path))

    @pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
    def test_no_such_device(self, aperio_path, device):
        with pytest.raises(SlideOpenError, match="no device"):
            CucimSlide(str(aperio_path), device=device)

    def test_no_slide_at_all(self, tmp_path):
        (tmp_path / "a.svs").write_bytes(b"")
        with pytest.raises(SlideOpenError, match=r"^the file is empty"):
            CucimSlide(str(tmp_path / "a.svs"))

    def test_not_installed(self, aperio_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "cucim", None)
        monkeypatch.delitem(sys.modules, cucim_backend.__name__)
        with pytest.raises(SlideOpenError, match="No module named 'cucim' - pip install cucim"):
            open_slide(aperio_path, backend="cucim")

    def test_is_used_only_when_asked_for(self, aperio_path):
        with open_slide(aperio_path) as slide:
            assert slide.backend != "cucim"
        with open_slide(aperio_path, backend="cucim") as slide:
            assert slide.backend == "cucim"


class TestProcesses:
    def test_strips_are_joined(self, aperio_path, monkeypatch):
        monkeypatch.setattr(cucim_backend, "STRIP", 1)
        whole = decoded(aperio_path, 0)
        with CucimSlide(str(aperio_path)) as slide:
            for y, x, height, width in ((0, 0, 1100, 1301), (250, 3, 20, 700), (100, 0, 900, 10)):
                got = slide.read_region(0, y, x, height, width)
                np.testing.assert_array_equal(got, whole[y : y + height, x : x + width])

    def test_as_many_as_readers_and_none_after_closing(self, aperio_path):
        slide = CucimSlide(str(aperio_path))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda i: slide.read_region(0, i, i, 300, 300), range(60)))
        workers = list(slide._workers._idle)
        assert 1 <= len(workers) <= min(cucim_worker.MOST, os.cpu_count())
        slide.close()
        assert all(worker._process.returncode is not None for worker in workers)

    def test_no_descriptor_is_left(self, aperio_path):
        def cycle():
            with CucimSlide(str(aperio_path)) as slide:
                slide.read_region(0, 0, 0, 10, 10)

        cycle()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(4):
            cycle()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_slide_that_nobody_closed_leaves_no_process(self, aperio_path):
        slide = CucimSlide(str(aperio_path))
        process = slide._workers._idle[0]._process
        del slide
        gc.collect()
        assert process.returncode is not None

    def test_closed_while_it_is_read(self, aperio_path):
        slide = CucimSlide(str(aperio_path))
        with slide._workers.borrow() as worker:
            slide.close()
            out = np.empty((64, 64, 3), np.uint8)
            worker.read(out, 0, 0, 0)
        np.testing.assert_array_equal(out, decoded(aperio_path, 0)[:64, :64])
        assert worker._process.returncode is not None

    def test_pickled_it_is_opened_again(self, aperio_path):
        with CucimSlide(str(aperio_path), mpp=0.3) as slide:
            again = pickle.loads(pickle.dumps(slide))
        assert (again.mpp, again.device) == ((0.3, 0.3), "cpu")
        np.testing.assert_array_equal(
            again.read_region(0, 5, 6, 70, 80), decoded(aperio_path, 0)[5:75, 6:86]
        )
        again.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_forked_process_has_its_own(self, aperio_path):
        with CucimSlide(str(aperio_path)) as slide:
            want = slide.read_region(0, 0, 0, 300, 300)
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            child = context.Process(
                target=lambda: queue.put(slide.read_region(0, 0, 0, 300, 300).tobytes())
            )
            child.start()
            got = queue.get()
            child.join()
            assert got == want.tobytes()
            np.testing.assert_array_equal(slide.read_region(0, 0, 0, 300, 300), want)

    def test_replaced_file_is_noticed(self, tmp_path, aperio_path):
        path = tmp_path / "a.svs"
        shutil.copy(aperio_path, path)
        with CucimSlide(str(path)) as slide:
            write_aperio(path, [tissue(1100, 1301, seed=5)])
            assert slide.changed() == "a.svs was changed or replaced"
            slide._workers._idle.pop().close()
            with pytest.raises(SlideChangedError):  # no new process opens another slide
                slide.read_region(0, 0, 0, 10, 10)


class TestPositions:
    def test_none_is_interpolated(self, tmp_path):
        """Downsample 4.0001 over 5000 px: there OpenSlide has no position that is whole."""
        levels = noise(20_001, 64), noise(5000, 16, seed=1)
        path = str(write_tiff(tmp_path / "a.tif", levels))
        with OpenSlideSlide(path) as beside, CucimSlide(path) as slide:
            assert any("interpolates" in warning for warning in beside.warnings)
            assert slide.warnings == ()
            got = slide.read_region(1, 4500, 0, 500, 16)
        np.testing.assert_array_equal(got, levels[1][4500:])

    @pytest.mark.parametrize("downsample", [1, 2, 4.0043, 2.0005, 15.915, 1.5, 3])
    def test_position_divided_gives_the_pixel(self, downsample):
        down = float(np.float32(downsample))
        for position in (*range(3000), 99_999, 131_071):
            quotient = np.float32(cucim_child.level0(position, down)) / np.float32(down)
            assert int(quotient) == position

    def test_long_level(self, tmp_path):
        """100,000 px at downsample 2.00001: columns state where they are."""
        columns = [np.arange(n) for n in (200_001, 100_000)]
        levels = [
            np.broadcast_to(np.stack([c % 256, c // 256 % 256, c // 65536], -1), (16, len(c), 3))
            for c in columns
        ]
        path = write_tiff(tmp_path / "a.tif", [level.astype(np.uint8) for level in levels])
        with CucimSlide(str(path)) as slide:
            for x in (1, 4_999, 49_999, 50_001, 65_537, 99_990):
                np.testing.assert_array_equal(
                    slide.read_region(1, 0, x, 8, 9), levels[1][:8, x : x + 9]
                )


class TestTileChecks:
    def test_frame_of_a_jpeg(self, tmp_path):
        assert cucim_child.jpeg_frame(jpeg_of(tmp_path, tissue(64, 64))) == (8, 64, 64, 3)

    @pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xda\0\4", b"II*\0"])
    def test_no_frame(self, data):
        assert cucim_child.jpeg_frame(data) is None

    def test_raw_tile(self):
        assert cucim_child.tile_fault(bytes(16 * 16 * 3), 1, (16, 16)) is None
        assert "instead of 768" in cucim_child.tile_fault(bytes(767), 1, (16, 16))

    def test_deflated_tile(self):
        assert cucim_child.tile_fault(zlib.compress(bytes(768)), 8, (16, 16)) is None
        for data in (zlib.compress(bytes(769)), zlib.compress(bytes(767)), b"", b"x" * 50):
            assert cucim_child.tile_fault(data, 8, (16, 16))


@pytest.mark.gpu
class TestGpu:
    def test_pixels_are_nearly_those_of_the_cpu(self, aperio_path):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        with CucimSlide(str(aperio_path), device="cuda") as slide:
            assert slide.properties["cucim.device"] == "cuda"
            assert any("decoded by cuda" in warning for warning in slide.warnings)
            got = slide.read_region(0, 100, 100, 512, 512)
        off = np.abs(got.astype(int) - decoded(aperio_path, 0)[100:612, 100:612])
        assert off.mean() < cucim_backend.GPU_DIFFERENCE
