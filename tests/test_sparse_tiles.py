"""Very many tiles that lie sparsely on a slide are one picture of a cell a tile, each in place."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.coords import list_windows
from napari_wsi_heatmap.embedding.cells import cells_of
from napari_wsi_heatmap.grid import resolve_window
from napari_wsi_heatmap.listmap import ListHeatmap, frame_of_list, rasterise
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE


def blank(height, width):
    def read(level, y, x, h, w):
        return np.full((h, w, 3), 255, np.uint8)

    return ArraySlide.from_callable(read, [(height, width)], mpp=0.25)


def spec_of(slide):
    return resolve_window(slide, 64)


def in_a_loop(frame, coords, values):
    """Sums and counts, one window after the other."""
    total, count = np.zeros(frame.shape), np.zeros(frame.shape[1:])
    first = np.asarray(frame.offset) - 31.5
    for place, value in zip(coords, values, strict=True):
        row, col = np.rint((place - first) / frame.scale).astype(int)
        total[:, row, col] += value
        count[row, col] += 1
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)


def test_each_cell_is_the_mean_of_its_windows():
    rng = np.random.default_rng(0)
    coords = 64 * rng.integers(0, (60, 90), (3000, 2)) + (5, 11)
    values = rng.normal(size=(3000, 3)).astype(np.float32)
    values[7, 1], values[8, 2] = np.nan, np.inf
    frame = frame_of_list(list_windows(spec_of(blank(4000, 6000)), coords), 3)
    assert frame.on_lattice
    found = rasterise(frame, coords, values)
    np.testing.assert_array_equal(found, in_a_loop(frame, coords, values))
    assert np.isnan(found[0]).any()
    assert np.isinf(found[2]).any()


@pytest.fixture(scope="module")
def tiles(data_dir):
    """(408915, 2) of the notebooks, (y, x); and the slide's size."""
    held = np.load(data_dir / "notebook" / "tiles_xy.npz")
    width, height = held["slide_wh"].tolist()
    return held["xy"][:, ::-1], blank(height, width)


def test_the_tiles_of_the_notebook(tiles, tmp_path):
    coords, slide = tiles
    wh.predict_windows(slide, lambda x: x.mean((1, 2, 3)), [(0, 0)], out=tmp_path / "a.zarr")
    record = wh.open_heatmap(tmp_path / "a.zarr").run
    values = np.arange(len(coords), dtype=np.float32)[:, None]
    state = np.full(len(coords), DONE, np.uint8)
    heatmap = ListHeatmap(list_windows(spec_of(slide), coords), values, state, record)
    picture = heatmap.values[0]
    assert picture.shape == (81344 // 64 + 1, (125824 - 1792) // 64 + 1)
    rows, cols = ((coords - coords.min(0)) // 64).T
    np.testing.assert_array_equal(picture[rows, cols], values[:, 0])
    assert np.isfinite(picture).sum() == len(coords) == 408_915
    # A click anywhere on a tile finds it, and none where there is none.
    cells = cells_of(heatmap)
    for tile in (0, 200_000, 408_914):
        y, x = coords[tile]
        assert cells.window_at(y + 3, x + 60) == tile
    row, col = np.argwhere(np.isnan(picture))[0]
    assert cells.window_at(*(coords.min(0) + 64 * np.array([row, col]) + 32)) is None
    assert len(heatmap.to_dataframe()) == 408_915


def test_a_saved_list_has_the_rights_of_any_new_folder(tmp_path):
    out = tmp_path / "a.zarr"
    wh.predict_windows(blank(100, 100), lambda x: x.mean((1, 2, 3)), [(0, 0)], window=64, out=out)
    (tmp_path / "other").mkdir()
    assert out.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "other"]
