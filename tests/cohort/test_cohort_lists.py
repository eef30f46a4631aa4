"""Which slides a cohort has, what it keeps of its request, what its tables say."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_wsi_heatmap.cohort.distribution import Distribution, added
from napari_wsi_heatmap.cohort.facts import SlideFacts, failed
from napari_wsi_heatmap.cohort.request import Request, begin_folder, keep_request
from napari_wsi_heatmap.cohort.slidelist import CohortSlide, list_slides
from napari_wsi_heatmap.cohort.table import write_limits, write_summary
from napari_wsi_heatmap.cohort.trying import FOLDER, attempt
from napari_wsi_heatmap.errors import (
    GridError,
    PlanMismatchError,
    SlideError,
    StoreError,
    StoreExistsError,
    StoreLockedError,
)
from napari_wsi_heatmap.slides import guard, probe, verdicts
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.slides.expendable import expendable_process, is_expendable


def test_a_folder_has_its_slides_by_name(tmp_path):
    for name in ("b.svs", "a.TIF", "notes.txt", ".hidden.svs"):
        (tmp_path / name).touch()
    assert [(s.name, s.path) for s in list_slides(tmp_path)] == [
        ("a", str(tmp_path / "a.TIF")),
        ("b", str(tmp_path / "b.svs")),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slide,mpp\nx/a.svs,0.5\n\nb.svs,\n", [("a", 0.5), ("b", None)]),
        ("id;\nb.svs\n", None),
        ("id,Path\n1, b.svs\n", [("b", None)]),
        ("a.svs\nb.v2.svs\n", [("a", None), ("b.v2", None)]),
    ],
)
def test_a_table_names_slides(tmp_path, text, expected):
    table = tmp_path / "list.csv"
    table.write_text(text)
    found = list_slides(table)
    if expected is None:
        assert [s.name for s in found] == ["id;", "b"]  # no table of ours: lines are paths
        return
    assert [(s.name, s.mpp) for s in found] == expected
    assert all(s.path.startswith(str(tmp_path)) for s in found)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name,mpp\na.svs,1\n", "no column of slides"),
        ("slide,mpp\na.svs,-1\n", "mpp is '-1'"),
        ("slide,mpp\n,1\n", "a row without a slide"),
        ("slide\nx/a.svs\ny/A.tif\n", "two slides are called"),
        ("", "no slide"),
        ("slide\n", "no slide"),
    ],
)
def test_a_table_that_cannot_be_is_refused_in_one_line(tmp_path, text, what):
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(SlideError, match=what) as caught:
        list_slides(table)
    assert "\n" not in str(caught.value)


def test_lists_take_paths_and_no_open_slides(tmp_path):
    found = list_slides([tmp_path / "a.svs", CohortSlide("b", "/b.tif", 0.25)])
    assert [s.name for s in found] == ["a", "b"]
    with pytest.raises(SlideError, match="a ArraySlide cannot be sent"):
        list_slides([ArraySlide([np.zeros((9, 9, 3), np.uint8)])])
    with pytest.raises(SlideError, match="no slide"):
        list_slides(tmp_path)


def test_a_folder_keeps_to_one_model_and_its_settings(tmp_path):
    request = Request("m", tmp_path / "out", {"window": 64, "readers": 3, "roi": None})
    begin_folder(request.out)
    keep_request(request.out, request.identity("abc"))
    begin_folder(request.out)
    same = Request("m", tmp_path / "out", {"window": 64, "memory": 100})
    keep_request(request.out, same.identity("abc"))
    with pytest.raises(PlanMismatchError, match="another model"):
        keep_request(request.out, same.identity("abd"))
    other = Request("m", tmp_path / "out", {"window": (64, 64), "tissue": np.ones((3, 3), bool)})
    with pytest.raises(PlanMismatchError, match="another tissue and another window"):
        keep_request(request.out, other.identity("abc"))
    (request.out / "cohort.json").write_text("{}")
    with pytest.raises(StoreError, match="cannot be read"):
        keep_request(request.out, same.identity("abc"))


def test_foreign_folders_and_wrong_settings_are_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(StoreExistsError, match="something else"):
        begin_folder(tmp_path)
    with pytest.raises(StoreExistsError, match="there is a file"):
        begin_folder(tmp_path / "thesis.txt")
    with pytest.raises(GridError, match="stride"):
        Request("m", tmp_path, {"stride": -1}).check()


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 60), elements=FLOATS), st.floats(0, 100), st.integers(0, 60)
)
def test_distributions_are_as_exact_as_they_say(values, percent, cut):
    parts = [{"c": Distribution.of(values[:cut])}, {"c": Distribution.of(values[cut:])}]
    found = added(parts)["c"]
    assert (found.count, found.least, found.largest) == (len(values), values.min(), values.max())
    rounding = 1e-14 * float(np.abs(values).max())  # of double precision, in another order
    assert found.mean == pytest.approx(values.astype(np.float64).mean(), rel=0, abs=rounding)
    ranked = np.sort(values)
    exact = float(ranked[round(percent / 100 * (len(values) - 1))])
    assert abs(found.percentile(percent) - exact) <= 2**-7 * abs(exact) + 1e-38
    assert found.to_json()["percentiles"]["50"] == found.percentile(50)


def test_distributions_leave_out_what_is_not_finite():
    found = Distribution.of([np.nan, 1, np.inf, -3, -0.0])
    assert (found.count, found.least, found.largest, found.mean) == (
        3,
        -3,
        1,
        pytest.approx(-2 / 3),
    )
    assert found.limits() == (pytest.approx(-3, rel=2**-7), pytest.approx(1, rel=2**-7))
    none = Distribution.of(np.full(5, np.nan))
    assert none.to_json() == {"count": 0, "min": None, "max": None, "mean": None, "limits": None}
    assert np.isnan(none.percentile(50))
    same = Distribution.of(np.full(5, 0.3, np.float32))
    assert same.limits() == (np.float32(0.3), np.float32(0.3))


def test_tables_are_whole_and_plain(tmp_path):
    rows = [
        SlideFacts("a", "done", 20, 0, 1.5, "tumor", 0.25, path="/a,b.svs"),
        failed("b", StoreLockedError('line "one"\nline two', "/b"), path="/b.svs"),
    ]
    write_summary(tmp_path / "summary.csv", rows)
    with (tmp_path / "summary.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found[0]["windows"] == "20"
    assert (found[0]["prediction"], found[0]["score"]) == ("tumor", "0.25")
    assert found[0]["path"] == "/a,b.svs"
    assert found[1]["status"] == "failed"
    assert found[1]["error"].startswith('line "one" line two')
    assert rows[1].locked
    write_limits(tmp_path / "limits.json", {"tumor": Distribution.of([0.0, 1.0])}, 1)
    record = json.loads((tmp_path / "limits.json").read_text())
    assert record["channels"]["tumor"]["max"] == 1
    assert "0.8 %" in record["exactness"]


def test_errors_are_one_line_each():
    assert failed("a", MemoryError()).error.startswith("memory ran out")
    assert failed("a", KeyError("x\ny")).error == "unexpected KeyError: 'x\\ny'"


def test_a_mark_stays_only_where_a_process_died(tmp_path):
    with attempt(tmp_path, "a/b") as died:
        assert not died
        assert len(list((tmp_path / FOLDER).iterdir())) == 1
    with pytest.raises(ValueError, match="x"), attempt(tmp_path, "a/b") as died:
        raise ValueError("x")
    with attempt(tmp_path, "a/b") as died:
        assert not died
        # As a killed process would leave it: the inner one finds the mark of the outer one.
        with attempt(tmp_path, "a/b") as again:
            assert again


def test_expendable_processes_ask_no_child(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(probe, "ask", lambda path: asked.append(path) or probe.Verdict(asked=True))
    monkeypatch.setattr(verdicts, "recall", lambda fingerprint: (False, None))
    with expendable_process():
        assert is_expendable()
        assert guard.check_child("a.svs", "f1") is None
        assert asked == []
        with expendable_process(False):
            guard.check_child("b.svs", "f2")
    guard.check_child("c.svs", "f3")
    assert asked == ["b.svs", "c.svs"]
