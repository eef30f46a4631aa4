"""The two-pass search as tasks finds the lists that it finds at once, whoever works on it."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import FaultySlide, noise
from napari_wsi_heatmap.errors import HeatmapError, SlideChangedError, SlideOpenError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.tissuerules import futures
from napari_wsi_heatmap.tissuerules.futures import search, tile_table, tiles_as_completed


def patchy(height=900, width=1300, seed=0):
    """Noise of another strength in each square of 50 px; a third of them are uniform."""
    rng = np.random.default_rng(seed)
    strength = rng.choice([0.0, 0.1, 0.3], (height // 50 + 1, width // 50 + 1, 1))
    strength = strength.repeat(50, 0).repeat(50, 1)[:height, :width]
    return np.rint(200 + strength * (noise(height, width, seed) - 127.5)).astype(np.uint8)


@pytest.fixture
def small_tasks(monkeypatch):
    monkeypatch.setattr(futures, "ROWS", 1)
    monkeypatch.setattr(futures, "COLUMNS", 2)


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory):
    """A tiled file that other processes can open."""
    import tifffile

    path = tmp_path_factory.mktemp("slides") / "patchy.tif"
    tifffile.imwrite(path, patchy(), tile=(256, 256), photometric="rgb", compression="deflate")
    return path


def corners(table):
    return table[["y", "x"]].to_numpy().tolist()


@pytest.mark.parametrize("number", range(4))
def test_the_lists_of_the_notebook_are_reproduced(number, data_dir):
    listed = data_dir / "notebook" / "two_pass_threshold" / f"slide_{number}.csv"
    expected = np.loadtxt(listed, int, delimiter=",")[:, ::-1]
    found = tile_table(data_dir / "pydmed" / f"slide_{number}.tif", 80)
    assert corners(found) == sorted(expected.tolist())


@pytest.mark.parametrize("threshold", [80, 150])
@pytest.mark.parametrize("shape", [(900, 1300), (512, 768), (70, 300), (40, 30)])
def test_tasks_find_what_a_search_at_once_finds(shape, threshold, small_tasks):
    slide = ArraySlide([patchy(*shape)])
    expected = wh.tissue_windows(slide, 64, tissue=f"variance2:{threshold}").tolist()
    table = tile_table(slide, threshold)
    assert corners(table) == expected
    assert len(expected) > 0
    for row in table.iloc[::7].itertuples():
        tile = np.zeros((64, 64, 3), np.uint8)
        part = patchy(*shape)[row.y : row.y + 64, row.x : row.x + 64]
        tile[: len(part), : part.shape[1]] = part
        whole = part.shape[:2] == (64, 64)
        assert row.variance == pytest.approx(tile.var()) or not whole


def test_a_coarser_level(small_tasks):
    slide = ArraySlide([patchy(), patchy(450, 650, seed=1)], mpp=0.5)
    expected = wh.tissue_windows(slide, 64, level=1, tissue="variance2:150").tolist()
    assert corners(tile_table(slide, 150, level=1)) == expected
    assert expected
    with pytest.raises(SlideOpenError, match="levels 0 to 1"):
        tile_table(slide, level=2)


def test_results_come_as_they_are_done(small_tasks):
    """The first task waits until another one has been heard of."""
    heard, image = threading.Event(), patchy()

    def read(level, y, x, height, width):
        if (y, x) == (0, 0) and height > 64:
            assert heard.wait(20)
        return image[y : y + height, x : x + width]

    slide = ArraySlide.from_callable(read, [image.shape[:2]])
    with ThreadPoolExecutor(2) as executor:
        came = []
        for found in tiles_as_completed(slide, client=executor):
            came.append(found)
            heard.set()
    assert [(found.done, found.of) for found in came] == [(i + 1, 12) for i in range(12)]
    together = sorted(np.concatenate([found.coords for found in came]).tolist())
    assert together == wh.tissue_windows(ArraySlide([image]), 64, tissue="variance2").tolist()
    assert came[0].coords.tolist() != together[: len(came[0].coords)]


def test_who_stops_listening_stops_the_rest(small_tasks, monkeypatch):
    begun = []
    monkeypatch.setattr(futures, "search", lambda *task: (begun.append(task[2]), search(*task))[1])
    go_on, image = threading.Event(), patchy(256, 256)

    def read(level, y, x, height, width):
        if y >= 256:
            assert go_on.wait(20)
        return np.full((height, width, 3), 200, np.uint8) + image[:height, :width] % 50

    slide = ArraySlide.from_callable(read, [(256 * 40, 256)])
    with ThreadPoolExecutor(1) as executor:
        searching = tiles_as_completed(slide, client=executor)
        assert next(searching).done == 1
        closing = threading.Thread(target=searching.close)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()
        go_on.set()
    assert len(begun) < 5


def test_processes_open_the_slide_themselves(slide_file, small_tasks):
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned) as executor:
        found = tile_table(slide_file, client=executor)
        assert corners(found) == wh.tissue_windows(slide_file, 64, tissue="variance2").tolist()
        with pytest.raises(SlideOpenError, match="in no file"):
            tile_table(ArraySlide([patchy()]), client=executor)


def test_a_dask_client(slide_file, small_tasks):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with (
        distributed.LocalCluster(processes=False, protocol="inproc://", **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        found = tile_table(slide_file, client=client)
        assert corners(found) == wh.tissue_windows(slide_file, 64, tissue="variance2").tolist()
        assert client.submit(sum, [1, 2]).result() == 3  # it is the caller's, and goes on


def test_another_slide_at_that_place_is_refused(slide_file):
    with wh.open_slide(slide_file) as slide:
        there = futures._Source(slide.path, slide.backend, False, "other")
    with pytest.raises(SlideChangedError, match="another slide"):
        search(there, 0, (0, 1, 0, 1), 80)


def test_damage_counts_as_tissue_as_it_does_at_once():
    whole = ArraySlide([np.full((1024, 1024, 3), 230, np.uint8)])
    damaged = FaultySlide(whole, bad=[(500, 700)])
    table = tile_table(damaged)
    assert corners(table) == wh.tissue_windows(damaged, 64, tissue="variance2").tolist()
    assert np.isinf(table.variance).all()
    assert len(table) > 0


def test_a_lost_task_is_one_line(slide_file, monkeypatch):
    def broken(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(futures, "search", broken)
    with pytest.raises(HeatmapError, match=r"a task was lost: MemoryError: no room"):
        tile_table(slide_file)


def test_no_tissue_is_an_empty_table():
    table = tile_table(ArraySlide([np.full((512, 256, 3), 240, np.uint8)]))
    assert list(table.columns) == ["x", "y", "variance"]
    assert len(table) == 0
