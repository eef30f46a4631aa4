"""Griddata for the Digital Slide Archive, held against the rules of its annotation schema."""

from __future__ import annotations

import json

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, mean_rgb, noise_slide
from napari_wsi_heatmap.exports import dsa

QUIET = {"tissue": "none", "progress": False}
ALLOWED = {
    *("type", "values", "gridWidth", "interpretation", "origin", "dx", "dy", "colorRange"),
    *("rangeValues", "normalizeRange", "minColor", "maxColor", "stepped", "radius"),
    *("scaleWithZoom", "id", "label", "group", "user"),
}


def opened(path):
    """The element of an annotation, and its values as rows; NaN where none is meant."""
    parsed = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert parsed.keys() <= {"name", "description", "display", "attributes", "elements"}
    (element,) = parsed["elements"]
    assert element.keys() <= ALLOWED
    assert element["type"] == "griddata"
    assert len(element["rangeValues"]) == len(element["colorRange"])
    assert len(element["values"]) % element["gridWidth"] == 0
    assert len(element["origin"]) == 3
    values = np.array(element["values"], np.float32).reshape(-1, element["gridWidth"])
    missing = values < np.float32(element["rangeValues"][0])
    return element, np.where(missing, np.nan, values)


class TestDsaExport(ExportContract):
    name = "dsa"

    def check(self, path, heatmap, slide):
        element, values = opened(path)
        np.testing.assert_array_equal(values, heatmap.values[0])
        assert element["minColor"] == "rgba(0, 0, 0, 0)"
        x, y, _ = element["origin"]
        assert [y, x] == (heatmap.centres[0, 0] + 0.5).tolist()
        assert (element["dy"], element["dx"]) == heatmap.frame.scale


def test_what_is_no_number_is_transparent_or_an_end_of_the_range(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=50, **QUIET)
    heatmap.values[0, 0, :3] = np.nan, np.inf, -np.inf
    element, values = opened(heatmap.export(tmp_path / "a.json"))
    low, high = element["rangeValues"][0], element["rangeValues"][-1]
    assert np.isnan(values[0, 0])
    assert values[0, 1:3].tolist() == [np.float32(high), np.float32(low)]
    np.testing.assert_array_equal(values[1:], heatmap.values[0, 1:])


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_a_map_of_one_value_or_none(tmp_path, value):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=50, **QUIET)
    heatmap.values[:] = value
    _, values = opened(heatmap.export(tmp_path / "a.json"))
    np.testing.assert_array_equal(values, heatmap.values[0])


def test_large_maps_are_halved_and_stay_in_place(tmp_path, monkeypatch):
    heatmap = wh.compute_heatmap(noise_slide(320, 320), mean_grey, window=10, **QUIET)
    monkeypatch.setattr(dsa, "MOST_VALUES", 300)
    element, values = opened(heatmap.export(tmp_path / "a.json"))
    assert values.shape == (16, 16)
    assert element["origin"] == [10, 10, 0]  # the middle of four cells of 10 px
    assert element["dx"] == element["dy"] == 20
    assert values[0, 0] == pytest.approx(heatmap.values[0, :2, :2].mean(), rel=1e-6)


def test_the_chosen_output(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_rgb, window=50, **QUIET)
    element, values = opened(heatmap.export(tmp_path / "a.json", channel=1))
    np.testing.assert_array_equal(values, heatmap.values[1])
    assert element["label"] == {"value": heatmap.names[1]}
