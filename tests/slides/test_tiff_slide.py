"""The direct TIFF backend while things happen to it: threads, forks, other files, damage."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from made_slides import (
    DATA_AT,
    decoded,
    noise,
    raw_tiff,
    red_for_blue,
    strided,
    tiled,
    tissue,
    write_aperio,
    write_tiff,
)
from napari_wsi_heatmap.errors import SlideChangedError, SlideOpenError, SlideReadError
from napari_wsi_heatmap.slides import open_slide, tiff, tilereading
from napari_wsi_heatmap.slides.rawfile import RawFile
from napari_wsi_heatmap.slides.tiff import TiffSlide
from napari_wsi_heatmap.slides.tilecodecs import YCBCR, Coding, TileError, decoder

LEVELS = strided(noise(600, 700), 4)
SOON = 30
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def path(tmp_path):
    return write_tiff(tmp_path / "a.tif", LEVELS, tile=64, compression=None)


@pytest.fixture
def slide(path):
    with open_slide(path) as slide:
        assert slide.backend == "tiff"
        yield slide


def with_thumbnail(path, *, seed=0):
    """An Aperio slide of which OpenSlide hands out a thumbnail."""
    write_aperio(path, [tissue(600, 700, seed)])
    with tifffile.TiffWriter(path, append=True) as file:
        file.write(
            tissue(64, 96, seed),
            photometric="ycbcr",
            compression="jpeg",
            rowsperstrip=64,
            subfiletype=1,
            description="Aperio Image Library v11.2.1\r\n700x600 -> 96x64",
            metadata=None,
        )
    return path


def file_descriptors(path):
    """How often this process has the file open."""
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):
        pytest.skip("no /proc here")
    found = 0
    for name in os.listdir(folder):
        try:
            found += os.path.samefile(os.readlink(f"{folder}/{name}"), path)
        except OSError:
            continue
    return found


def boxes(slide, number, seed=0, size=150):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        level = int(rng.integers(len(slide.levels)))
        height, width = slide.levels[level].shape
        y, x = int(rng.integers(height)), int(rng.integers(width))
        yield level, y, x, min(size, height - y), min(size, width - x)


def right(pixels, level, y, x, height, width):
    return np.array_equal(pixels, LEVELS[level][y : y + height, x : x + width])


class TestThreads:
    def test_eight_read_what_is_stored(self, slide):
        def read(seed):
            return all(right(slide.read_region(*b), *b) for b in boxes(slide, 60, seed))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(read, range(8))) == [True] * 8

    def test_closing_while_others_read(self, path):
        for _ in range(10):
            slide = open_slide(path)
            began = threading.Barrier(5, timeout=SOON)

            def read(seed, slide=slide, began=began):
                began.wait()
                count = 0
                try:
                    for box in boxes(slide, 10**6, seed):
                        assert right(slide.read_region(*box), *box)
                        count += 1
                except SlideReadError as error:
                    return count, str(error)

            with ThreadPoolExecutor(4) as pool:
                ends = [pool.submit(read, seed) for seed in range(4)]
                began.wait()
                slide.close()
                for end in ends:
                    assert end.result(SOON)[1].startswith("the slide is closed")
            assert file_descriptors(path) == 0

    def test_errors_of_one_are_not_those_of_others(self, path):
        with tifffile.TiffFile(path) as file:
            at = file.pages[0].tags["TileByteCounts"].valueoffset
        with path.open("r+b") as file:  # the first tile of level 0
            file.seek(at)
            file.write((5).to_bytes(2, "little"))
        with open_slide(path) as slide:

            def read(index):
                if index % 2:
                    with pytest.raises(SlideReadError, match="5 bytes where 12288"):
                        slide.read_region(0, 0, 0, 64, 64)
                else:
                    for box in boxes(slide, 20, index):
                        if box[0] or box[1] >= 64 or box[2] >= 64:
                            assert right(slide.read_region(*box), *box)

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(read, range(16)))


class TestClosing:
    def test_releases_the_file(self, path):
        before = file_descriptors(path)
        for _ in range(3):
            slide = open_slide(path)
            assert file_descriptors(path) == before + 1
            assert slide._known._handle._current is None  # OpenSlide's is closed again
            slide.read_region(0, 0, 0, 100, 100)
            slide.close()
            assert file_descriptors(path) == before

    def test_of_a_slide_that_was_asked_for_pictures(self, tmp_path):
        path = with_thumbnail(tmp_path / "a.svs")
        slide = open_slide(path)
        images = slide.associated_images
        assert file_descriptors(path) == 1
        assert list(images) == ["thumbnail"]
        assert images["thumbnail"].shape == (64, 96, 3)
        slide.close()
        assert file_descriptors(path) == 0
        with pytest.raises(SlideReadError, match="closed"):
            images["thumbnail"]
        with pytest.raises(SlideReadError, match="closed"):
            slide.icc_profile  # noqa: B018 - it is read when asked for
        assert file_descriptors(path) == 0

    def test_of_a_slide_that_is_left_to_openslide(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, noise(64, 64).astype(np.uint16), tile=(64, 64), photometric="rgb")
        with pytest.raises(SlideOpenError, match=r"16-bit samples - .*a\.tif - "):
            open_slide(path, backend="tiff")
        assert file_descriptors(path) == 0
        with open_slide(path) as slide:
            assert slide.backend == "openslide"
        assert file_descriptors(path) == 0

    def test_an_empty_box_of_a_closed_slide_is_an_error_too(self, slide):
        assert slide.read_region(0, 5, 5, 0, 9).shape == (0, 9, 3)
        slide.close()
        with pytest.raises(SlideReadError, match=r"closed - .*a\.tif - open it again"):
            slide.read_region(0, 5, 5, 0, 9)


def in_child(job):
    """Exit status of a forked child; a hang is ended by a signal."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(SOON)
        try:
            ok = job()
        except BaseException:
            os._exit(2)
        os._exit(0 if ok else 1)
    return os.waitpid(pid, 0)[1]


