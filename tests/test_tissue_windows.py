"""Variance in one pass and in two: the notebook's lists, plain loops, borders, damage, memory."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, noise
from napari_wsi_heatmap.errors import GridError, HeatmapError
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.selection import windows_wanted
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tissue import find_tissue
from napari_wsi_heatmap.tissuerules import sums, variance, variance2


def patchy(height=900, width=1300, seed=0):
    """Noise of another strength in each square of 50 px; a third of them are uniform."""
    rng = np.random.default_rng(seed)
    strength = rng.choice([0.0, 0.1, 0.3], (height // 50 + 1, width // 50 + 1, 1))
    strength = strength.repeat(50, 0).repeat(50, 1)[:height, :width]
    return np.rint(200 + strength * (noise(height, width, seed) - 127.5)).astype(np.uint8)


def one_pass(slide, grid, threshold, scanned=None):
    """(Y, X): one read and NumPy's own variance for each window, what hangs over cut off."""
    level = grid.spec.level
    height, width = slide.levels[level].shape
    pixels = slide.read_region(level, 0, 0, height, width)
    scanned = np.ones((height, width), bool) if scanned is None else scanned
    found = np.zeros(grid.shape, bool)
    for i, j in np.ndindex(grid.shape):
        y, x = grid.starts[0][i], grid.starts[1][j]
        at = np.s_[y : y + grid.spec.footprint[0], x : x + grid.spec.footprint[1]]
        values = pixels[at][scanned[at]]
        found[i, j] = values.size > 0 and values.var() > threshold
    return found


