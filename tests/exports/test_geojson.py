"""Tiles for QuPath: read back by json and by our own import."""

from __future__ import annotations

import itertools
import json
import uuid

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, mean_rgb, noise_slide
from napari_wsi_heatmap.exports import geojson as geojson_export
from napari_wsi_heatmap.states import DONE, FAILED, state_of

QUIET = {"tissue": "none", "progress": False}
OBJECT_TYPES = {"tile", "cell", "detection", "annotation", "tmaCore", "root"}


def features_of(path):
    parsed = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert parsed["type"] == "FeatureCollection"
    return parsed["features"]


def rectangle_of(feature):
    """x, y, width, height; the ring is closed and its sides are straight."""
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    for (x0, y0), (x1, y1) in itertools.pairwise(ring):
        assert (x0 == x1) != (y0 == y1)
    (left, top), (right, bottom) = np.min(ring, axis=0), np.max(ring, axis=0)
    return left, top, right - left, bottom - top


class TestGeojsonExport(ExportContract):
    name = "geojson"

    def check(self, path, heatmap, slide):
        features = features_of(path)
        rows, cols = np.nonzero(state_of(heatmap.state) == DONE)
        assert len(features) == len(rows)
        for feature, row, col in zip(features, rows, cols, strict=True):
            assert feature["type"] == "Feature"
            assert feature["geometry"]["type"] == "Polygon"
            y, x = heatmap.positions[row, col]
            assert rectangle_of(feature) == (x, y, *heatmap.window_size[::-1])
            properties = feature["properties"]
            assert properties["objectType"] == "tile"
            assert properties["objectType"] in OBJECT_TYPES
            assert "type" not in properties
            values = [np.float32(properties["measurements"][name]) for name in heatmap.names]
            np.testing.assert_array_equal(values, heatmap.values[:, row, col])


def test_every_tile_has_an_identity_of_its_own_that_stays():
    slide = noise_slide(200, 300)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, **QUIET)
    seeds = {geojson_export._seed(heatmap), geojson_export._seed(heatmap)}
    assert len(seeds) == 1
    found = {geojson_export._identity(seeds.copy().pop(), i) for i in range(1000)}
    assert len(found) == 1000
    assert all(isinstance(identity, uuid.UUID) for identity in found)


def test_as_wsinfer_writes_them(tmp_path, data_dir):
    model = wh.load_model(mean_rgb, activation="softmax", names=["a", "b", "c"], window=64)
    heatmap = wh.compute_heatmap(noise_slide(200, 200), model, **QUIET)
    ours = features_of(heatmap.export(tmp_path / "a.geojson"))[0]
    golden = next((data_dir / "golden").glob("wsinfer*/model-outputs-geojson/*.geojson"))
    theirs = features_of(golden)[0]
    assert ours.keys() == theirs.keys()
    assert ours["properties"].keys() == theirs["properties"].keys()
    assert ours["properties"]["isLocked"] is theirs["properties"]["isLocked"]
    assert list(ours["properties"]["measurements"]) == ["prob_a", "prob_b", "prob_c"]
    assert uuid.UUID(ours["id"]) != uuid.UUID(theirs["id"])


def test_what_is_no_number_is_a_word_that_qupath_reads(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=64, **QUIET)
    heatmap.values[0, 0, :3] = np.nan, np.inf, -np.inf
    features = features_of(heatmap.export(tmp_path / "a.geojson"))
    words = [feature["properties"]["measurements"][heatmap.names[0]] for feature in features[:3]]
    assert words == ["NaN", "Infinity", "-Infinity"]


def test_libraries_for_geojson_read_the_same_places_and_numbers(tmp_path):
    geojson = pytest.importorskip("geojson")
    shape = pytest.importorskip("shapely.geometry").shape
    heatmap = wh.compute_heatmap(noise_slide(200, 300), mean_grey, window=32, stride=20, **QUIET)
    collection = geojson.loads(heatmap.export(tmp_path / "a.geojson").read_text())
    assert collection.is_valid
    polygons = [shape(feature["geometry"]) for feature in collection["features"]]
    assert all(polygon.is_valid and polygon.exterior.is_ccw for polygon in polygons)
    table = heatmap.to_dataframe()
    corners = np.array([polygon.bounds for polygon in polygons])
    np.testing.assert_array_equal(corners[:, :2], table[["x", "y"]])
    np.testing.assert_array_equal(corners[:, 2:] - corners[:, :2], 32)
    measured = [f["properties"]["measurements"][heatmap.names[0]] for f in collection["features"]]
    np.testing.assert_array_equal(np.float32(measured), table[heatmap.names[0]])


def test_windows_that_failed_or_wait_are_left_out(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=50, **QUIET)
    heatmap.state[1, 2], heatmap.state[0, 0] = FAILED, 0
    places = {rectangle_of(f)[:2] for f in features_of(heatmap.export(tmp_path / "a.geojson"))}
    assert len(places) == heatmap.grid.size - 2
    assert places.isdisjoint({(100, 50), (0, 0)})


def test_in_parts_it_is_the_same(tmp_path, monkeypatch):
    heatmap = wh.compute_heatmap(noise_slide(200, 300), mean_grey, window=16, **QUIET)
    whole = features_of(heatmap.export(tmp_path / "whole.geojson"))
    monkeypatch.setattr(geojson_export, "PART", 7)
    assert features_of(heatmap.export(tmp_path / "parts.geojson")) == whole


def test_without_windows_it_is_still_a_collection(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(100, 100), mean_grey, window=50, **QUIET)
    heatmap.state[:] = FAILED
    assert features_of(heatmap.export(tmp_path / "a.geojson")) == []


def test_names_are_quoted(tmp_path):
    model = wh.load_model(mean_grey, names=['a "b" \\ µ'], window=64)
    heatmap = wh.compute_heatmap(noise_slide(100, 100), model, **QUIET)
    found = features_of(heatmap.export(tmp_path / "a.geojson"))[0]["properties"]["measurements"]
    assert list(found) == ['a "b" \\ µ']
