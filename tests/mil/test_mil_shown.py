"""A result as it is drawn, the table of its patches, and what scoring a growing bag costs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from mil_made import LAYOUTS, D

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.errors import ExportError, FeatureError
from napari_wsi_heatmap.mil import encode, score_mil, to_display
from napari_wsi_heatmap.mil.bags import SlideFeatures
from napari_wsi_heatmap.mil.patchtable import extremes, write_table
from napari_wsi_heatmap.mil.shown import (
    drawn,
    features_of,
    laid,
    limits,
    own_branch,
    refuse_other_slide,
    shown,
)
from napari_wsi_heatmap.mil.sofar import Intervals
from napari_wsi_heatmap.slides.array import ArraySlide

SIDE = 32


@pytest.fixture(scope="module")
def slide():
    pixels = np.random.default_rng(0).integers(0, 255, (200, 320, 3), dtype=np.uint8)
    return ArraySlide([pixels], mpp=0.5, name="noise")


@pytest.fixture(scope="module")
def mil(tmp_path_factory):
    path = tmp_path_factory.mktemp("mil") / "three.pt"
    torch.save(LAYOUTS["clam_mb"][1](), path)
    return wh.load_mil(path, device="cpu")


def bag(coords):
    features = np.random.default_rng(1).standard_normal((len(coords), D)).astype("f4")
    return SlideFeatures(features, np.asarray(coords, float), (SIDE, SIDE))


@pytest.fixture(scope="module")
def result(mil):
    return score_mil(bag(np.argwhere(np.ones((5, 8))) * SIDE), mil)


@pytest.mark.parametrize("how", ["percentile", "minmax", "raw"])
def test_a_class_is_drawn(result, slide, how):
    base = laid(result, slide)
    for branch in range(3):
        scores = result.score_of(branch)
        heatmap = shown(base, result, branch, how)
        expected = scores if how == "raw" else to_display(scores, how)
        np.testing.assert_allclose(heatmap.values[0].ravel(), expected, rtol=1e-6)
        np.testing.assert_array_equal(heatmap.values[1].ravel(), scores)
        np.testing.assert_array_equal(heatmap.values[2:], base.values[1:])
        assert heatmap.run["mil"]["branch"] == branch
        assert heatmap.run["mil"]["display"] == how
        assert heatmap.names[1:] == base.names
    low, high = limits(scores, how)
    assert (low, high) == ((scores.min(), scores.max()) if how == "raw" else (0, 1))


def test_patches_that_overlap_are_averaged(mil, slide):
    found = score_mil(bag([(0, 0), (0, 21), (100, 64)]), mil)
    heatmap = shown(laid(found, slide), found, 1, "percentile")
    first, second = to_display(found.score_of(1))[:2]
    cells = np.unique(heatmap.values[0][np.isfinite(heatmap.values[0])])
    assert np.isclose(cells, (first + second) / 2).any()


def test_features_of_a_run_in_memory(slide, mil):
    def encoder(batch):
        return torch.nn.functional.adaptive_avg_pool2d(batch, 2).flatten(1)

    model = wh.load_model(encoder, window=SIDE, output=None)
    kept = encode(slide, model, window=SIDE, tissue="none", device="cpu")
    from napari_wsi_heatmap.models.vectors import as_encoder

    heatmap = wh.compute_heatmap(
        slide, as_encoder(model), window=SIDE, tissue="none", device="cpu", progress=False
    )
    features = features_of(heatmap)
    np.testing.assert_array_equal(features.features, kept.features)
    np.testing.assert_array_equal(features.coords, kept.coords)
    with pytest.raises(FeatureError, match="trained on 13 numbers"):
        features_of(heatmap, in_dim=13)
    found = score_mil(SlideFeatures(bag(kept.coords).features, index=features.index), mil)
    heatmap = shown(laid(found, heatmap), found, 0, "raw")
    np.testing.assert_array_equal(heatmap.values[0].ravel(), found.score_of(0))
    other = ArraySlide([np.zeros((99, 99, 3), np.uint8)], name="black")
    with pytest.raises(FeatureError, match="of noise, and the slide is black"):
        refuse_other_slide(heatmap, other)


def test_without_features_there_is_a_line(slide):
    heatmap = wh.compute_heatmap(slide, "hematoxylin", tissue="none", progress=False)
    with pytest.raises(FeatureError, match="no features"):
        features_of(heatmap)


def test_patches_beyond_the_slide_are_refused(mil, slide):
    found = score_mil(bag([(0, 0), (0, 320), (199, 319)]), mil)
    with pytest.raises(FeatureError, match="1 of 3 patches lie beyond noise"):
        laid(found, slide)


def test_the_predicted_class_is_drawn_unless_another_is_given(result):
    assert own_branch(result, None) == result.prediction
    assert own_branch(result, 2) == 2


def test_nan_stays_nan_in_what_is_drawn():
    values = np.array([[np.nan, 1], [3, np.nan]], "f4")
    for how in ("percentile", "minmax", "raw"):
        np.testing.assert_array_equal(np.isnan(drawn(values, how)), np.isnan(values))
    assert limits(np.full(3, np.nan), "raw") == (0, 1)


def test_the_table_of_patches(result, tmp_path):
    found = [extremes(result, which, 4, 1) for which in ("highest", "lowest")]
    path = write_table(
        *(result, tmp_path / "a.csv", found),
        slide="=noise",
        branch=1,
        display="raw",
        classes={1: "tumour"},
    )
    table, scores = pd.read_csv(path), result.score_of(1)
    np.testing.assert_allclose(table["score"][:4], np.sort(scores)[::-1][:4], rtol=1e-6)
    np.testing.assert_allclose(table["score"][4:], np.sort(scores)[:4], rtol=1e-6)
    np.testing.assert_allclose(table["weight"], result.bag.weights[table["patch"], 1], rtol=1e-6)
    ranks = to_display(scores)[table["patch"]]
    np.testing.assert_allclose(table["percentile"], ranks, atol=1e-6)
    assert list(table["rank"]) == [1, 2, 3, 4] * 2
    assert set(table["class_name"]) == {"tumour"}
    assert set(table["slide"]) == {"'=noise"}  # no formula for a spreadsheet
    said = json.loads((tmp_path / "a.provenance.json").read_text())
    assert said["prediction"] == result.prediction
    assert said["mil"] == dict(result.provenance["mil"])
    with pytest.raises(ExportError):
        write_table(result, tmp_path / "no" / "a.csv", found, slide="", branch=1, display="raw")


def test_what_a_scoring_costs_at_least_is_no_cost_of_a_patch():
    now = [0.0]
    intervals, asked = Intervals(lambda: now[0]), []
    for patches in range(32, 20_000, 32):
        now[0] += 0.05  # of encoding
        if intervals.due(patches):
            with intervals.scoring(patches):
                # The first one warms up; the others take time however few the patches.
                now[0] += 0.02 + patches * 1e-6 + (0 if asked else 0.2)
            asked.append(patches)
    assert asked[-1] > 15_000
    assert len(asked) > 8
