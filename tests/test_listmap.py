"""Windows at given positions: saved, opened and shown where they lie."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import zarr

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_grey, mean_rgb, noise_slide, pyramid_slide, quarter_means
from napari_wsi_heatmap.errors import ModelOutputError, StoreError, StoreExistsError
from napari_wsi_heatmap.states import DONE, FAILED, NOT_FINITE


def saved(tmp_path, coords, function=mean_rgb, slide=None, **settings):
    out = tmp_path / "list.zarr"
    slide = slide or noise_slide(1000, 1000)
    values = wh.predict_windows(slide, function, coords, out=out, window=64, **settings)
    return values, wh.open_heatmap(out)


def test_opened_as_it_was_computed(tmp_path):
    coords = np.random.default_rng(0).integers(0, 900, (50, 2))
    values, heatmap = saved(tmp_path, coords)
    assert np.array_equal(heatmap.positions, coords)
    assert np.array_equal(heatmap.window_values()[1], values)
    table = heatmap.to_dataframe()
    assert np.array_equal(table[["y", "x"]], coords)
    assert np.array_equal(table[["0", "1", "2"]].to_numpy(np.float32), values)
    assert heatmap.run["status"] == "done"


def test_a_lattice_with_holes_gives_one_cell_a_window(tmp_path):
    lattice = np.stack(np.mgrid[100:800:48, 60:900:80], -1).reshape(-1, 2)
    kept = np.random.default_rng(0).permutation(len(lattice))[:90]
    coords = lattice[np.sort(kept)]
    values, heatmap = saved(tmp_path, coords)
    origin = coords.min(0)
    cells = (coords - origin) // (48, 80)
    assert heatmap.frame.scale == (48, 80)
    assert heatmap.frame.offset == tuple(origin + 31.5)
    assert pytest.approx(values) == heatmap.values[:, cells[:, 0], cells[:, 1]].T
    assert np.isnan(heatmap.values[0]).sum() == heatmap.values[0].size - 90


def test_windows_anywhere_are_painted_where_they_lie(tmp_path):
    coords = np.array([[100, 100], [107, 533], [611, 290]])
    values, heatmap = saved(tmp_path, coords)
    for (y, x), value in zip(coords + 32, values, strict=True):
        cell = (np.array([y, x]) - heatmap.frame.offset) / heatmap.frame.scale
        row, col = np.rint(cell).astype(int)
        assert heatmap.values[:, row, col] == pytest.approx(value)
    painted = np.isfinite(heatmap.values[0]).sum()
    assert painted == 3 * 16


def test_is_placed_in_micrometres(tmp_path):
    coords = np.stack(np.mgrid[0:400:80, 0:400:80], -1).reshape(-1, 2)
    _, heatmap = saved(tmp_path, coords, slide=pyramid_slide(), level=1)
    placing = zarr.open_group(str(heatmap.path), mode="r").attrs["ome"]["multiscales"][0]
    scale, translation = placing["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1, 20, 20]  # 80 px · 0.25 µm
    assert translation["translation"][1] == pytest.approx((64 * 4 - 1) / 2 * 0.25)


def test_unreadable_windows_are_failed_not_missing(tmp_path):
    slide = FaultySlide(noise_slide(1000, 1000), bad=[(120, 120)])
    _, heatmap = saved(tmp_path, [[0, 0], [100, 100], [300, 300]], slide=slide)
    assert heatmap.state.tolist() == [1, FAILED, 1]
    assert heatmap.run["status"] == "done-with-failures"
    assert len(heatmap.to_dataframe()) == 2


def test_no_windows_at_all(tmp_path):
    values, heatmap = saved(tmp_path, np.zeros((0, 2)))
    assert values.shape == (0, 3)
    assert np.isnan(heatmap.values).all()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "list.zarr").mkdir()
    with pytest.raises(StoreExistsError, match="choose another output"):
        saved(tmp_path, [[0, 0]])


def test_dense_outputs_are_returned_but_not_saved(tmp_path):
    with pytest.raises(ModelOutputError, match="cannot be saved"):
        saved(tmp_path, [[0, 0]], quarter_means)
    values = wh.predict_windows(noise_slide(), quarter_means, [[0, 0]], window=64)
    assert values.shape == (1, 3, 4, 4)
    assert not list(tmp_path.glob("*"))


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_is_a_valid_ome_zarr(tmp_path):
    models = pytest.importorskip("ome_zarr_models.v05.image")
    _, heatmap = saved(tmp_path, [[0, 0], [64, 64]], mean_grey)
    models.Image.from_zarr(zarr.open_group(str(heatmap.path), mode="r"))


def test_windows_that_overlap_and_are_not_finite(tmp_path):
    infinite = itertools.cycle([1, -1])

    def model(batch):
        return batch.mean((1, 2, 3)) / 0 * torch.tensor([next(infinite) for _ in batch])

    _, heatmap = saved(tmp_path, [[0, 0], [7, 0], [3, 5]], model)
    assert np.isnan(heatmap.values[0]).any()
    assert (heatmap.state == DONE | NOT_FINITE).all()


def test_a_list_is_never_continued(tmp_path):
    _, heatmap = saved(tmp_path, [[0, 0]])
    with pytest.raises(StoreError, match="never continued"):
        wh.resume(heatmap.path)


def test_small_windows_anywhere_are_no_lattice_of_single_pixels(tmp_path):
    coords = np.random.default_rng(0).integers(0, 900, (60, 2))
    _, heatmap = saved(tmp_path, coords)
    assert heatmap.frame.scale == (16, 16)
    assert not heatmap.frame.on_lattice
