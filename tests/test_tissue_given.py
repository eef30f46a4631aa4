"""Rules taken apart: their one form, what is refused, and how a record keeps them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.tissuerules import given, image
from napari_wsi_heatmap.tissuerules.given import given_rule, plain_rule, rule_to_json


def test_names_have_one_form():
    forms = {
        "variance": "variance:80",
        "variance2": "variance2:80",
        "variance:20.50": "variance:20.5",
        "variance:123.45678": "variance:123.45678",
        "otsu:040": "otsu:40",
        "otsu": "otsu",
    }
    assert {rule: plain_rule(rule) for rule in forms} == forms  # fmt: skip
    assert given_rule("variance2:0").value == 0
    assert given_rule("otsu:255").value == 255


@pytest.mark.parametrize(
    "rule",
    ["magic", "", "none:3", "file.docx", None, 5, [], [[1, 2]], np.zeros((0, 0)), np.ones((4, 4)),
     [np.zeros((3, 3))], [[[0, 0], [0, 9], [9, np.nan]]], {"shape": [2, 2]},
     {"shape": [1 << 20, 1 << 20], "bits": ""}],
)  # fmt: skip
def test_an_unknown_rule_names_those_there_are(rule):
    with pytest.raises(
        GridError, match=r"choose one of otsu\[:T\], none, variance\[:T\], variance2\[:T\]"
    ):
        plain_rule(rule)  # fmt: skip


@pytest.mark.parametrize("rule", ["variance:", "variance:-1", "variance2:nan", "variance:1e999"])
def test_a_threshold_that_is_none(rule):
    with pytest.raises(GridError, match="give a variance, 0 or above"):
        plain_rule(rule)


@pytest.mark.parametrize("rule", ["otsu:", "otsu:-1", "otsu:256", "otsu:nan"])
def test_a_saturation_that_is_none(rule):
    with pytest.raises(GridError, match="give a saturation, 0 to 255"):
        plain_rule(rule)


def test_a_frozen_rule_does_not_change_with_its_array():
    labels = np.ones((60, 90), np.uint8)
    settings = wh.RunSettings(tissue=labels)
    labels[:] = 0
    assert settings.tissue.all()


@pytest.mark.parametrize(
    "rule",
    ["otsu", "otsu:9", "variance2:20.5", np.eye(61, 90, dtype=bool), [[[0, 0], [0, 9.5], [9, 9]]]],
)
def test_a_recorded_rule_is_read_back(rule):
    back = given_rule(json.loads(json.dumps(rule_to_json(rule))))
    first = given_rule(rule)
    assert back.kind == first.kind
    np.testing.assert_array_equal(back.value, first.value)


def test_the_largest_mask_is_the_same_for_files_and_records():
    assert image.MOST_PIXELS == given.MOST_PIXELS