@FORKS
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
class TestFork:
    def read_all(self, slide):
        with ThreadPoolExecutor(4) as pool:
            return all(pool.map(lambda b: right(slide.read_region(*b), *b), boxes(slide, 40)))

    def test_the_child_reads(self, slide):
        assert self.read_all(slide)
        assert in_child(lambda: self.read_all(slide)) == 0
        assert self.read_all(slide)

    def test_while_the_parent_reads(self, slide):
        """A lock that a thread of the parent holds at the fork is held for ever in the child."""
        stop = threading.Event()

        def read(seed):
            while not stop.is_set():
                for box in boxes(slide, 20, seed, size=30):
                    slide.read_region(*box)

        readers = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(4)]
        for reader in readers:
            reader.start()
        try:
            codes = [in_child(lambda: self.read_all(slide)) for _ in range(10)]
        finally:
            stop.set()
        for reader in readers:
            reader.join(SOON)
        assert codes == [0] * 10

    def test_the_child_finds_its_parents_slide_replaced(self, slide, path, tmp_path):
        other = write_tiff(tmp_path / "b.tif", strided(noise(600, 700, 9), 4), compression=None)
        os.replace(other, path)

        def child():
            with pytest.raises(SlideChangedError):
                slide.read_region(0, 0, 0, 64, 64)
            return True

        assert in_child(child) == 0


def test_travels_to_another_process_by_its_path(path):
    program = (
        "import pickle, sys, hashlib\n"
        "slide = pickle.load(sys.stdin.buffer)\n"
        "with slide:\n"
        "    pixels = slide.read_region(0, 3, 4, 500, 600)\n"
        "    print(type(slide).__name__, slide.mpp[0], hashlib.sha256(pixels).hexdigest())\n"
    )
    import hashlib

    with open_slide(path, mpp=0.5) as slide:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps(slide),
            capture_output=True,
            timeout=60,
            check=True,
        )
    want = hashlib.sha256(np.ascontiguousarray(LEVELS[0][3:503, 4:604])).hexdigest()
    assert done.stdout.decode().split() == ["TiffSlide", "0.5", want]


