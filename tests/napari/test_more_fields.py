"""Settings that are folded away: what they offer, and that runs get them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from live import add_slide, tissue_slide, wait_over

from napari_wsi_heatmap._napari import widget as widget_module
from napari_wsi_heatmap._napari.more_fields import CHOICES, MoreFields
from napari_wsi_heatmap._napari.registry import JOBS
from napari_wsi_heatmap._napari.warm_up import WARM_UP
from napari_wsi_heatmap.blend import BLENDS
from napari_wsi_heatmap.grid import EDGES
from napari_wsi_heatmap.settings import PRECISIONS, RESIZE_KINDS, RunSettings


@pytest.fixture
def more(qtbot):
    more = MoreFields("resolution")
    qtbot.addWidget(more.native)
    more.show()
    return more


@pytest.fixture
def dock(qtbot, viewer):
    dock = widget_module.HeatmapWidget(viewer)
    qtbot.addWidget(dock.native)
    viewer.layers.events.inserted.connect(dock.reset_choices)
    qtbot.waitUntil(WARM_UP.ready.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: dock._form._window.value != "")
    return dock


def test_everything_that_a_setting_may_be_is_offered():
    offered = {field.name: tuple(value for _, value in field.choices) for field in CHOICES}
    assert offered == {
        "edge": tuple(EDGES), "resize": RESIZE_KINDS, "precision": PRECISIONS, "blend": BLENDS,
        "disagreement": (False, True),
    }  # fmt: skip


def test_untouched_they_are_the_defaults(more):
    assert RunSettings(**more.settings()) == RunSettings()


def test_they_are_folded_until_somebody_asks(more):
    assert not more._fields.visible
    more._button.native.click()
    assert more._fields.visible
    assert more._button.text.startswith("▾")
    more._button.native.click()
    assert not more._fields.visible


def test_each_choice_is_a_setting(more):
    for field in CHOICES:
        for _, value in field.choices:
            more._choices[field.name].value = value
            assert getattr(RunSettings(**more.settings()), field.name) == value


def test_a_run_gets_them(dock, viewer, qtbot):
    add_slide(viewer, tissue_slide())
    chosen = {"edge": "drop", "resize": "torch", "precision": "bfloat16", "blend": "gaussian"}
    for name, value in chosen.items():
        dock._more._choices[name].value = value
    dock._more._batch.value = "8"
    dock._form._tissue.value = "none"
    dock._panel._run.native.click()
    job = JOBS.running(viewer)
    wait_over(qtbot, job)
    record = job.heatmap.run["settings"]
    assert {name: record[name] for name in chosen} == chosen
    assert job.heatmap.run["batch_size"]["used"] == 8
    assert np.isfinite(job.heatmap.values).all()


@pytest.mark.parametrize(("typed", "told"), [("many", "batch is 'many'"), ("1", "batch_size is 1")])
def test_a_batch_that_cannot_be_is_told(typed, told, dock, viewer, notifications):
    add_slide(viewer, tissue_slide())
    dock._more._batch.value = typed
    dock._panel._run.native.click()
    assert JOBS.running(viewer) is None
    assert told in notifications()[-1]


def test_every_field_says_what_it_is_for(more):
    for field in (*more._choices.values(), more._batch):
        assert field.tooltip
    assert all(dataclasses.asdict(field)["tooltip"] for field in CHOICES)
