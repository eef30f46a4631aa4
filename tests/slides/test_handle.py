"""One handle for many threads: errors of one are not errors of others, closing aborts nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest

from made_slides import decoded, noise, smash_tile, strided, tissue, write_aperio, write_tiff
from napari_wsi_heatmap.errors import SlideChangedError, SlideReadError
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.handle import Handle

TILE = 128
ROWS, COLUMNS = 6, 7
BROKEN = (3, 4)
"""(row, column) of the smashed tile."""


@pytest.fixture
def healthy(tmp_path):
    level0 = tissue(ROWS * TILE, COLUMNS * TILE)
    return write_aperio(tmp_path / "healthy.svs", strided(level0, 4), tile=TILE)


@pytest.fixture
def smashed(healthy, tmp_path):
    path = tmp_path / "smashed.svs"
    path.write_bytes(healthy.read_bytes())
    smash_tile(path, BROKEN[0] * COLUMNS + BROKEN[1])
    return path


def touches_damage(y, x, height, width):
    top, left = BROKEN[0] * TILE, BROKEN[1] * TILE
    return top - height < y < top + TILE and left - width < x < left + TILE


def boxes(n, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        height, width = int(rng.integers(1, 200)), int(rng.integers(1, 200))
        y = int(rng.integers(0, ROWS * TILE - height))
        x = int(rng.integers(0, COLUMNS * TILE - width))
        yield y, x, height, width


def test_one_bad_tile_spoils_only_what_touches_it(healthy, smashed):
    """Eight threads, one handle; OpenSlide itself would answer all of them with the error."""
    truth = decoded(healthy, 0)
    failed = []

    def read(box):
        y, x, height, width = box
        try:
            rgb = slide.read_region(0, *box)
        except SlideReadError as error:
            failed.append(str(error))
            assert touches_damage(*box)
        else:
            assert not touches_damage(*box)
            np.testing.assert_array_equal(rgb, truth[y : y + height, x : x + width])

    with open_slide(smashed, backend="openslide") as slide, ThreadPoolExecutor(8) as pool:
        asked = list(boxes(400))
        list(pool.map(read, asked))
    assert len(failed) == sum(touches_damage(*box) for box in asked) > 20


def test_the_message_names_slide_level_region_and_cause(smashed):
    with open_slide(smashed, backend="openslide") as slide, pytest.raises(SlideReadError) as caught:
        slide.read_region(0, BROKEN[0] * TILE, BROKEN[1] * TILE, 50, 60)
    message = str(caught.value)
    assert "Not a JPEG file: starts with 0x00 0x00" in message
    assert f"{smashed}, level 0, 50 x 60 px at level-0 y 384, x 512" in message
    assert "\n" not in message
    assert isinstance(caught.value.__cause__, openslide.OpenSlideError)


def test_other_levels_of_a_smashed_slide_read(healthy, smashed):
    with open_slide(smashed, backend="openslide") as slide:
        got = slide.read_region(1, 0, 0, *slide.levels[1].shape)
    np.testing.assert_array_equal(got, decoded(healthy, 1))


def test_damage_at_an_odd_downsample_spoils_no_more_than_its_neighbourhood(tmp_path):
    path = write_aperio(tmp_path / "a.svs", [tissue(1500, 1200), tissue(94, 75)], tile=32)
    truth = decoded(path, 1)
    smash_tile(path, 1, page=1)  # rows 0 to 31, columns 32 to 63
    with open_slide(path, backend="openslide") as slide:
        assert slide._averages[1] % 1
        for box in ((0, 0, 94, 32), (50, 0, 44, 75), (0, 64, 30, 11)):
            y, x, height, width = box
            got = slide.read_region(1, *box)
            difference = np.abs(got.astype(int) - truth[y : y + height, x : x + width])
            assert difference.max() <= 4  # exact or, next to the damage, interpolated
        for _ in range(2):
            with pytest.raises(SlideReadError, match="level 1"):
                slide.read_region(1, 10, 20, 50, 50)


def test_closing_while_others_read_aborts_nothing(healthy):
    slide = open_slide(healthy, backend="openslide")
    started = threading.Barrier(7)
    outcomes = []

    def read():
        started.wait()
        try:
            while True:
                slide.read_region(0, 0, 0, ROWS * TILE, COLUMNS * TILE)
        except SlideReadError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=read, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    started.wait()
    slide.read_region(0, 0, 0, 50, 50)
    slide.close()
    slide.close()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 6
    assert all("the slide is closed" in text for text in outcomes)


def test_use_after_close(healthy):
    slide = open_slide(healthy, backend="openslide")
    slide.close()
    for use in (
        lambda: slide.read_region(0, 0, 0, 5, 5),
        lambda: slide.read_scanned(0, 0, 0, 5, 5),
    ):
        with pytest.raises(SlideReadError, match=r"the slide is closed - .*healthy.svs - open it"):
            use()
    assert slide.levels[0].shape == (ROWS * TILE, COLUMNS * TILE)


class Openings:
    """Opens a file for real and remembers what became of it."""

    def __init__(self, path):
        self.path, self.opened, self.closed = path, [], []

    def __call__(self):
        osr = openslide.OpenSlide(self.path)
        close = osr.close
        osr.close = lambda: (self.closed.append(osr), close())
        self.opened.append(osr)
        return osr


class TestHandle:
    @pytest.fixture
    def files(self, healthy):
        return Openings(healthy)

    @pytest.fixture
    def handle(self, files):
        handle = Handle(files, str(files.path))
        yield handle
        handle.close()

    def fail(self, handle, **how):
        with pytest.raises(openslide.OpenSlideError), handle.borrow(**how):
            raise openslide.OpenSlideError("a tile is bad")

    def test_opens_once_and_when_needed(self, handle, files):
        assert not files.opened
        for _ in range(3):
            with handle.borrow() as osr:
                assert osr is files.opened[0]
        assert handle.openings == len(files.opened) == 1
        assert not files.closed

    def test_threads_that_come_together_open_once(self, handle, files):
        with ThreadPoolExecutor(8) as pool:
            barrier = threading.Barrier(8)

            def use(_):
                barrier.wait()
                with handle.borrow() as osr:
                    return osr

            assert len(set(pool.map(use, range(8)))) == 1
        assert handle.openings == 1

    def test_an_error_retires_it(self, handle, files):
        self.fail(handle)
        assert files.closed == files.opened
        with handle.borrow() as osr:
            assert osr is files.opened[1]

    def test_two_that_fail_together_open_once(self, handle, files):
        first, second = handle.borrow(), handle.borrow()
        first.__enter__()
        second.__enter__()
        error = openslide.OpenSlideError("a tile is bad")
        first.__exit__(type(error), error, None)
        assert not files.closed  # the second still reads
        with handle.borrow() as osr:
            assert osr is files.opened[1]
        second.__exit__(type(error), error, None)
        assert files.closed == files.opened[:1]
        with handle.borrow() as osr:
            assert osr is files.opened[1]
        assert handle.openings == 2

    def test_any_other_exception_leaves_it(self, handle, files):
        with pytest.raises(KeyError), handle.borrow():
            raise KeyError("name")
        with handle.borrow() as osr:
            assert osr is files.opened[0]

    def test_alone_becomes_the_common_one_where_that_is_missing(self, handle, files):
        with handle.borrow(alone=True) as own:
            pass
        with handle.borrow() as osr:
            assert osr is own
        with handle.borrow(alone=True) as another:
            assert another is not own
        assert files.closed == [another]

    def test_alone_that_fails_or_breaks_off_is_closed(self, handle, files):
        self.fail(handle, alone=True)
        with pytest.raises(KeyError), handle.borrow(alone=True):
            raise KeyError("name")
        assert files.closed == files.opened

    def test_close_waits_for_the_last_reader_without_blocking(self, handle, files):
        with handle.borrow() as osr, handle.borrow():
            handle.close()
            assert handle.closed
            assert not files.closed
            assert osr.dimensions == (COLUMNS * TILE, ROWS * TILE)
            with pytest.raises(SlideReadError, match="closed"), handle.borrow():
                pass
        assert files.closed == files.opened
        handle.close()
        assert len(files.closed) == 1

    def test_close_during_an_opening(self, files):
        opening, go_on = threading.Event(), threading.Event()

        def slow():
            opening.set()
            assert go_on.wait(30)
            return files()

        handle = Handle(slow, "slow")
        with ThreadPoolExecutor(1) as pool:

            def use():
                with handle.borrow() as osr:
                    return osr.dimensions

            reading = pool.submit(use)
            assert opening.wait(30)
            handle.close()  # at once, though the opening is stalled
            go_on.set()
            assert reading.result(30) == (COLUMNS * TILE, ROWS * TILE)
        assert files.closed == files.opened

    def test_what_cannot_be_opened_raises_at_its_reader(self, tmp_path):
        handle = Handle(lambda: openslide.OpenSlide(tmp_path / "gone.svs"), "gone.svs")
        for _ in range(2):
            with pytest.raises(openslide.OpenSlideError), handle.borrow():
                pass


class TestFileChanges:
    def test_gone_and_back(self, healthy):
        with open_slide(healthy, backend="openslide") as slide:
            away = healthy.rename(healthy.with_name("away.svs"))
            with pytest.raises(SlideChangedError, match=r"healthy.svs is gone - .* - put it back"):
                slide.read_region(0, 0, 0, ROWS * TILE, COLUMNS * TILE)
            away.rename(healthy)
            got = slide.read_region(0, 0, 0, ROWS * TILE, COLUMNS * TILE)
            np.testing.assert_array_equal(got, decoded(healthy, 0))

    def test_another_slide_in_its_place_is_not_opened_again(self, healthy, tmp_path):
        other = write_aperio(tmp_path / "other.svs", [tissue(ROWS * TILE, COLUMNS * TILE, 9)])
        with open_slide(healthy, backend="openslide") as slide:
            os.replace(other, healthy)
            with (
                pytest.raises(openslide.OpenSlideError),
                slide._handle.borrow(),
            ):
                raise openslide.OpenSlideError("as a read of the lost file would")
            assert slide.changed() == "healthy.svs was changed or replaced"

    def test_overwritten_by_garbage(self, healthy):
        with open_slide(healthy, backend="openslide") as slide:
            healthy.write_bytes(b"x" * healthy.stat().st_size)
            with pytest.raises(SlideChangedError, match="was changed or replaced"):
                slide.read_region(0, 0, 0, 100, 100)


FORKED = """
import os, sys, threading
from napari_wsi_heatmap.slides import open_slide
slide = open_slide(sys.argv[1], backend="openslide")
level = len(slide.levels) - 1
stop = threading.Event()
def pixels():
    whole, odd = slide.read_region(0, 0, 0, 300, 300), slide.read_region(level, 5, 5, 40, 40)
    return whole.tobytes() + odd.tobytes()
def read():
    while not stop.is_set():
        pixels()
want = pixels()
threads = [threading.Thread(target=read, daemon=True) for _ in range(3)]
[thread.start() for thread in threads]
codes = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        before = slide._handle.openings
        same = pixels() == want
        os._exit(0 if same and slide._handle.openings == before + 1 else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
[thread.join() for thread in threads]
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_opens_the_file_anew(tmp_path, verdicts_file):
    path = write_tiff(tmp_path / "a.tif", strided(noise(600, 703), 4))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    env["XDG_CACHE_HOME"] = str(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.stdout.strip() == str([0] * 8), done.stderr
