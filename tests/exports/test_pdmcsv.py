"""PyDmed's rows: written as PyDmed writes them, and read back to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, noise, noise_slide, quarter_means
from napari_wsi_heatmap.imports.pdmcsv import read_rows
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, FAILED, state_of

QUIET = {"tissue": "none", "progress": False}


class TestPdmcsvExport(ExportContract):
    name = "pdmcsv"

    def check(self, path, heatmap, slide):
        rows, notices = read_rows(path)
        assert notices == ()
        done = state_of(heatmap.state) == DONE
        places = np.array([row.corner for row in rows])
        np.testing.assert_array_equal(places, heatmap.positions[done])
        values = np.array([row.values for row in rows], np.float32)
        np.testing.assert_array_equal(values, heatmap.values[:, done].T)
        assert {row.shape for row in rows} == {(3, 1, 1)}
        assert {row.head[2:] for row in rows} == {(300, 400, 0, 64, 1.0)}


def test_every_character_is_where_pydmed_puts_it(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(128, 192), mean_grey, window=64, **QUIET)
    heatmap.values[0, 0] = 0.1, np.nan, np.inf
    lines = heatmap.export(tmp_path / "a.pdmcsv").read_text().split("\n")
    assert lines[0] == "0, 0, 128, 192, 0, 64, 1.0, 1, 1, 1,0.10000000149011612"
    assert lines[1] == "0, 64, 128, 192, 0, 64, 1.0, 1, 1, 1,nan"
    assert lines[2] == "0, 128, 128, 192, 0, 64, 1.0, 1, 1, 1,inf"
    assert lines[-1] == ""
    assert len(lines) == 7


def test_positions_are_pixels_of_the_level(tmp_path):
    slide = ArraySlide([noise(600, 800), noise(150, 200)])
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, level=1, **QUIET)
    rows, _ = read_rows(heatmap.export(tmp_path / "a.pdmcsv"))
    assert rows[5].corner == (50, 50)
    assert rows[5].head[2:] == (150, 200, 1, 50, 4.0)


def test_cells_of_a_dense_map(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(256, 256), quarter_means, window=64, **QUIET)
    rows, _ = read_rows(heatmap.export(tmp_path / "a.pdmcsv"))
    channels = len(heatmap.names)
    assert {row.shape for row in rows} == {(channels, 4, 4)}
    last = np.array(rows[-1].values, np.float32).reshape(channels, 4, 4)
    np.testing.assert_array_equal(last, heatmap.values[:, -4:, -4:])


def test_rows_of_done_windows_only(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=50, **QUIET)
    heatmap.state[1, 2], heatmap.state[0, 0] = FAILED, 0
    rows, _ = read_rows(heatmap.export(tmp_path / "a.pdmcsv"))
    assert {row.corner for row in rows}.isdisjoint({(50, 100), (0, 0)})
    assert len(rows) == heatmap.grid.size - 2


@pytest.mark.parametrize("function", [mean_grey, quarter_means])
def test_pydmeds_own_raster_of_it_is_the_map(tmp_path, function):
    heatmap = wh.compute_heatmap(noise_slide(256, 320), function, window=64, **QUIET)
    raster = wh.pdmcsv_to_array(heatmap.export(tmp_path / "a.pdmcsv"))
    np.testing.assert_array_equal(raster.astype(np.float32), heatmap.values.transpose(1, 2, 0))
