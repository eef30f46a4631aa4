"""PyDmed's rows window by window, and the JSON file that says what they leave out."""

from __future__ import annotations

import json

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import noise, noise_slide
from made_slides import write_tiff
from napari_wsi_heatmap.errors import ExportError, StoreFullError
from napari_wsi_heatmap.imports.pdmcsv import read_rows
from napari_wsi_heatmap.slides.array import ArraySlide


def test_a_row_is_pydmeds_to_the_character(tmp_path):
    values = np.array([[[[0.1, np.nan], [np.inf, 1e-8]]]], np.float32)
    with wh.PdmcsvWriter(tmp_path / "p.csv", noise_slide(1630, 2150), window=256) as writer:
        writer.write(values, [[1373, 1894]])
    assert (tmp_path / "p.csv").read_bytes() == (
        b"1373, 1894, 1630, 2150, 0, 256, 1.0, 1, 2, 2,"
        b"0.10000000149011612, nan, inf, 9.99999993922529e-09\n"
    )


def test_a_path_names_the_slide(tmp_path):
    path = write_tiff(tmp_path / "s.tif", [noise(100, 130)], tile=128)
    with wh.PdmcsvWriter(tmp_path / "p.csv", path, window=64) as writer:
        writer.write([0.5], [(0, 64)])
    assert (tmp_path / "p.csv").read_text() == "0, 64, 100, 130, 0, 64, 1.0, 1, 1, 1,0.5\n"
    assert json.loads((tmp_path / "p.csv.json").read_text())["slide"]["path"] == str(path)


def test_places_are_pixels_of_the_level_and_the_downsample_is_openslides(tmp_path):
    slide = ArraySlide([noise(1630, 2150), noise(407, 537)])
    with wh.PdmcsvWriter(tmp_path / "p.csv", slide, window=100, level=1) as writer:
        writer.write([[0.5, 0.25]], np.array([[204, 1204]]))
    (row,), _ = read_rows(tmp_path / "p.csv")
    assert row.head == (51, 301, 407, 537, 1, 100, 4.004319199849926)
    assert row.shape == (2, 1, 1)
    assert row.values == [0.5, 0.25]


def test_single_values_and_numbers_of_any_kind(tmp_path):
    with wh.PdmcsvWriter(tmp_path / "p.csv", noise_slide(), window=64) as writer:
        writer.write(np.array([True, False]), [(0, 0), (0, 64)])
        writer.write([3], [(64, 0)])
        writer.write(np.zeros((0, 1)), np.zeros((0, 2)))
    rows, _ = read_rows(tmp_path / "p.csv")
    assert [row.values for row in rows] == [[1.0], [0.0], [3.0]]


def test_beside_the_rows_stands_what_they_leave_out(tmp_path):
    path, slide = tmp_path / "p.csv", noise_slide()
    with wh.PdmcsvWriter(path, slide, window=64, names=["a", "b"], about={"model": "m"}) as writer:
        writer.write(np.eye(2, dtype=np.float32), [(0, 0), (0, 64)])
    told = json.loads((tmp_path / "p.csv.json").read_text())
    assert told["slide"]["fingerprint"] == slide.fingerprint
    assert told["slide"]["mpp"] == [0.5, 0.5]
    assert (told["window"], told["level"], told["model"]) == (64, 0, "m")
    heatmap = wh.open_heatmap(path, slide)
    assert heatmap.names == ("a", "b")
    np.testing.assert_array_equal(heatmap.window_values()[1], np.eye(2))


def test_rows_are_there_after_a_flush_and_gone_on_with(tmp_path):
    path, slide = tmp_path / "p.csv", noise_slide()
    writer = wh.PdmcsvWriter(path, slide, window=64, flush_s=0)
    writer.write([1.0], [(0, 0)])
    assert len(read_rows(path)[0]) == 1
    with path.open("a") as file:
        file.write("0, 64, 600, 9")  # a session that was killed in the middle
    with wh.PdmcsvWriter(path, slide, window=64, append=True) as writer:
        writer.write([2.0], [(0, 64)])
    rows, notices = read_rows(path)
    assert notices == ()
    assert [row.values for row in rows] == [[1.0], [2.0]]
    with wh.PdmcsvWriter(path, slide, window=64):
        pass
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("values", "windows"),
    [
        (np.zeros((1, 1, 2, 3)), [(0, 0)]),
        (np.zeros((2, 1)), [(0, 0)]),
        (np.zeros((1, 1, 1, 1, 1)), [(0, 0)]),
        (np.zeros((1, 5)), [(0, 0)]),
    ],
)
def test_values_that_pydmed_could_not_place(tmp_path, values, windows):
    with wh.PdmcsvWriter(tmp_path / "p.csv", noise_slide(), window=64) as writer:
        writer.write([1.0], [(64, 64)])
        with pytest.raises(ExportError, match="values are"):
            writer.write(values, windows)


def test_places_where_no_file_can_be(tmp_path):
    with pytest.raises(ExportError, match="square windows only"):
        wh.PdmcsvWriter(tmp_path / "p.csv", noise_slide(), window=(64, 32))
    with pytest.raises(ExportError, match="no such folder"):
        wh.PdmcsvWriter(tmp_path / "no" / "p.csv", noise_slide(), window=64)
    writer = wh.PdmcsvWriter(tmp_path / "p.csv", noise_slide(), window=64)
    writer.write([1.0], [(0, 0)])
    (tmp_path / "p.csv").unlink()
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(StoreFullError, match="cannot write"):
        writer.close()