def two_pass(pixels, threshold):
    """Tiles (y, x) of the notebook's loops: squares of 256 px, tiles of 64 px, black outside."""
    height, width = pixels.shape[:2]
    whole = np.zeros((height + 256, width + 256, 3), np.uint8)
    whole[:height, :width] = pixels
    squares = [
        (y, x)
        for y in range(0, height, 256)
        for x in range(0, width, 256)
        if np.var(whole[y : y + 256, x : x + 256]) > threshold
    ]
    return [
        [y, x]
        for top, left in squares
        for y in range(top, top + 256, 64)
        for x in range(left, left + 256, 64)
        if np.var(whole[y : y + 64, x : x + 64]) > threshold
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_lists_of_the_notebook_are_reproduced(number, data_dir):
    listed = data_dir / "notebook" / "two_pass_threshold" / f"slide_{number}.csv"
    expected = np.loadtxt(listed, int, delimiter=",")[:, ::-1]
    slide = data_dir / "pydmed" / f"slide_{number}.tif"
    found = wh.tissue_windows(slide, window=64, tissue="variance2:80")
    assert found.tolist() == sorted(expected.tolist())


@pytest.mark.parametrize("threshold", [80, 150])
@pytest.mark.parametrize("shape", [(900, 1300), (512, 768), (70, 300), (40, 30)])
def test_two_passes_equal_the_plain_loops(shape, threshold, monkeypatch):
    monkeypatch.setattr(sums, "BLOCK", 512)
    monkeypatch.setattr(variance2, "ROWS_AT_ONCE", 2)
    pixels = patchy(*shape)
    found = wh.tissue_windows(ArraySlide([pixels]), 64, tissue=f"variance2:{threshold}")
    expected = sorted(two_pass(pixels, threshold))
    assert found.tolist() == expected
    assert len(expected) > 0


@pytest.mark.parametrize("edge", ["pad", "flush", "drop", "centre"])
@pytest.mark.parametrize(("window", "stride"), [(64, 64), (64, 24), (50, 70), ((33, 80), (20, 31))])
def test_one_pass_equals_the_plain_loop(edge, window, stride, monkeypatch):
    monkeypatch.setattr(sums, "BLOCK", 200)
    monkeypatch.setattr(variance, "CELLS_AT_ONCE", 500)
    slide = ArraySlide([patchy()])
    grid = lay_grid(resolve_window(slide, window, stride), slide.levels[0].shape, edge)
    found = find_tissue(slide, "variance:150", grid).windows
    expected = one_pass(slide, grid, 150)
    np.testing.assert_array_equal(found, expected)
    assert 0 < expected.sum() < expected.size


def test_windows_are_judged_at_the_level_that_is_read():
    slide = ArraySlide([patchy(), patchy(450, 650, seed=1)], mpp=0.5)
    grid = lay_grid(resolve_window(slide, 50, 30, mpp=1.25), (450, 650), "pad")
    assert (grid.spec.level, grid.spec.footprint) == (1, (62, 62))
    found = find_tissue(slide, "variance:150", grid).windows
    np.testing.assert_array_equal(found, one_pass(slide, grid, 150))
    tiles = find_tissue(slide, "variance2:150", grid)
    assert tiles.downsample == (128, 128)
    pixels = slide.read_region(1, 0, 0, 450, 650)
    assert (np.argwhere(tiles.mask) * 64).tolist() == sorted(two_pass(pixels, 150))


def test_uniform_is_no_tissue_and_a_variance_equal_to_the_threshold_is_not_above_it():
    image = np.full((64, 256, 3), 100, np.uint8)
    image[:, 64:128] = (200, 120, 180)  # no structure, but its channels differ: variance 1155
    image[:32, 128:192] = 120  # variance 100
    corners = {
        threshold: wh.tissue_windows(ArraySlide([image]), 64, tissue=f"variance:{threshold}")
        for threshold in (0, 80, 99.9, 100, 1155)
    }
    columns = {threshold: found[:, 1].tolist() for threshold, found in corners.items()}
    assert columns == {0: [64, 128], 80: [64, 128], 99.9: [64, 128], 100: [64], 1155: [64]}


def test_windows_of_many_pixels_do_not_overflow():
    image = np.zeros((2100, 2100, 3), np.uint8)
    image[:, ::2] = 255
    grid = lay_grid(resolve_window(ArraySlide([image]), 2100), (2100, 2100))
    exact = 255**2 / 4
    for threshold, expected in ((exact - 1, True), (exact + 1, False)):
        found = find_tissue(ArraySlide([image]), f"variance:{threshold}", grid)
        assert found.windows.tolist() == [[expected]]


def test_what_was_not_scanned_is_no_structure_in_one_pass_and_black_in_two():
    slide = Half([patchy(512, 512)], background=(255, 255, 255))
    grid = lay_grid(resolve_window(slide, 64), (512, 512))
    scanned = np.zeros((512, 512), bool)
    scanned[:, :200] = True
    found = find_tissue(slide, "variance:150", grid).windows
    np.testing.assert_array_equal(found, one_pass(slide, grid, 150, scanned))
    pixels = slide.read_region(0, 0, 0, 512, 512)
    tiles = wh.tissue_windows(slide, 64, tissue="variance2:150")
    assert tiles.tolist() == sorted(two_pass(pixels * scanned[..., None], 150))


class Half(ArraySlide.__mro__[1]):
    """A slide of which only the columns up to 200 were scanned."""

    backend = "half"

    def __init__(self, arrays, **options):
        self._slide = ArraySlide(arrays, **options)
        for name in ("path", "name", "levels", "mpp", "bounds", "background", "properties"):
            setattr(self, name, getattr(self._slide, name))

    def _read(self, level, y, x, height, width):
        rgb, _ = self._slide._read(level, y, x, height, width)
        scanned = np.zeros((height, width), bool)
        scanned[:, : max(0, 200 - x)] = True
        rgb[~scanned] = self.background
        return rgb, scanned

    @property
    def fingerprint(self):
        return self._slide.fingerprint

    def close(self):
        self._slide.close()


@pytest.mark.parametrize("rule", ["variance:80", "variance2:80"])
def test_damage_counts_as_tissue_and_is_narrow(rule):
    whole = ArraySlide([np.full((1024, 1024, 3), 230, np.uint8)])
    damaged = FaultySlide(whole, bad=[(500, 700)])
    assert wh.tissue_windows(whole, 64, tissue=rule).shape == (0, 2)
    found = wh.tissue_windows(damaged, 64, tissue=rule).tolist()
    assert [448, 640] in found
    assert len(found) <= 9


@pytest.mark.parametrize("rule", ["variance:80", "variance2:80"])
def test_each_pixel_is_read_once_in_large_blocks_and_only_where_windows_matter(rule):
    reads = np.zeros((400, 500), int)
    sizes = []

    def read(level, y, x, height, width):
        sizes.append(height * width)
        reads[y // 16 : -(-(y + height) // 16), x // 16 : -(-(x + width) // 16)] += 1
        return np.full((height, width, 3), 240, np.uint8)

    slide = ArraySlide.from_callable(read, [(6400, 8000)])
    wh.tissue_windows(slide, 64, 32, tissue=rule)
    assert reads.max() == reads.min() == 1
    assert max(sizes) <= 2048**2
    assert len(sizes) <= 16
    sizes.clear()
    wh.tissue_windows(slide, 64, 32, tissue=rule, roi=(2200, 2200, 2400, 2400))
    assert len(sizes) == 1


def test_bands_of_windows_share_no_more_than_their_overlap(monkeypatch):
    monkeypatch.setattr(variance, "CELLS_AT_ONCE", 4 * 40 * 10)
    read = []
    slide = FaultySlide(ArraySlide([patchy(1000, 1280)]))
    inner = slide._read
    slide._read = lambda *box: (read.append(box[3] * box[4]), inner(*box))[1]
    wh.tissue_windows(slide, 64, 32, tissue="variance:80")
    assert sum(read) <= 1000 * 1280 + 4 * 32 * 1280


def test_a_run_leaves_out_what_a_list_leaves_out(tmp_path):
    slide = ArraySlide([patchy()], name="patchy")
    settings = {"window": 64, "stride": 40, "tissue": "variance:150"}
    run = wh.compute_heatmap(
        slide, lambda batch: batch.mean((1, 2, 3)), batch_size=8, progress=False,
        out=tmp_path / "a.zarr", **settings,
    )  # fmt: skip
    listed = wh.tissue_windows(slide, **settings)
    done = (run.state & 15) == 1
    assert run.positions[done].tolist() == listed.tolist()
    assert 0 < done.sum() < done.size
    assert run.run["tissue"] == {"rule": "variance", "threshold": 150}
    assert run.run["settings"]["tissue"] == "variance:150"


def test_nothing_left_is_an_empty_list_but_no_run():
    slide = ArraySlide([np.full((300, 300, 3), 240, np.uint8)])
    assert wh.tissue_windows(slide, 64, tissue="variance").tolist() == []
    with pytest.raises(GridError, match="no window is left"):
        wh.compute_heatmap(slide, lambda batch: batch.mean((1, 2, 3)), window=64, tissue="variance")


def test_a_file_is_opened_and_closed_and_a_slide_stays_open(data_dir):
    path = data_dir / "pydmed" / "slide_3.tif"
    with wh.open_slide(path) as slide:
        by_slide = wh.tissue_windows(slide, 64, tissue="variance")
        assert slide.read_region(0, 0, 0, 1, 1).shape == (1, 1, 3)
    assert by_slide.tolist() == wh.tissue_windows(path, 64, tissue="variance").tolist()


def test_one_pass_needs_to_know_the_windows():
    slide = ArraySlide([patchy(100, 100)])
    with pytest.raises(GridError, match="looks at windows"):
        find_tissue(slide, "variance")
    assert find_tissue(slide, "variance2").mask.shape == (4, 4)


def test_wanted_windows_get_the_same_answer_as_all():
    slide = ArraySlide([patchy()])
    grid = lay_grid(resolve_window(slide, 64, 40), slide.levels[0].shape)
    wanted = windows_wanted(slide, grid, (100, 500, 400, 900))
    for rule in ("variance:150", "variance2:150"):
        all_of_them = wh.tissue_windows(slide, 64, 40, tissue=rule).tolist()
        some = wh.tissue_windows(slide, 64, 40, tissue=rule, roi=(100, 500, 400, 900)).tolist()
        inside = {tuple(p) for p in grid.positions(np.flatnonzero(wanted)).astype(int).tolist()}
        assert some == [p for p in all_of_them if tuple(p) in inside]
        assert some


@pytest.mark.parametrize("rule", ["variance", "variance2"])
def test_looking_for_tissue_can_be_cancelled(rule):
    control, reads = wh.RunControl(), []

    def read(level, y, x, height, width):
        reads.append((y, x))
        if len(reads) == 70:  # well after the 64 samples of the fingerprint
            control.cancel()
        return np.full((height, width, 3), 240, np.uint8)

    slide = ArraySlide.from_callable(read, [(60_000, 60_000)])
    assert slide.fingerprint
    with pytest.raises(HeatmapError, match="cancelled while tissue was looked for"):
        wh.run(slide, lambda batch: batch.mean((1, 2, 3)), window=64, tissue=rule, control=control)
    assert len(reads) == 70
