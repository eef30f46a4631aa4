"""Choosing a model file in the dock: code is asked about first, and Cancel means no."""

from __future__ import annotations

import hashlib
import json

import pytest
from live import needs_display
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QInputDialog, QMessageBox

from made_files import small, write_safetensors, write_script
from napari_wsi_heatmap._napari import off_gui
from napari_wsi_heatmap._napari.model_files import add_model_file
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.widget import HeatmapWidget
from napari_wsi_heatmap.models.trust import is_trusted
from timm_here import import_timm

pytestmark = needs_display


@pytest.fixture
def script(tmp_path):
    return write_script(tmp_path / "chosen.pt", small())


@pytest.fixture
def added(qtbot):
    """Names of models that were added; they leave with the test."""
    names = []
    yield names
    for name in names:
        MODELS.unregister(name)


def box():
    found = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox)]
    return next((one for one in found if one.isVisible()), None)


def answer(act, seen):
    """Answer the next dialog with ``act(box)``; its text goes to `seen`."""

    def look():
        shown = box()
        if shown is None:
            QTimer.singleShot(20, look)
        else:
            seen.append(shown.text())
            act(shown)

    QTimer.singleShot(20, look)


def click(text):
    return lambda shown: next(b for b in shown.buttons() if text in b.text()).click()


def test_trust_loads_and_remembers(qtbot, script, added):
    seen = []
    answer(click("Trust"), seen)
    add_model_file(script, None, added.append)
    qtbot.waitUntil(lambda: bool(added), timeout=20_000)
    sha256 = hashlib.sha256(script.read_bytes()).hexdigest()
    assert str(script) in seen[0]
    assert sha256 in seen[0]
    assert is_trusted(sha256)
    assert added == ["chosen"]
    assert str(script) in MODELS.describe("chosen")
    add_model_file(script, None, added.append)  # no question any more
    qtbot.waitUntil(lambda: len(added) == 2, timeout=20_000)
    assert added == ["chosen", "chosen"]


@pytest.mark.parametrize("how", ["cancel", "enter", "escape"])
def test_anything_else_is_a_no(qtbot, script, added, how):
    acts = {
        "cancel": click("Cancel"),
        "enter": lambda shown: qtbot.keyClick(shown, Qt.Key.Key_Return),
        "escape": lambda shown: qtbot.keyClick(shown, Qt.Key.Key_Escape),
    }
    seen = []
    answer(acts[how], seen)
    add_model_file(script, None, added.append)
    qtbot.waitUntil(lambda: bool(seen) and box() is None, timeout=20_000)
    qtbot.wait(100)
    assert added == []
    assert "chosen" not in MODELS.names
    assert not is_trusted(hashlib.sha256(script.read_bytes()).hexdigest())


def test_another_file_of_that_name_gets_a_number(qtbot, script, added, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_script(tmp_path / "other" / "chosen.pt", small(1))
    for path in (script, other):
        before = len(added)
        answer(click("Trust"), [])
        add_model_file(path, None, added.append)
        qtbot.waitUntil(lambda n=before: len(added) > n, timeout=20_000)
    assert added == ["chosen", "chosen 2"]


def test_weights_ask_for_their_architecture(qtbot, tmp_path, added, monkeypatch):
    import_timm()
    path = write_safetensors(tmp_path / "a.safetensors", small())
    told = []
    monkeypatch.setattr(off_gui, "tell_warning", told.append)
    answers = [("no such net", True), ("", False)]
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: answers.pop())
    add_model_file(path, None, added.append)
    qtbot.waitUntil(lambda: len(answers) == 1, timeout=20_000)
    qtbot.wait(50)
    assert (added, told) == ([], [])
    add_model_file(path, None, added.append)
    qtbot.waitUntil(lambda: bool(told), timeout=20_000)
    assert "no such net" in told[0]


def test_what_is_no_model_is_told_in_one_line(qtbot, tmp_path, added, monkeypatch):
    told = []
    monkeypatch.setattr(off_gui, "tell_warning", told.append)
    (tmp_path / "a.pt").write_bytes(b"<!DOCTYPE html>")
    add_model_file(tmp_path / "a.pt", None, added.append)
    qtbot.waitUntil(lambda: bool(told), timeout=20_000)
    assert "an HTML page" in told[0]
    assert added == []


def test_the_dock_chooses_what_was_added(qtbot, viewer, tmp_path, added, monkeypatch):
    path = write_script(tmp_path / "docked.pt", small())
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    dock = HeatmapWidget(viewer)
    seen = []
    answer(click("Trust"), seen)
    dock._form._models.from_file.trigger()
    qtbot.waitUntil(lambda: dock._form.model_name == "docked", timeout=20_000)
    added.append("docked")
    assert str(path) in seen[0]
    assert str(path) in dock._form._about.tooltip
    dock.native.deleteLater()


def test_a_repository_by_its_address(qtbot, viewer, tmp_path, added, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--lab--zoo-net" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    path = write_script(folder / "torchscript_model.pt", small())
    config = {
        "num_classes": 2, "class_names": ["a", "b"], "patch_size_pixels": 32,
        "spacing_um_px": 0.5, "transform": [{"name": "ToTensor"}],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    address, offered = f"hf://lab/zoo-net@{'0' * 40}", []

    def typed(parent, title, label, names, *_):
        offered.extend(names)
        return address, True

    monkeypatch.setattr(QInputDialog, "getItem", typed)
    dock, seen = HeatmapWidget(viewer), []
    answer(click("Trust"), seen)
    dock._form._models.by_name.trigger()
    qtbot.waitUntil(lambda: dock._form.model_name == "zoo-net", timeout=20_000)
    added.append("zoo-net")
    assert str(path) in seen[0]
    assert "uni" in offered
    dock.native.deleteLater()


def test_an_encoder_whose_weights_are_not_there(qtbot, viewer, tmp_path, monkeypatch):
    told = []
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(off_gui, "tell_warning", told.append)
    monkeypatch.setattr(QInputDialog, "getItem", lambda *_: ("uni", True))
    dock = HeatmapWidget(viewer)
    dock._form._models.by_name.trigger()
    qtbot.waitUntil(lambda: bool(told), timeout=20_000)
    assert "the weights of UNI are not in the cache" in told[0]
    assert "hf://MahmoodLab/UNI@" in told[0]
    dock.native.deleteLater()
