"""The table in WSInfer's columns."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, mean_rgb, noise, noise_slide, quarter_means
from napari_wsi_heatmap.exports import csv as csv_export
from napari_wsi_heatmap.exports.csv import harmless
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, FAILED, state_of

QUIET = {"tissue": "none", "progress": False}


class TestCsvExport(ExportContract):
    name = "csv"

    def check(self, path, heatmap, slide):
        table = pd.read_csv(path)
        assert list(table) == ["minx", "miny", "width", "height", *heatmap.names]
        rows, cols = np.nonzero(state_of(heatmap.state) == DONE)
        np.testing.assert_array_equal(table["miny"], heatmap.positions[rows, cols, 0])
        np.testing.assert_array_equal(table["minx"], heatmap.positions[rows, cols, 1])
        assert (table[["height", "width"]].to_numpy() == heatmap.window_size).all()
        for name, values in zip(heatmap.names, heatmap.values, strict=True):
            read = table[name].to_numpy(np.float32)
            np.testing.assert_array_equal(read.view(np.uint32), values[rows, cols].view(np.uint32))


def table_of(heatmap, path):
    return pd.read_csv(heatmap.export(path))


def test_whole_pixels_are_written_without_a_point(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=64, **QUIET)
    lines = heatmap.export(tmp_path / "a.csv").read_text().splitlines()
    assert lines[1].startswith("0,0,64,64,0.")
    assert lines[2].startswith("64,0,64,64,0.")
    assert len(lines) == 1 + heatmap.grid.size


def test_positions_between_pixels_keep_their_digits(tmp_path):
    slide = ArraySlide([noise(900, 1000), noise(97, 105)])
    heatmap = wh.compute_heatmap(slide, mean_grey, window=20, level=1, **QUIET)
    table = table_of(heatmap, tmp_path / "a.csv")
    positions = heatmap.positions.reshape(-1, 2)
    np.testing.assert_array_equal(table[["miny", "minx"]].to_numpy(), positions)
    assert (table[["height", "width"]].to_numpy() == heatmap.window_size).all()
    assert not (positions == np.rint(positions)).all()


def test_probabilities_are_named_as_wsinfer_names_them(tmp_path, data_dir):
    model = wh.load_model(mean_rgb, activation="softmax", names=["a", "b", "c"], window=64)
    heatmap = wh.compute_heatmap(noise_slide(200, 200), model, **QUIET)
    columns = list(table_of(heatmap, tmp_path / "a.csv"))
    assert columns == ["minx", "miny", "width", "height", "prob_a", "prob_b", "prob_c"]
    golden = next((data_dir / "golden").glob("wsinfer*/model-outputs-csv/*.csv"))
    assert list(pd.read_csv(golden))[:4] == columns[:4]


def test_how_sure_a_model_is_is_no_probability(tmp_path):
    slide, settings = noise_slide(200, 200), {"activation": "softmax", "window": 64}
    model = wh.load_model(mean_rgb, names=["a", "b", "c"], tta="flips", **settings)
    heatmap = wh.compute_heatmap(slide, model, **QUIET)
    path = heatmap.export(tmp_path / "a.csv")
    columns = ["prob_a", "prob_b", "prob_c", "tta_std", "tta_entropy"]
    assert list(pd.read_csv(path))[4:] == columns
    read = wh.open_heatmap(path, slide=slide)
    assert (read.names, read.uncertainty) == (heatmap.names, heatmap.uncertainty)
    assert read.run["model"]["activation"] == "softmax"


def test_a_window_of_a_dense_map_is_the_mean_of_its_cells(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(256, 256), quarter_means, window=64, **QUIET)
    table = table_of(heatmap, tmp_path / "a.csv")
    assert len(table) == 16
    first = heatmap.values[:, :4, :4].mean((1, 2))
    np.testing.assert_allclose(table.iloc[0, 4:].to_numpy(float), first, rtol=1e-6)


def test_only_windows_that_are_done(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=64, **QUIET)
    heatmap.state[1, 2], heatmap.state[0, 0] = FAILED, 0
    table = table_of(heatmap, tmp_path / "a.csv")
    places = set(zip(table["miny"], table["minx"], strict=True))
    assert len(places) == heatmap.grid.size - 2
    assert places.isdisjoint({(64, 128), (0, 0)})


def test_values_that_are_no_numbers_are_read_as_such(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=64, **QUIET)
    heatmap.values[0, 0, :3] = np.nan, np.inf, -np.inf
    read = table_of(heatmap, tmp_path / "a.csv").iloc[:3, 4].to_numpy()
    np.testing.assert_array_equal(read, [np.nan, np.inf, -np.inf])


def test_a_table_longer_than_one_part(tmp_path, monkeypatch):
    heatmap = wh.compute_heatmap(noise_slide(200, 300), mean_grey, window=16, **QUIET)
    whole = heatmap.export(tmp_path / "whole.csv").read_bytes()
    monkeypatch.setattr(csv_export, "ROWS", 7)
    assert heatmap.export(tmp_path / "parts.csv").read_bytes() == whole


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@SUM(A1)", "\tx", "\rx"])
def test_names_that_a_spreadsheet_would_run(tmp_path, name):
    assert harmless(name) == f"'{name}"
    model = wh.load_model(mean_grey, names=[name], window=64)
    heatmap = wh.compute_heatmap(noise_slide(100, 100), model, **QUIET)
    with heatmap.export(tmp_path / "a.csv").open(newline="") as file:
        assert next(csv.reader(file))[4].startswith("'")


def test_windows_on_no_lattice(tmp_path):
    slide, coords = noise_slide(300, 300), np.array([[3, 200], [77, 11], [150, 150]])
    values = wh.predict_windows(slide, mean_rgb, coords, window=64, out=tmp_path / "a.zarr")
    table = table_of(wh.open_heatmap(tmp_path / "a.zarr"), tmp_path / "a.csv")
    np.testing.assert_array_equal(table[["miny", "minx"]].to_numpy(), coords)
    np.testing.assert_array_equal(table.iloc[:, 4:].to_numpy(np.float32), values)