class TestTheFileChanges:
    """Never the pixels of another file."""

    @pytest.fixture
    def other(self, tmp_path):
        """A slide of the same layout to the byte, with other pixels."""
        return write_tiff(
            tmp_path / "b.tif", strided(noise(600, 700, 9), 4), tile=64, compression=None
        )

    def test_another_takes_its_name(self, slide, path, other):
        os.replace(other, path)
        for box in boxes(slide, 20):
            assert right(slide.read_region(*box), *box)  # of the file that was opened
        assert slide.changed() == "a.tif was changed or replaced"

    def test_it_is_deleted(self, slide, path):
        path.unlink()
        for box in boxes(slide, 5):
            assert right(slide.read_region(*box), *box)
        assert slide.changed() == "a.tif is gone"

    def test_it_is_overwritten_in_place(self, slide, path, other):
        kept = 0, 5, 5, 30, 30
        slide.read_region(*kept)
        assert other.stat().st_size == path.stat().st_size
        with path.open("r+b") as file:
            file.write(other.read_bytes())
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**7))  # clocks of disks are coarse
        assert right(slide.read_region(*kept), *kept)  # pixels of the slide that was opened
        for box in ((0, 0, 0, 64, 64), (0, 200, 300, 100, 100)):
            with pytest.raises(SlideChangedError, match=r"changed or replaced - .*a\.tif - put"):
                slide.read_region(*box)

    def test_it_is_overwritten_while_it_is_read(self, slide, path, other):
        wrong, ended = [], threading.Event()

        def read(seed):
            try:
                for box in boxes(slide, 10**6, seed):
                    if not right(slide.read_region(*box), *box):
                        wrong.append(box)
            except (SlideChangedError, SlideReadError):
                ended.set()

        reader = threading.Thread(target=read, args=(0,), daemon=True)
        reader.start()
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**7))
        with path.open("r+b") as file:
            file.write(other.read_bytes())
        reader.join(SOON)
        assert ended.is_set()
        assert wrong == []

    def test_it_is_cut_off(self, slide, path):
        os.truncate(path, path.stat().st_size // 2)
        for box in boxes(slide, 10):
            with pytest.raises(SlideChangedError):
                slide.read_region(*box)

    def test_before_it_is_first_read(self, path, other):
        with open_slide(path) as slide:
            slide._handle.rest()
            shutil.copyfile(other, path)
            os.utime(path, ns=(1, 10**18))
            with pytest.raises(SlideChangedError):
                slide.read_region(0, 0, 0, 9, 9)
            os.unlink(path)
            with pytest.raises(SlideChangedError, match=r"a\.tif is gone"):
                slide.read_region(0, 0, 0, 9, 9)

    def test_no_label_of_another_patient(self, tmp_path):
        path = with_thumbnail(tmp_path / "a.svs")
        with open_slide(path) as slide:
            assert slide.backend == "tiff"
            os.replace(with_thumbnail(tmp_path / "b.svs", seed=7), path)
            with pytest.raises(SlideChangedError):
                slide.associated_images["thumbnail"]
            with pytest.raises(SlideChangedError):
                slide.icc_profile  # noqa: B018 - it is read when asked for


class TestDamage:
    @pytest.mark.parametrize("compression", ["jpeg", "zlib", "lzw", None])
    def test_exactly_the_boxes_that_touch_a_damaged_tile_fail(self, tmp_path, compression):
        path = write_tiff(tmp_path / "a.tif", [tissue(400, 500)], tile=64, compression=compression)
        with open_slide(path) as slide:
            whole = slide.read_region(0, 0, 0, 400, 500)
        columns, row, column = 8, 2, 5
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            index = row * columns + column
            place, length = page.dataoffsets[index], page.databytecounts[index]
            counts = page.tags["TileByteCounts"]
        with path.open("r+b") as file:
            if compression is None:
                file.seek(counts.valueoffset + index * counts.valuebytecount // counts.count)
                file.write((700).to_bytes(2, "little"))
            else:
                file.seek(place)
                file.write(np.random.default_rng(0).bytes(length))
        with open_slide(path) as slide:
            assert (slide.backend, slide.warnings) == ("tiff", ())
            failed = [b for b in grid(slide, 50) if not reads(slide, b, whole)]
            assert failed == [b for b in grid(slide, 50) if touches(b, row, column)]
            with pytest.raises(SlideReadError) as caught:
                slide.read_region(0, 100, 300, 200, 150)
        text = str(caught.value)
        assert text.startswith("the tile at y 128, x 320 is damaged: ")
        assert text.endswith(f"{path}, level 0, 200 x 150 px at y 100, x 300")

    @pytest.mark.parametrize(
        ("offset", "count", "said"),
        [
            (10**9, 12288, "its bytes lie at 1000000000, not in the file"),
            (2**32 - 1, 12288, "its bytes lie at 4294967295, not in the file"),
            (0, 12288, "its bytes lie at 0, not in the file"),
            (7, 12288, "its bytes lie at 7, not in the file"),
            (DATA_AT, 12287, "12287 bytes where 12288 are needed"),
            (DATA_AT, 200_000, "it claims 200000 bytes"),
        ],
    )
    def test_a_table_that_points_astray(self, tmp_path, offset, count, said):
        """Named with level and tile; the other tiles are read."""
        data = noise(64, 64).tobytes()
        offsets, counts = [DATA_AT] * 12, [len(data)] * 12
        offsets[1], counts[1] = offset, count
        whole = tiled((192, 256), 64, offsets, counts)
        # OpenSlide refuses a slide whose smallest level is damaged.
        smaller = tiled((64, 64), 64, [DATA_AT], [len(data)], t254=1)
        path = raw_tiff(tmp_path / "a.tif", whole, smaller, data=data)
        with open_slide(path) as slide:
            assert slide.backend == "tiff"
            with pytest.raises(SlideReadError) as caught:
                slide.read_region(0, 0, 0, 100, 100)
            assert str(caught.value).startswith(f"the tile at y 0, x 64 is damaged: {said} - ")
            assert "level 0" in str(caught.value)
            assert right_noise(slide.read_region(0, 0, 0, 100, 64))
            assert right_noise(slide.read_region(0, 64, 64, 128, 128))

    def test_a_box_beyond_memory(self, slide, monkeypatch):
        def out_of_memory(self, raw):
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(tilereading.TileReading, "read", out_of_memory)
            with pytest.raises(SlideReadError, match=r"not enough memory - .* - read less"):
                slide.read_region(0, 0, 0, 300, 300)
        assert right(slide.read_region(0, 0, 0, 300, 300), 0, 0, 0, 300, 300)


def right_noise(pixels):
    tile = noise(64, 64)
    want = np.tile(tile, (4, 4, 1))[: pixels.shape[0], : pixels.shape[1]]
    return np.array_equal(pixels, want)


def grid(slide, size):
    height, width = slide.levels[0].shape
    return [
        (y, x, min(size, height - y), min(size, width - x))
        for y in range(0, height, size)
        for x in range(0, width, size)
    ]


def touches(box, row, column):
    y, x, height, width = box
    return (
        y < 64 * row + 64
        and y + height > 64 * row
        and x < 64 * column + 64
        and (x + width > 64 * column)
    )


def reads(slide, box, whole):
    y, x, height, width = box
    try:
        got = slide.read_region(0, *box)
    except SlideReadError:
        return False
    np.testing.assert_array_equal(got, whole[y : y + height, x : x + width])
    return True


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A slide of a million tiles, all of them one and the same."""
    data = noise(16, 16).tobytes()
    number = 1 << 20
    tags = tiled(
        (16 << 10, 16 << 10),
        16,
        np.full(number, DATA_AT, np.uint32),
        np.full(number, len(data), np.uint32),
    )
    return raw_tiff(tmp_path_factory.mktemp("many") / "a.tif", tags, data=data)


class TestMemory:
    def test_of_opening_does_not_grow_with_the_tables(self, many):
        open_slide(many).close()  # modules, and the verdict of the child
        tracemalloc.start()
        try:
            slide = open_slide(many)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        with slide:
            assert slide.backend == "tiff"
            assert kept < 300 << 10
            assert peak < 4 << 20  # the tables have 8 MB

    def test_a_region_reads_its_part_of_the_tables(self, many, monkeypatch):
        lengths = []

        def counted(self, offset, length, read=RawFile.read):
            lengths.append(length)
            return read(self, offset, length)

        monkeypatch.setattr(RawFile, "read", counted)
        with open_slide(many) as slide:
            opening = sum(lengths)
            lengths.clear()
            got = slide.read_region(0, 5000, 7000, 16 * 8, 16 * 8)
        assert opening < 10_000
        tiles = 9 * 9
        assert sum(lengths) <= tiles * (768 + 8)
        want = np.tile(noise(16, 16), (12, 12, 1))[5000 % 16 :, 7000 % 16 :][:128, :128]
        np.testing.assert_array_equal(got, want)

    def test_tiles_are_kept_within_bounds(self, slide, monkeypatch):
        assert slide._cache.max_bytes == tiff.CACHE
        slide._cache.resize(10 * 64 * 64 * 3)
        for box in boxes(slide, 100, size=20):
            assert right(slide.read_region(*box), *box)
        assert 0 < slide._cache.bytes <= 10 * 64 * 64 * 3


class TestOnRequest:
    def test_icc_profile(self, tmp_path):
        profile = red_for_blue()
        path = write_tiff(tmp_path / "a.tif", [tissue(100, 100)], icc=profile)
        with open_slide(path) as slide:
            assert slide.backend == "tiff"
            assert file_descriptors(path) == 1
            with open_slide(path, backend="openslide") as other:
                assert slide.icc_profile == other.icc_profile
            assert len(slide.icc_profile) == len(profile)

    def test_pictures_equal_openslides(self, tmp_path):
        path = with_thumbnail(tmp_path / "a.svs")
        with open_slide(path) as slide, open_slide(path, backend="openslide") as other:
            images = slide.associated_images
            assert len(images) == 1
            assert "label" not in images
            with pytest.raises(KeyError):
                images["label"]
            np.testing.assert_array_equal(images["thumbnail"], other.associated_images["thumbnail"])

    def test_type(self, slide):
        assert type(slide) is TiffSlide


class TestHarmlessWarnings:
    """Some scanners write bytes too many before the end of a JPEG; OpenSlide reads them."""

    @staticmethod
    def padded(tile):
        return tile[:-2] + b"\x00\x12\x34\x56" + tile[-2:]

    def test_they_are_read_as_openslide_reads_them(self, tmp_path):
        pixels = tissue(256, 512)
        plain = write_tiff(tmp_path / "plain.tif", [pixels], compression="jpeg")
        with tifffile.TiffFile(plain) as tiff:
            page = tiff.pages[0]
            tiles = [plain.read_bytes()[at : at + n] for at, n in zip(
                page.dataoffsets, page.databytecounts, strict=True)]  # fmt: skip
            tables = page.jpegtables
        assert decodes_strictly(tiles[0], tables)
        assert not decodes_strictly(self.padded(tiles[0]), tables)
        data = plain.read_bytes()
        # The longer tile goes to the end of the file; its entry in the table follows it there.
        longer = self.padded(tiles[0])
        path = tmp_path / "padded.tif"
        path.write_bytes(data + longer)
        move_tile(path, 0, len(data), len(longer))
        with open_slide(path) as slide, open_slide(path, backend="openslide") as other:
            got = slide.read_region(0, 0, 0, 256, 512)
            assert slide.backend == "tiff"
            np.testing.assert_array_equal(got, other.read_region(0, 0, 0, 256, 512))
            np.testing.assert_array_equal(got, decoded(plain, 0))


def decodes_strictly(tile, tables):
    coding = Coding(7, (256, 256), 3, YCBCR, tables=tables or b"")
    try:
        decoder(coding)(tile)
    except TileError:
        return False
    return True


def move_tile(path, index, offset, length):
    """Let the tables of a classic TIFF say that a tile lies elsewhere."""
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        places = [
            (tags[name].valueoffset, tags[name].dtype, tags[name].count)
            for name in ("TileOffsets", "TileByteCounts")
        ]
    with path.open("r+b") as file:
        for (at, kind, _), value in zip(places, (offset, length), strict=True):
            size = {3: 2, 4: 4}[int(kind)]
            file.seek(at + index * size)
            file.write(int(value).to_bytes(size, "little"))
