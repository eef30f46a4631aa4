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


def grid_of(tmp_path, values):
    """A file whose raster is `values` (Y, X)."""
    cells = np.ndenumerate(values)
    return written(tmp_path, *(row(4 * y, 4 * x, repr(float(v))) for (y, x), v in cells))


@pytest.mark.parametrize(("scale", "shape"), [(2.0, (18, 22)), (1.5, (14, 16)), (3.3, (30, 36))])
def test_scaled_it_has_the_rounded_shape_and_goes_through_the_corners(tmp_path, scale, shape):
    values = np.random.default_rng(0).random((9, 11))
    path = grid_of(tmp_path, values)
    raster = wh.pdmcsv_to_array(path, scale=scale)[..., 0]
    assert raster.shape == shape
    np.testing.assert_allclose(raster[:: shape[0] - 1, :: shape[1] - 1], values[::8, ::10])
    np.testing.assert_array_equal(wh.pdmcsv_to_array(path, scale=0.5), wh.pdmcsv_to_array(path))


def test_scaled_it_is_cubic_and_each_channel_for_itself(tmp_path):
    y, x = np.mgrid[:21, :31] / 10
    channels = [row(4 * i, 4 * j, repr(float(y[i, j] ** 3)), repr(float(np.sin(x[i, j]))),
                    shape=(2, 1, 1)) for i in range(21) for j in range(31)]  # fmt: skip
    raster = wh.pdmcsv_to_array(written(tmp_path, *channels), scale=4.0)
    assert raster.shape == (84, 124, 2)
    fine_y, fine_x = np.linspace(0, 2, 84)[:, None], np.linspace(0, 3, 124)[None]
    inner = np.s_[24:-24, 24:-24]
    np.testing.assert_allclose(raster[..., 0][inner], (fine_y**3 + 0 * fine_x)[inner], atol=1e-3)
    np.testing.assert_allclose(
        raster[..., 1][inner], (np.sin(fine_x) + 0 * fine_y)[inner], atol=1e-4
    )


def test_scaled_what_is_no_number_stays_where_it_is(tmp_path):
    values = np.ones((6, 6))
    values[2, 3], values[5, 5] = np.nan, np.inf
    raster = wh.pdmcsv_to_array(grid_of(tmp_path, values), scale=2.0)[..., 0]
    lost = np.isnan(raster)
    assert 1 <= lost.sum() <= 9
    assert lost[4:7, 6:9].sum() == lost.sum()
    assert np.isinf(raster[-1, -1])
    np.testing.assert_allclose(raster[np.isfinite(raster)], 1)
    alone = wh.pdmcsv_to_array(grid_of(tmp_path, np.array([[5.0]])), scale=3.0)
    np.testing.assert_array_equal(alone[..., 0], np.full((3, 3), 5.0))


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
