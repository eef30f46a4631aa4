"""The field of a rule's threshold: number and slider, and what they say together."""

from __future__ import annotations

import numpy as np
import pytest

from napari_wsi_heatmap._napari.form import TISSUE, SettingsForm
from napari_wsi_heatmap._napari.threshold_field import SCALES, ThresholdField
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.tissuerules.given import MOST_SATURATION, THRESHOLDS, given_rule


@pytest.fixture
def field(qtbot):
    field = ThresholdField()
    qtbot.addWidget(field.native)
    return field


def test_each_rule_with_a_threshold_has_a_scale():
    assert SCALES.keys() == THRESHOLDS.keys()
    assert {value for _, value in TISSUE} == {"none", *SCALES}


@pytest.mark.parametrize("rule", SCALES)
def test_every_position_of_the_slider_is_a_threshold_and_comes_back(rule, field):
    field.follow(rule)
    thresholds = []
    for position in reversed(range(field._slider.max + 1)):
        field._slider.value = position
        chosen = given_rule(field.rule)
        assert chosen.kind == rule
        thresholds.append(chosen.value)
        field._text.value = ""
        field._text.value = f"{chosen.value}"
        assert field._slider.value == position
    ends = (MOST_SATURATION, 0) if rule == "otsu" else (16400, 1)
    assert thresholds == sorted(thresholds, reverse=True)
    assert (thresholds[0], thresholds[-1]) == ends


@pytest.mark.parametrize("rule", SCALES)
def test_empty_it_is_the_rules_own(rule, field):
    field.follow(rule)
    assert field.rule == rule
    field._slider.value = 50
    assert field.rule != rule
    field._text.value = "  "
    assert field.rule == rule


def test_another_rule_begins_anew(field):
    field.follow("variance")
    field._text.value = "200"
    field.follow("variance")
    assert field.rule == "variance:200"
    field.follow("otsu")
    assert field.rule == "otsu"
    assert field._text.native.placeholderText() == "automatic"
    field.follow("variance")
    assert field.rule == "variance"
    assert field._text.native.placeholderText() == "80"
    position = field._slider.value
    field._text.value = "80"
    assert field._slider.value == position


@pytest.mark.parametrize(
    ("rule", "text"), [("otsu", "300"), ("otsu", "-1"), ("variance", "x"), ("variance2", "nan")]
)
def test_what_cannot_be_a_threshold_is_told(rule, text, field):
    field.follow(rule)
    field._text.value = text
    with pytest.raises(GridError, match=rf"threshold is '{text}' - give a"):
        field.rule  # noqa: B018


def test_thresholds_beyond_the_slider_are_kept(field):
    field.follow("variance")
    for typed in ("0", "99999"):
        field._text.value = typed
        assert given_rule(field.rule).value == float(typed)
    assert field._slider.value == field._slider.max


def test_it_is_shown_where_the_rule_has_a_threshold(qtbot, viewer):
    form = SettingsForm(viewer)
    qtbot.addWidget(form.native)
    form.show()
    shown = {}
    labels = viewer.add_labels(np.eye(9, dtype=int))
    form.reset_choices()
    for choice in (*(value for _, value in TISSUE), labels):
        form._tissue.value = choice
        shown[choice] = form._threshold.visible
    assert shown == {"otsu": True, "none": False, "variance": True, "variance2": True,
                     labels: False}  # fmt: skip
