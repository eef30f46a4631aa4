"""The dock's section of many slides: started, followed, stopped, looked at."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from live import TIMEOUT, add_slide, tissue_slide

import napari_wsi_heatmap as wh
from made_slides import tissue, write_tiff
from napari_wsi_heatmap._napari import cohort_panel
from napari_wsi_heatmap._napari.cohort_panel import RUN, STOP, CohortSection
from napari_wsi_heatmap._napari.model_list import MODELS

pytest.importorskip("distributed")


class What(NamedTuple):
    slide_layer: object
    name: str
    given: dict

    def settings(self):
        return self.given


def slow_mean(batch):
    time.sleep(0.02)
    return batch.mean((1, 2, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for i in range(3):
        write_tiff(folder / f"slide{i}.tif", [tissue(384, 384, i)], compression="jpeg")
    (folder / "bad.tif").write_bytes(b"<html>")
    return folder


@pytest.fixture
def section(qtbot, viewer, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(CohortSection, "processes", False)
    monkeypatch.setattr(cohort_panel, "_jobs", [])
    MODELS.register("slow mean", slow_mean)
    layer = add_slide(viewer, tissue_slide(64, 64))
    given = {"window": 32, "tissue": "none", "level": 0, "batch_size": 4, "mpp": None}
    what = What(layer, "slow mean", given | {"roi": (0, 0, 9, 9), "out": "x"})
    section = CohortSection(viewer, lambda: what)
    qtbot.addWidget(section.native)
    section._slides.value, section._out.value = folder, tmp_path / "out"
    section.show()
    section.unfolded = True
    yield section
    for job in cohort_panel._jobs:
        job.stop()
        assert job.wait(60)
    MODELS.unregister("slow mean")


def cells(section) -> list[list[str]]:
    table = section._table
    return [[table.item(row, col).text() for col in range(3)] for row in range(table.rowCount())]


def test_a_cohort_is_run_shown_and_looked_at(qtbot, viewer, section, tmp_path):
    assert section._run.text == RUN
    assert not section._table.isVisible()
    section._run.changed.emit(True)
    assert section._run.text == STOP
    qtbot.waitUntil(lambda: section.job.over, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: section._run.text == RUN)
    assert section._line.tooltip == "4 of 4 slides, 1 failed"
    assert "2 workers" in section._crew.tooltip
    rows = cells(section)
    assert [row[0] for row in rows] == ["bad", "slide0", "slide1", "slide2"]
    assert "bad.tif" in rows[0][1]
    assert [row[1] for row in rows[1:]] == ["done"] * 3
    heatmap = wh.open_heatmap(tmp_path / "out" / "slide1.zarr")
    assert heatmap.run["counts"]["done"] == 144  # of the whole slide, not of a region of another
    assert float(rows[2][2]) == pytest.approx(heatmap.values.mean(), rel=1e-3)
    section._table.cellDoubleClicked.emit(0, 0)  # it has failed
    section._table.cellDoubleClicked.emit(2, 0)
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=TIMEOUT)
    assert viewer.layers[-1].metadata["heatmap"].path == tmp_path / "out" / "slide1.zarr"


def test_it_is_stopped_and_goes_on(qtbot, section):
    section._run.changed.emit(True)
    job = section.job
    qtbot.waitUntil(lambda: len(job.facts) >= 1, timeout=TIMEOUT)
    section._run.changed.emit(True)
    qtbot.waitUntil(lambda: job.over, timeout=TIMEOUT)
    assert len(job.facts) < 4
    qtbot.waitUntil(lambda: section._line.tooltip.endswith("stopped"))
    assert "slides" in section._line.tooltip
    section._run.changed.emit(True)
    assert section.job is not job
    qtbot.waitUntil(lambda: section.job.over, timeout=TIMEOUT)
    assert sorted(facts.status for facts in section.job.facts.values()) == [
        *["done"] * 3,
        "failed",
    ]


def test_what_is_missing_is_said(section, tmp_path):
    section._out.value = None
    section._run.changed.emit(True)
    assert section._line.tooltip == "no folder of results - choose one"
    section._out.value, section._slides.value = tmp_path / "out", tmp_path
    section._run.changed.emit(True)
    assert "no slide" in section._line.tooltip
    assert section.job is None
