"""Output folders: whose they are, and one line for whatever is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_grey, noise_slide, quarter_means
from napari_wsi_heatmap import growing, store
from napari_wsi_heatmap.errors import (
    PlanMismatchError,
    StoreError,
    StoreExistsError,
    StoreFullError,
)
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.runfolder import folder_of

SETTINGS = {"window": 64, "tissue": "none", "level": 0, "batch_size": 4, "roi": (0, 0, 300, 400)}


def small_slide():
    return noise_slide(300, 440)


def begin(out, model="tissue", stop=3):
    pieces = wh.run(small_slide(), model, out=out, **SETTINGS)
    for _ in range(stop):
        next(pieces)
    pieces.close()
    return out


def go_on(out, model="tissue"):
    return wh.compute_heatmap(small_slide(), model, out=out, progress=False, **SETTINGS)


# where it lies


def test_a_path_is_absolute_and_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder_of("a.zarr/") == folder_of(b"a.zarr") == tmp_path / "a.zarr"
    assert folder_of("~/a.zarr") == tmp_path / "home" / "a.zarr"
    (tmp_path / "~").mkdir()
    assert folder_of(Path("~")) == tmp_path / "~"


@pytest.mark.parametrize("path", ["", "a\0b", 5, None, 1.5])
def test_what_is_no_path(path):
    with pytest.raises(StoreError, match="is no path"):
        folder_of(path)


def test_a_change_of_the_working_folder_does_not_move_an_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pieces = wh.run(small_slide(), mean_grey, out="a.zarr", **SETTINGS)
    next(pieces)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    list(pieces)
    assert wh.open_heatmap(tmp_path / "a.zarr").run["status"] == "done"


@pytest.mark.parametrize("name", ["a b.zarr", "äöü µ.zarr", "a\nb.zarr", "\udcff.zarr"])
def test_names_that_are_unusual(tmp_path, name):
    begin(tmp_path / name)
    assert go_on(tmp_path / name).run["status"] == "done"
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(PlanMismatchError) as caught:
        go_on(tmp_path / name, mean_grey)
    assert len(str(caught.value).splitlines()) == 1


def test_links(tmp_path):
    (tmp_path / "link").symlink_to(begin(tmp_path / "a.zarr"))
    assert go_on(tmp_path / "link").run["status"] == "done"
    assert wh.open_heatmap(tmp_path / "a.zarr").run["status"] == "done"
    for target in ("nowhere", "loop"):
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to(tmp_path / target)
        with pytest.raises(StoreExistsError, match="link to nothing"):
            go_on(tmp_path / "loop")


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(StoreFullError, match="File name too long"):
        go_on(tmp_path / ("a" * 300))


def test_an_output_that_is_something_else_is_refused_before_the_model_is_tried(tmp_path):
    calls = []
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(StoreExistsError):
        go_on(tmp_path, lambda batch: calls.append(batch))
    assert not calls


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user without all rights")
def test_a_folder_that_nobody_may_look_into(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    for out in (tmp_path / "closed", tmp_path / "closed" / "a.zarr"):
        with pytest.raises(StoreFullError, match="Permission denied"):
            go_on(out)


# what is in it


def edited(**changes):
    """Change the record; Ellipsis takes a key away."""

    def damage(out):
        record = json.loads((out / "run.json").read_text()) | changes
        kept = {key: value for key, value in record.items() if value is not ...}
        (out / "run.json").write_text(json.dumps(kept))

    return damage


def written(name, text):
    return lambda out: (out / name).write_text(text)


def taken_away(name):
    def damage(out):
        (shutil.rmtree if (out / name).is_dir() else os.unlink)(out / name)

    return damage


def resized(name):
    def damage(out):
        metadata = json.loads((out / name / "zarr.json").read_text())
        metadata["shape"][-1] = 3
        (out / name / "zarr.json").write_text(json.dumps(metadata))

    return damage


DAMAGES = {
    "truncated": lambda out: os.truncate(out / "run.json", 200),
    "empty": written("run.json", ""),
    "deep": written("run.json", "[" * 100_000),
    "a list": written("run.json", "[]"),
    "another program's": written("run.json", "{}"),
    "binary": lambda out: (out / "run.json").write_bytes(b"\xff\xfe\x00"),
    "a newer version": edited(format_version=2),
    "no version": edited(format_version=...),
    "no plan": edited(plan=...),
    "plan a list": edited(plan=[]),
    "failed junk": edited(failed=[[1]]),
    "seconds null": edited(seconds=None),
    "no group": taken_away("zarr.json"),
    "group junk": written("zarr.json", "{"),
    "no values": taken_away("0"),
    "no states": taken_away("state"),
    "states junk": written("state/zarr.json", "[]"),
    "fewer values": resized("0"),
    "fewer states": resized("state"),
}
ONLY_RESUMED = {
    "no settings": edited(settings=...),
    "settings null": edited(settings=None),
    "a setting of tomorrow": edited(settings={"colour": "blue"}),
    "no slide": edited(slide=None),
    "no model": edited(model=...),
}


def one_line_of(function):
    with pytest.raises(StoreError) as caught:
        function()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.count(" - ") == 2, "what, where, what to do"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_output_is_one_line_and_is_not_overwritten(tmp_path, damage):
    damage(begin(tmp_path / "a.zarr"))
    before = sorted(tmp_path.rglob("*"))
    one_line_of(lambda: wh.resume(tmp_path / "a.zarr", slide=small_slide()))
    one_line_of(lambda: go_on(tmp_path / "a.zarr"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ONLY_RESUMED.values(), ids=ONLY_RESUMED)
def test_a_record_that_does_not_say_how_to_resume(tmp_path, damage):
    damage(begin(tmp_path / "a.zarr"))
    one_line_of(lambda: wh.resume(tmp_path / "a.zarr", slide=small_slide()))


@pytest.mark.parametrize("name", ["truncated", "a newer version", "no values", "fewer states"])
def test_a_damaged_output_is_not_opened(tmp_path, name):
    DAMAGES[name](begin(tmp_path / "a.zarr"))
    one_line_of(lambda: wh.open_heatmap(tmp_path / "a.zarr"))


def test_what_a_later_version_adds_is_left_alone(tmp_path):
    edited(colour="blue")(begin(tmp_path / "a.zarr"))
    assert go_on(tmp_path / "a.zarr").run["status"] == "done"


# chunks


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(GrowingMap, "chunk", 4)
    monkeypatch.setattr("napari_wsi_heatmap.dense.DenseMap.chunk", 16)
    monkeypatch.setattr(store, "STATE_CHUNK", 4)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("change", [lambda data: data[:10], lambda data: b"", flipped, None])
@pytest.mark.parametrize("array", ["0", "state"])
@pytest.mark.parametrize("model", [mean_grey, quarter_means])
def test_damaged_chunks_are_computed_again(tmp_path, array, change, model):
    out = tmp_path / "a.zarr"
    whole = go_on(out, model)
    chunks = sorted(file for file in (out / array / "c").rglob("*") if file.is_file())
    for file in chunks[1:3]:
        file.unlink() if change is None else file.write_bytes(change(file.read_bytes()))
    if change is not None:
        with pytest.raises(StoreError, match=r"the heatmap is damaged.*resume the run"):
            wh.open_heatmap(out).values  # noqa: B018
    run = wh.resume(out, slide=small_slide(), model=model)
    computed = sum(len(piece) for piece in run.pieces())
    assert 0 < computed < run.plan.grid.size
    found = wh.open_heatmap(out)
    assert np.array_equal(found.values, whole.values, equal_nan=True)
    assert np.array_equal(found.state, whole.state)


@pytest.mark.usefixtures("small_chunks")
def test_the_record_tells_of_damaged_windows(tmp_path):
    go_on(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(b"")
    assert "16 windows were saved damaged" in go_on(tmp_path / "a.zarr").run["notices"][-1]


def test_values_that_the_model_says_are_nan_are_not_damage(tmp_path):
    go_on(tmp_path / "a.zarr", nothing)
    run = wh.resume(tmp_path / "a.zarr", slide=small_slide(), model=nothing)
    assert list(run.pieces()) == []


def nothing(batch):
    return batch.mean((1, 2, 3)) * float("nan")


def test_a_scratch_disk_without_room_is_one_line(monkeypatch):
    monkeypatch.setattr(growing, "SCRATCH_BYTES", 100)

    def full(*args):
        raise OSError(28, "No space left on device")

    assert go_on(None).values.shape == (1, 5, 7)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(StoreFullError, match=r"no room for a map of .* MB.*TMPDIR"):
        go_on(None)
