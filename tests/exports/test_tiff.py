"""TIFF: values read back with tifffile, the coloured overlay with OpenSlide."""

from __future__ import annotations

import itertools
import json

import numpy as np
import openslide
import pytest
import tifffile

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, mean_rgb, noise, noise_slide, quarter_means
from napari_wsi_heatmap.exports import tiff as tiff_export
from napari_wsi_heatmap.ome import halve
from napari_wsi_heatmap.overlay import overlay
from napari_wsi_heatmap.slides.array import ArraySlide

QUIET = {"tissue": "none", "progress": False}


def opened(path):
    """Levels of an OME-TIFF, and its first image's attributes."""
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        (series,) = file.series
        levels = [level.asarray() for level in series.levels]
        levels = [level.reshape(-1, *level.shape[-2:]) for level in levels]
        page = file.pages[0]
        assert page.is_tiled
        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    return levels, image


class TestTiffExport(ExportContract):
    name = "tiff"

    def check(self, path, heatmap, slide):
        levels, image = opened(path)
        assert levels[0].dtype == np.float32
        np.testing.assert_array_equal(levels[0], heatmap.values)
        pixels, mpp = image["Pixels"], heatmap.grid.spec.mpp
        assert pixels["PhysicalSizeX"] == pytest.approx(heatmap.frame.scale[1] * mpp[1])
        assert pixels["PhysicalSizeY"] == pytest.approx(heatmap.frame.scale[0] * mpp[0])
        assert [c["Name"] for c in pixels["Channel"]] == [*map(int, heatmap.names)]


def test_coarser_levels_are_means_of_what_has_a_value(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_export, "SMALLEST", 8)
    heatmap = wh.compute_heatmap(noise_slide(300, 333), mean_rgb, window=10, **QUIET)
    heatmap.values[:, 3, 4] = np.nan
    heatmap.values[:, 10:20, 10:20] = np.nan
    levels, _ = opened(heatmap.export(tmp_path / "a.tiff"))
    assert [level.shape[1:] for level in levels] == [(30, 34), (15, 17), (8, 9), (4, 5)]
    for fine, coarse in itertools.pairwise(levels):
        np.testing.assert_array_equal(coarse, halve(fine))


@pytest.mark.parametrize("mpp", [0.25, (0.25, 0.5), None])
def test_says_where_the_map_lies(tmp_path, mpp):
    slide = ArraySlide([noise(300, 300)], mpp=mpp)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=64, stride=40, **QUIET)
    _, image = opened(heatmap.export(tmp_path / "a.tiff"))
    placed = json.loads(image["Description"])
    # The first window's centre is at pixel border 32, and the first cell is 40 px wide.
    assert placed["origin_level0"] == [12, 12]
    assert placed["scale_level0"] == [40, 40]
    if mpp is None:
        assert "PhysicalSizeX" not in image["Pixels"]
    else:
        y, x = slide.mpp
        plane = image["Pixels"]["Plane"]
        assert (plane["PositionX"], plane["PositionY"]) == (12 * x, 12 * y)
        assert image["Pixels"]["PhysicalSizeXUnit"] == "µm"


def test_dense_cells_are_pixels(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(256, 256), quarter_means, window=64, **QUIET)
    levels, image = opened(heatmap.export(tmp_path / "a.tiff"))
    np.testing.assert_array_equal(levels[0], heatmap.values)
    assert json.loads(image["Description"])["origin_level0"] == [0, 0]


class TestOverlayExport(ExportContract):
    name = "overlay"

    def check(self, path, heatmap, slide):
        drawn = overlay(heatmap, slide, side=4096)
        with openslide.OpenSlide(path) as read:
            assert read.properties["openslide.vendor"] == "generic-tiff"
            assert read.dimensions == drawn.picture.shape[1::-1]
            found = np.array(read.read_region((0, 0), 0, read.dimensions).convert("RGB"))
            np.testing.assert_array_equal(found, drawn.picture)
            mpp = [float(read.properties[f"openslide.mpp-{axis}"]) for axis in "yx"]
            downs, smallest = read.level_downsamples, read.level_dimensions[-1]
        wanted = np.array(drawn.canvas.scale) * heatmap.grid.spec.mpp
        np.testing.assert_allclose(mpp, wanted, rtol=1e-6)
        np.testing.assert_allclose(downs, 2.0 ** np.arange(len(downs)), rtol=0.05)
        assert max(smallest) <= 256


def test_an_overlay_is_a_slide_for_us_as_well(tmp_path):
    slide = noise_slide(300, 400)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, **QUIET)
    path = heatmap.export(tmp_path / "a.tiff", slide=slide, format="overlay", side=1200)
    drawn = overlay(heatmap, slide, side=1200)
    with wh.open_slide(path) as found:
        assert found.mpp == pytest.approx(np.array(drawn.canvas.scale) * slide.mpp)
        assert [level.downsample for level in found.levels[:3]] == [(1, 1), (2, 2), (4, 4)]
        height, width = found.levels[0].shape
        np.testing.assert_array_equal(found.read_region(0, 0, 0, height, width), drawn.picture)


def test_without_a_calibration_an_overlay_claims_none(tmp_path):
    slide = ArraySlide([noise(200, 200)])
    heatmap = wh.compute_heatmap(slide, mean_grey, window=50, **QUIET)
    path = heatmap.export(tmp_path / "a.tiff", format="overlay", side=300)
    with openslide.OpenSlide(path) as read:
        assert "openslide.mpp-x" not in read.properties
