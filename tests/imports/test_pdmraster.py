"""PyDmed's raster: equal to what PyDmed made, faults and all."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.errors import StoreError

RUNS = [("A_k256_s256_l0", 4), ("B_k256_s128_l0", 3), ("D_k128_s128_l1", 3)]


@pytest.mark.parametrize(("run", "patients"), RUNS)
def test_equal_to_pydmeds_arrays(data_dir, run, patients):
    tables = sorted((data_dir / "pydmed" / run).glob("patient_*.csv"))
    assert len(tables) == patients
    for table in tables:
        raster, wanted = wh.pdmcsv_to_array(table), np.load(table.with_suffix(".npy"))
        assert raster.dtype == wanted.dtype
        np.testing.assert_array_equal(raster, wanted)


@pytest.mark.parametrize(("run", "patients"), RUNS)
def test_pydmeds_csv_opens_at_its_true_place(data_dir, run, patients):
    del patients
    folder = data_dir / "pydmed"
    found = wh.open_heatmap(folder / run / "patient_0.csv", slide=folder / "slide_0.tif")
    last, down = {}, found.grid.spec.downsample[0]  # of a cell's smallest part
    for line in (folder / run / "patient_0.csv").read_text().splitlines():
        fields = [float(field) for field in line.split(",")]
        y, x, kernel, channels, cells = (int(fields[i]) for i in (0, 1, 5, 7, 8))
        values = np.array(fields[10:], np.float32).reshape(channels, cells, cells)
        for i, j in np.ndindex(cells, cells):
            # Rows of PyDmed overlap and repeat; the last counts.
            last[y * cells + i * kernel, x * cells + j * kernel] = values[:, i, j]
    places = np.rint(found.positions / down).astype(int)
    assert len(places) == len(last)
    for place, value in zip(places.tolist(), found.listed, strict=True):
        np.testing.assert_array_equal(value, last[tuple(place)])


def row(y, x, *values, shape=(1, 1, 1), kernel="4"):
    return f"{y}, {x}, 40, 40, 0, {kernel}, 1.0, {', '.join(map(str, shape))},{', '.join(values)}\n"


def written(tmp_path, *rows):
    path = tmp_path / "patient_1.csv"
    path.write_text("".join(rows))
    return path


def test_compacted_zero_where_missing_and_the_last_row_wins(tmp_path):
    path = written(
        tmp_path, row(0, 0, "1.0"), row(8, 4, "2.0"), row(0, 0, "3.0"), row(8, 20, "4.0")
    )
    np.testing.assert_array_equal(wh.pdmcsv_to_array(path)[..., 0], [[3, 0, 0], [0, 2, 4]])


def test_numpys_spelling_and_what_is_no_number(tmp_path):
    path = written(
        tmp_path,
        row(0, 0, "nan", kernel="np.int64(4)"),
        row(0, 4, "None"),
        row(4, 0, "inf"),
        row(4, 4, "True"),
    )
    wanted = [[np.nan, np.nan], [np.inf, np.nan]]
    np.testing.assert_array_equal(wh.pdmcsv_to_array(path)[..., 0], wanted)


def test_a_torn_last_line_is_left_out_and_told(tmp_path, caplog):
    path = written(tmp_path, row(0, 0, "1.0"), row(4, 0, "2.0"), row(8, 0, "3.0")[:-3])
    with caplog.at_level(logging.WARNING):
        raster = wh.pdmcsv_to_array(path)
    assert raster[..., 0].tolist() == [[1], [2]]
    assert "line 3 is cut off" in caplog.text


def test_a_placing_function_as_pydmed_calls_it(tmp_path):
    calls = []

    def place(x, y, W, H, level, kernel, downsample, c, h, w, values):
        calls.append((x, y, W, H, level, kernel, downsample, c, h, w, values))
        return [x / 4 + 10], [y / 4], [np.array(values)]

    path = written(tmp_path, row(0, 4, "1.0"), row(8, 0, "2.0"))
    raster = wh.pdmcsv_to_array(path, place=place)
    assert calls[0] == (4, 0, 40, 40, 0, 4, 1.0, 1, 1, 1, [1.0])
    np.testing.assert_array_equal(raster[..., 0], [[0, 1], [2, 0]])


def test_scaled_it_goes_through_the_cells(tmp_path):
    plane = [row(y, x, str(float(y + 2 * x))) for y in range(0, 40, 4) for x in range(0, 40, 4)]
    path = written(tmp_path, *plane)
    raster = wh.pdmcsv_to_array(path, scale=2.0)
    y, x = np.mgrid[:18, :18] * 2.0
    np.testing.assert_allclose(raster[..., 0], y + 2 * x, atol=1e-9)
    np.testing.assert_array_equal(wh.pdmcsv_to_array(path, scale=0.5), wh.pdmcsv_to_array(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no whole row"),
        ([row(0, 0, "1.0", "2.0")], "line 1 has 2 values"),
        ([row(0, 0, "1.0", "2.0", shape=(1, 1, 2))], "square"),
        ([row(0, 0, "1.0"), row(4, 0, "1.0", "2.0", shape=(2, 1, 1))], "row 2"),
        (["minx,miny,width,height,v\n"], "line 1 has"),
    ],
)
def test_what_is_no_such_file(tmp_path, rows, message):
    with pytest.raises(StoreError, match=message):
        wh.pdmcsv_to_array(written(tmp_path, *rows))
    with pytest.raises(StoreError):
        wh.pdmcsv_to_array(tmp_path / "nowhere.csv")
