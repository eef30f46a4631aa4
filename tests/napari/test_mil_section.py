"""The dock's MIL section: features of files and layers, what is drawn, and the patches."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from feature_maps import finished_job
from live import add_slide, no_worker_left, tissue_slide
from mil_parts import LENGTH, clam_mb, dsmil, errors_in, save, write_features
from napari.layers import Points, Vectors

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari.class_switch import entries_of
from napari_wsi_heatmap._napari.export_map import write
from napari_wsi_heatmap._napari.mil_section import (
    CANCEL,
    NO_CHECKPOINT,
    NO_SLIDE,
    RUN,
    SCORE,
    SCORING,
    MilSection,
    WhatRuns,
)
from napari_wsi_heatmap.exports import choose_format
from napari_wsi_heatmap.mil import encode, score_mil, to_display

TIMEOUT = 30_000


@pytest.fixture
def slide():
    return tissue_slide(400, 600)


@pytest.fixture
def slide_layer(viewer, slide):
    return add_slide(viewer, slide)


@pytest.fixture
def section(qtbot, viewer, caplog):
    def what_runs():
        layer = next((la for la in viewer.layers if "slide" in la.metadata), None)
        return WhatRuns(layer, "hematoxylin", lambda: {"tissue": "none", "window": 32})

    section = MilSection(viewer, what_runs)
    qtbot.addWidget(section.native)
    section.native.resize(280, 900)
    section.show()
    section.unfolded = True
    yield section
    section.unfolded = False
    qtbot.waitUntil(no_worker_left, timeout=TIMEOUT)
    assert errors_in(caplog) == []


@pytest.fixture
def bag(tmp_path):
    """(path, features, coords)."""
    return tmp_path / "slide.h5", *write_features(tmp_path / "slide.h5")


@pytest.fixture
def checkpoint(tmp_path):
    return save(clam_mb(), tmp_path / "three.pt")


def load(qtbot, section, path):
    section._fields.choose_checkpoint(path)
    qtbot.waitUntil(lambda: section._fields.checkpoint is not None, timeout=TIMEOUT)


def score(qtbot, section):
    """Press the button and wait until there is a map, or a line."""
    section._score.changed.emit(True)
    qtbot.waitUntil(lambda: section.line != SCORING, timeout=TIMEOUT)
    outcome = section._outcome
    qtbot.waitUntil(lambda: not outcome._drawing._busy, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: not outcome._patches._choosing._busy, timeout=TIMEOUT)


@pytest.fixture
def scored(qtbot, section, slide_layer, bag, checkpoint):
    """The section, with the slide of the file scored."""
    load(qtbot, section, checkpoint)
    section._fields.choose_features(bag[0])
    score(qtbot, section)
    assert section.layer is not None, section.line
    return section


def expected(bag, checkpoint, **options):
    return score_mil(bag[0], checkpoint, **options)


def texts(table):
    return [
        [table.item(row, column).text() for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def shown_values(layer, positions, size):
    """What a layer shows at the centres of patches."""
    base = layer.metadata["heatmap"].frame
    cells = (positions + (np.asarray(size) - 1) / 2 - base.offset) / base.scale
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-6)
    rows, cols = np.rint(cells).astype(int).T
    return np.asarray(layer.data)[rows, cols]


def test_it_says_what_is_missing(section, viewer, slide, qtbot, checkpoint, bag):
    assert section.line == NO_CHECKPOINT
    assert not section._score.enabled
    load(qtbot, section, checkpoint)
    assert section.line == NO_SLIDE
    add_slide(viewer, slide)
    assert section.line == ""
    assert section._score.enabled
    assert section._score.text == RUN
    section._fields.choose_features(bag[0])
    assert section._score.text == SCORE


def test_a_checkpoint_says_what_it_is(section, qtbot, checkpoint):
    load(qtbot, section, checkpoint)
    assert section._fields._about.tooltip == str(wh.load_mil(checkpoint).facts)
    assert section._fields._branch.choices == (None, 0, 1, 2)
    assert section._fields._branch.visible
    assert not section._fields._score.visible


def test_no_checkpoint_is_told_in_a_line(section, qtbot, tmp_path):
    fields = section._fields
    fields.choose_checkpoint(tmp_path / "no.pt")
    assert "There is no file" in fields._about.tooltip
    (tmp_path / "text.pt").write_text("nothing")
    fields.choose_checkpoint(tmp_path / "text.pt")
    qtbot.waitUntil(lambda: "text.pt" in fields._about.tooltip, timeout=TIMEOUT)
    assert "\n" not in fields._about.tooltip
    assert not section._score.enabled


def test_the_map_lies_where_the_patches_lie(scored, slide_layer, bag, checkpoint):
    result = expected(bag, checkpoint)
    layer = scored.layer
    ranks = to_display(result.patch_score)
    np.testing.assert_allclose(shown_values(layer, bag[2], (64, 64)), ranks.astype("f4"), rtol=1e-6)
    frame = layer.metadata["heatmap"].frame
    cell = np.rint((bag[2][0] + 31.5 - frame.offset) / frame.scale)
    np.testing.assert_allclose(
        layer.data_to_world(cell), slide_layer.data_to_world(bag[2][0] + 31.5)
    )
    slide_layer.translate = (11, -7)
    np.testing.assert_allclose(
        layer.data_to_world(cell), slide_layer.data_to_world(bag[2][0] + 31.5)
    )
    assert tuple(layer.contrast_limits) == (0, 1)


def test_the_prediction(scored, bag, checkpoint):
    result = expected(bag, checkpoint)
    assert scored.scored.result.prediction == result.prediction
    np.testing.assert_array_equal(scored.scored.result.probabilities, result.probabilities)
    assert f"class {result.prediction}" in scored._outcome._says.tooltip
    rows = texts(scored._outcome._table)
    assert [row[1] for row in rows] == [f"{p:.4f}" for p in result.probabilities]
    assert rows[result.prediction][0] == f"▸ class {result.prediction}"


def test_names_of_classes(scored):
    data = scored.layer.data
    scored._fields._names.value = "normal, , ductal"
    rows = texts(scored._outcome._table)
    assert [row[0].removeprefix("▸ ") for row in rows] == ["normal", "class 1", "ductal"]
    predicted = scored.scored.result.prediction
    word = ["normal", "class 1", "ductal"][predicted]
    assert scored.layer.name == f"three: attention for {word}"
    assert scored.layer.data is data  # it is not drawn again
    assert scored._fields._branch.native.itemText(3) == "ductal"


def test_another_class_is_drawn_without_scoring(scored, qtbot, bag, checkpoint, monkeypatch):
    asked = []
    mil = scored._fields.checkpoint.mil
    monkeypatch.setattr(mil._net, "score", lambda *a: asked.append(a))
    result, layer, before = expected(bag, checkpoint), scored.layer, scored.layer.data
    other = (result.prediction + 1) % 3
    scored._fields._branch.value = other
    qtbot.waitUntil(lambda: scored.layer.data is not before, timeout=TIMEOUT)
    ranks = to_display(result.score_of(other)).astype("f4")
    np.testing.assert_allclose(shown_values(layer, bag[2], (64, 64)), ranks, rtol=1e-6)
    assert scored.layer is layer
    assert layer.name == f"three: attention for class {other}"
    assert asked == []


@pytest.mark.parametrize("how", ["minmax", "raw"])
def test_ways_to_draw(scored, qtbot, bag, checkpoint, how):
    scores, before = expected(bag, checkpoint).patch_score, scored.layer.data
    scored._fields._how.value = how
    qtbot.waitUntil(lambda: scored.layer.data is not before, timeout=TIMEOUT)
    drawn = scores if how == "raw" else to_display(scores, how).astype("f4")
    np.testing.assert_allclose(shown_values(scored.layer, bag[2], (64, 64)), drawn, rtol=1e-6)
    limits = (scores.min(), scores.max()) if how == "raw" else (0, 1)
    np.testing.assert_allclose(scored.layer.contrast_limits, limits)


def test_its_channels_are_no_classes(scored):
    assert [what for _, what in entries_of(scored.layer)] == list(range(8))


def points(viewer):
    return {layer.metadata["which"]: layer for layer in viewer.layers if isinstance(layer, Points)}


def test_the_highest_and_the_lowest_are_framed(scored, viewer, bag, checkpoint, slide_layer):
    scores = expected(bag, checkpoint).patch_score
    order = np.argsort(-scores, kind="stable")
    for which, index in (("highest", order[:8]), ("lowest", order[::-1][:8])):
        layer = points(viewer)[which]
        world = np.array([layer.data_to_world(point) for point in layer.data])
        centres = bag[2][index] + 31.5
        np.testing.assert_allclose(
            world, [slide_layer.data_to_world(centre) for centre in centres], rtol=1e-9
        )
        np.testing.assert_allclose(layer.features["score"], scores[index])
    table = scored._outcome._patches._table
    assert [row[0] for row in texts(table)] == [str(n) for n in range(1, 9)]
    y, x = bag[2][order[0]]
    assert texts(table)[0][2:] == [f"{y:,}", f"{x:,}"]


def test_a_row_moves_the_camera_and_is_outlined(scored, viewer, qtbot, bag, checkpoint):
    panel = scored._outcome._patches
    panel._table.setCurrentCell(2, 0)
    order = np.argsort(-expected(bag, checkpoint).patch_score, kind="stable")
    centre = (bag[2][order[2]] + 31.5) * 0.5  # µm
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], centre)
    (mark,) = (layer for layer in viewer.layers if isinstance(layer, Vectors))
    assert len(mark.data) == 8
    panel._gallery.choose(4)
    assert panel._table.currentRow() == 4


def test_the_gallery_shows_their_pixels(scored, qtbot, slide, monkeypatch):
    panel, arrived = scored._outcome._patches, {}
    monkeypatch.setattr(
        panel._gallery._thumbnails, "put", lambda number, rgb: arrived.update({number: rgb})
    )
    panel._which.value = "lowest"
    qtbot.waitUntil(lambda: len(arrived) == 8, timeout=TIMEOUT)
    y, x = panel.found.positions[3].astype(int)
    np.testing.assert_array_equal(arrived[3], slide.read_region(0, y, x, 64, 64))


def test_both_lists_are_saved_with_their_origin(scored, qtbot, tmp_path, bag, checkpoint):
    scored._fields._names.value = "normal, lobular, ductal"
    scored._fields._branch.value = 2
    named = {0: "normal", 1: "lobular", 2: "ductal"}
    panel = scored._outcome._patches
    qtbot.waitUntil(lambda: panel._shown[2:] == (2, named), timeout=TIMEOUT)
    panel._k.value = 5
    qtbot.waitUntil(lambda: len(panel.found) == 5, timeout=TIMEOUT)
    panel.save(tmp_path / "patches.csv")
    qtbot.waitUntil((tmp_path / "patches.csv").exists, timeout=TIMEOUT)
    table = pd.read_csv(tmp_path / "patches.csv")
    result = expected(bag, checkpoint)
    scores = result.score_of(2)
    assert list(table["which"]) == ["highest"] * 5 + ["lowest"] * 5
    np.testing.assert_allclose(table["score"][:5], np.sort(scores)[::-1][:5], rtol=1e-6)
    np.testing.assert_allclose(table["score"][5:], np.sort(scores)[:5], rtol=1e-6)
    np.testing.assert_array_equal(table[["y", "x"]], bag[2][table["patch"]])
    sha256 = wh.load_mil(checkpoint).sha256
    assert set(table["checkpoint_sha256"]) == {sha256}
    assert set(table["class_name"]) == {"ductal"}
    assert set(table["display"]) == {"percentile"}
    assert set(table["features"]) == {str(bag[0])}
    said = json.loads((tmp_path / "patches.provenance.json").read_text())
    assert said["mil"]["sha256"] == sha256
    assert said["probabilities"] == result.probabilities.tolist()


def test_the_map_is_exported_as_any_other(scored, viewer, qtbot, tmp_path, bag, checkpoint):
    path = tmp_path / "map.csv"
    write(viewer, scored.layer, path, choose_format(path))
    qtbot.waitUntil(path.exists, timeout=TIMEOUT)
    table = pd.read_csv(path)
    assert list(table.columns[4:6]) == ["rank of the score", "score"]
    np.testing.assert_allclose(table["score"], expected(bag, checkpoint).patch_score, rtol=1e-6)
    run = scored.layer.metadata["heatmap"].run
    assert run["mil"]["provenance"]["mil"]["sha256"] == wh.load_mil(checkpoint).sha256
    assert run["mil"]["display"] == "percentile"


def test_what_cannot_be_scored_is_a_line(section, slide_layer, qtbot, tmp_path, checkpoint):
    load(qtbot, section, checkpoint)
    write_features(tmp_path / "long.h5", length=LENGTH + 1)
    write_features(tmp_path / "far.h5", origin=(16, 580))
    for name, said in (("long", "trained on 6"), ("far", "patches lie beyond pink"), ("no", "no")):
        section._fields.choose_features(tmp_path / f"{name}.h5")
        score(qtbot, section)
        assert said in section.line
        assert "\n" not in section.line
        assert section.layer is None
        assert section._score.enabled


def test_features_of_another_slide_are_refused(section, slide_layer, qtbot, tmp_path, checkpoint):
    other = wh.slides.array.ArraySlide([np.full((300, 300, 3), 90, np.uint8)], mpp=0.5, name="grey")
    encode(other, "hematoxylin", out=tmp_path / "a.zarr", window=64, tissue="none")
    save(clam_mb(length=1), tmp_path / "one.pt")
    load(qtbot, section, tmp_path / "one.pt")
    section._fields.choose_features(tmp_path / "a.zarr" / "run.json")
    assert section._fields.source == tmp_path / "a.zarr"
    score(qtbot, section)
    assert "the features are of grey, and the slide is pink" in section.line


def test_scoring_is_cancelled(section, slide_layer, qtbot, bag, checkpoint):
    load(qtbot, section, checkpoint)
    section._fields.choose_features(bag[0])
    section._score.changed.emit(True)
    assert section._score.text == CANCEL
    section._score.changed.emit(True)
    assert section.line == "cancelled"
    qtbot.waitUntil(lambda: not section._scoring._busy, timeout=TIMEOUT)
    assert section.layer is None
    score(qtbot, section)
    assert section.layer is not None


def test_another_checkpoint_on_the_features_of_a_layer(section, viewer, qtbot, tmp_path):
    job = finished_job(qtbot, viewer)
    load(qtbot, section, save(dsmil(), tmp_path / "two.pt"))
    section._fields.choose_layer(job.layer)
    score(qtbot, section)
    np.testing.assert_allclose(section.layer.scale, job.layer.scale)
    np.testing.assert_allclose(section.layer.translate, job.layer.translate)
    assert not job.layer.visible
    assert section._fields._score.visible
    first = section.layer
    section._fields._score.value = "instances"
    wanted = lambda: section.scored.result.provenance["mil"]["attention"]  # noqa: E731
    qtbot.waitUntil(lambda: wanted() == "instances", timeout=TIMEOUT)
    qtbot.waitUntil(lambda: section.layer not in (None, first), timeout=TIMEOUT)
    assert section.layer.name.startswith("two: attention (instances) for class")
    assert not first.visible
    # Of another checkpoint nothing is known yet, and nothing is shown.
    load(qtbot, section, save(clam_mb(), tmp_path / "three.pt"))
    assert section.scored is None
    assert points(viewer) == {}
    assert not section._outcome._says.visible


def test_a_map_that_is_removed_is_forgotten(scored, viewer):
    viewer.layers.remove(scored.layer)
    assert scored.scored is None
    assert points(viewer) == {}
    assert texts(scored._outcome._patches._table) == []


def test_folded_it_takes_its_frames_away(scored, viewer, qtbot):
    scored.unfolded = False
    assert points(viewer) == {}
    assert scored.layer in viewer.layers
    scored.unfolded = True
    qtbot.waitUntil(lambda: len(points(viewer)) == 2, timeout=TIMEOUT)


def test_a_configuration_names_checkpoint_and_classes(section, qtbot, tmp_path, checkpoint):
    config = tmp_path / "config.yaml"
    config.write_text(
        "exp_arguments: {save_exp_code: A}\n"
        "data_arguments: {data_dir: ., label_dict: {normal: 0, lobular: 1, ductal: 2}}\n"
        "model_arguments: {ckpt_path: three.pt, model_type: clam_mb}\n"
    )
    load(qtbot, section, config)
    assert section._fields.checkpoint.mil.path.name == "three.pt"
    assert section._fields.names == {0: "normal", 1: "lobular", 2: "ductal"}


def test_closed_in_the_middle_it_leaves_no_trace(
    qtbot, viewer, slide_layer, bag, checkpoint, caplog
):
    section = MilSection(viewer, lambda: WhatRuns(slide_layer, "hematoxylin", dict))
    section.unfolded = True
    load(qtbot, section, checkpoint)
    section._fields.choose_features(bag[0])
    section._score.changed.emit(True)
    section.native.deleteLater()
    scoring = section._scoring
    qtbot.waitUntil(lambda: section._left, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: not scoring._busy, timeout=TIMEOUT)
    viewer.layers.clear()
    assert errors_in(caplog) == []
