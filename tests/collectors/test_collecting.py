"""Collecting: a file for each slide, whole and valid whatever happens, and gone on with."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import napari_wsi_heatmap as wh
from made import mean_rgb, noise, noise_slide, quarter_means
from made_slides import write_tiff
from napari_wsi_heatmap.collectors.collector import CollectedPiece, Collector
from napari_wsi_heatmap.errors import (
    ExportError,
    GridError,
    HeatmapError,
    ModelOutputError,
    PlanMismatchError,
    SlideChangedError,
    StoreError,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
)
from napari_wsi_heatmap.imports.pdmcsv import read_rows
from napari_wsi_heatmap.launch import prepare
from streams.stream_made import mean_rgb_of, naive, slides

FORMATS = ["csv", "pdmcsv", "store", "h5", "parquet", "geojson"]


def read(path, slide, format):
    """{(y, x): values} of a slide's file."""
    if format == "csv":
        table = pd.read_csv(path)
        assert list(table.columns) == ["minx", "miny", "width", "height", "r", "g", "b"]
        assert (table.width == 64).all()
        places, values = table[["miny", "minx"]].to_numpy(), table[["r", "g", "b"]].to_numpy()
    elif format == "pdmcsv":
        rows, notices = read_rows(path)
        assert notices == ()
        places, values = [row.corner for row in rows], [row.values for row in rows]
    else:
        heatmap = wh.open_heatmap(path, **({} if format == "store" else {"slide": slide}))
        index, values = heatmap.window_values()
        places = heatmap.positions.reshape(-1, 2)[index]
        if format in ("store", "parquet"):
            assert heatmap.names == ("r", "g", "b")
    keys = [tuple(map(round, place)) for place in np.asarray(places).tolist()]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, np.asarray(values, np.float32), strict=True))


def assert_all_there(folder, made, format="csv"):
    for name, slide in made.items():
        found = read(folder_file(folder, name), slide, format)
        wanted = {at: patch.double().mean((1, 2)) for at, patch in naive(slide).items()}
        assert found.keys() == wanted.keys()
        for at, value in wanted.items():
            np.testing.assert_array_equal(found[at], value.float().numpy()[: len(found[at])])


def folder_file(folder, name):
    files = [p for p in folder.glob(f"{name}.*") if not p.name.endswith((".json", ".rows"))]
    return files[0] if files else None


def stream_of(made, **settings):
    return wh.stream(made, window=64, batch_size=8, **settings)


def collect(made, out, process=mean_rgb_of, format="csv", **asked):
    return wh.collect(stream_of(made), process, out, format=format, names=["r", "g", "b"], **asked)


@pytest.mark.parametrize("format", FORMATS)
def test_one_file_a_slide_named_by_it_with_every_window(tmp_path, format):
    made = {name: slide for name, slide in slides(4).items() if name != "s2"}
    done = collect(made, tmp_path / "out", format=format)
    assert done.status == "done"
    assert done.windows == {name: len(naive(slide)) for name, slide in made.items()}
    assert {path.stem for path in done.files.values()} == set(made)
    assert_all_there(tmp_path / "out", made, format)
    record = json.loads((tmp_path / "out" / "collected.json").read_text())
    assert record["status"] == "done"
    assert {about["status"] for about in record["slides"].values()} == {"done"}
    assert not list((tmp_path / "out").glob("*.rows"))


def test_a_slide_that_is_none_is_named_and_the_others_complete(tmp_path, caplog):
    (tmp_path / "broken.svs").write_bytes(b"no slide at all")
    made = slides(2)
    with caplog.at_level(logging.WARNING):
        done = collect({"broken": tmp_path / "broken.svs", **made}, tmp_path / "out")
    assert (
        set(done.failed)
        == {"broken"}
        == set(json.loads((tmp_path / "out" / "collected.json").read_text())["failed"])
    )
    assert_all_there(tmp_path / "out", made)


def test_gone_on_with_where_only_a_slide_that_is_none_is_left(tmp_path):
    (tmp_path / "broken.svs").write_bytes(b"no slide at all")
    made = {**slides(1), "broken": tmp_path / "broken.svs"}
    first = collect(made, tmp_path / "out")
    second = collect(made, tmp_path / "out")
    assert second == first
    assert set(second.failed) == {"broken"}


def red(x, slides, windows):
    return x[:, 0].mean((1, 2))


def green(x, slides, windows):
    return x[:, 1].mean((1, 2))


def test_values_of_two_functions_are_not_mixed(tmp_path):
    made = slides(1)
    wh.collect(wh.stream(made, window=64), red, tmp_path / "out")
    with pytest.raises(PlanMismatchError, match=r"red.*green"):
        wh.collect(wh.stream(made, window=64), green, tmp_path / "out")


class Until(Collector):
    """Ends, or fails, after so many windows."""

    about: ClassVar = {"function": "mean_rgb_of"}  # one goes on where the other stopped

    def __init__(self, windows, error=None):
        self.left, self.error, self.ends, self.seen = windows, error, 0, 0

    def process(self, batch):
        self.left -= len(batch.x)
        self.seen += len(batch.x)
        if self.left <= 0 and self.error is not None:
            raise self.error
        return mean_rgb_of(*batch)

    @property
    def finished(self):
        return self.left <= 0

    def end(self):
        self.ends += 1


ENDS = [(None, format) for format in FORMATS] + [
    (ZeroDivisionError(), "csv"),
    (ZeroDivisionError(), "parquet"),
    (KeyboardInterrupt(), "pdmcsv"),
    (KeyboardInterrupt(), "store"),
]


@pytest.mark.parametrize(("error", "format"), ENDS)
def test_ended_early_files_are_valid_and_gone_on_with(tmp_path, format, error):
    made, out = {name: slides(2)[name] for name in ("s0", "s1")}, tmp_path / "out"
    first = Until(40, error)
    if error is None:
        assert collect(made, out, first, format).status == "ended"
    else:
        with pytest.raises(type(error)):
            collect(made, out, first, format)
    assert first.ends == 1
    kept = first.seen - (0 if error is None else 8)
    files = {name: folder_file(out, name) for name in made}
    found = [len(read(path, made[name], format)) for name, path in files.items() if path]
    assert sum(found) == kept
    second = Until(10**6)
    assert collect(made, out, second, format).status == "done"
    assert second.seen == sum(len(naive(slide)) for slide in made.values()) - kept
    assert_all_there(out, made, format)
    third = Until(10**6)
    collect(made, out, third, format)
    assert third.seen == 0


SCRIPT = """
import sys, time
import napari_wsi_heatmap as wh

class Slow(wh.Collector):
    about = {"function": "mean_rgb_of"}

    def process(self, batch):
        time.sleep(0.05)
        print(len(batch.x), flush=True)
        return batch.x.double().mean((2, 3)).float()

paths, out, format = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
stream = wh.stream(paths, window=64, batch_size=8)
wh.collect(stream, Slow, out, format=format, names=list("rgb"), flush_s=0.2)
"""


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_killed_it_is_gone_on_with(tmp_path, format):
    made = {}
    for i in range(2):
        path = write_tiff(tmp_path / f"{i}.tif", [noise(512, 500 + i, seed=i)], tile=128)
        made[str(path)] = path
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", SCRIPT, ",".join(made), str(out), format]
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    with run:
        assert run.stdout.readline() == b"8\n"
        grown = out / f"0.{'csv' if format == 'csv' else 'parquet.rows'}"
        while not (grown.exists() and grown.stat().st_size > 300):
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    with grown.open("ab") as file:
        file.write(b"0,0,6")  # what a system that goes down in a write may leave
    before = Until(10**6)
    stream = wh.stream(list(made), window=64, batch_size=8)
    done = wh.collect(stream, before, out, format=format, names=list("rgb"))
    assert before.seen < 128
    assert done.windows == dict.fromkeys(made, 64)
    for name, path in done.files.items():
        with wh.open_slide(name) as slide:
            found = read(path, slide, format)
            assert found.keys() == naive(slide).keys()


@pytest.mark.parametrize("format", ["csv", "pdmcsv", "parquet"])
@pytest.mark.parametrize("left", [b"", b"0,0"])
def test_killed_before_anything_was_on_the_disk(tmp_path, format, left):
    made, out = {"s0": slides(1)["s0"]}, tmp_path / "out"
    collect(made, out, Until(1), format)
    for grown in out.glob(f"s0.{format}*"):
        if not grown.name.endswith(".json"):
            grown.write_bytes(left) if grown.suffix in (".rows", f".{format}") else None
    collect(made, out, format=format)
    assert_all_there(out, made, format)


def test_rows_are_on_the_disk_within_seconds(tmp_path):
    sizes = []

    def watch(x, names, windows):
        until = time.monotonic() + 20
        while (
            len(sizes) == 1
            and time.monotonic() < until
            and not (
                (tmp_path / "out" / "s0.csv").exists()
                and (tmp_path / "out" / "s0.csv").stat().st_size > 300
            )
        ):
            time.sleep(0.01)  # nothing else comes meanwhile
        path = tmp_path / "out" / "s0.csv"
        sizes.append(path.stat().st_size if path.exists() else 0)
        return mean_rgb_of(x, names, windows)

    collect(slides(1), tmp_path / "out", watch, flush_s=0.05)
    assert sizes[1] > 300


def test_a_run_of_the_engine_is_collected_like_a_stream(tmp_path):
    made, asked = slides(1), {"window": 64, "tissue": "none", "batch_size": 16}
    run = prepare(made["s0"], mean_rgb, **asked)
    done = wh.collect(run, out=tmp_path / "out")
    (path,) = done.files.values()
    mine, exported = tmp_path / "a.csv", path
    run.heatmap.export(mine)
    assert sorted(mine.read_text().splitlines()) == sorted(exported.read_text().splitlines())
    again = wh.collect(prepare(made["s0"], mean_rgb, **asked), out=tmp_path / "out")
    assert again.windows == done.windows
    with pytest.raises(HeatmapError, match="a run has its model"):
        wh.collect(run, mean_rgb_of, tmp_path / "b")


def test_a_module_is_run_as_the_engine_runs_it(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 8, 8), torch.nn.Dropout(0.9), torch.nn.Flatten(),
        torch.nn.LazyLinear(2),
    )  # fmt: skip
    module(torch.zeros(2, 3, 64, 64))
    slide = noise_slide(256, 320)
    done = wh.collect(stream_of({"a": slide}), module, tmp_path / "out", names=["no", "yes"])
    assert module.training
    heatmap = wh.compute_heatmap(slide, module, window=64, tissue="none", progress=False)
    table = pd.read_csv(done.files["a"])
    np.testing.assert_allclose(
        table[["no", "yes"]].to_numpy(), heatmap.values.reshape(2, -1).T, atol=1e-6
    )
    record = json.loads((tmp_path / "out" / "collected.json").read_text())
    assert len(record["plan"]["collector"]["sha256"]) == 64


def test_maps_go_into_pdmcsv_and_nowhere_else(tmp_path):
    maps = lambda x, slides, windows: quarter_means(x)  # noqa: E731
    done = collect({"a": noise_slide(128, 192)}, tmp_path / "out", maps, "pdmcsv")
    rows, _ = read_rows(done.files["a"])
    assert {row.shape for row in rows} == {(3, 4, 4)}
    for format in ("csv", "h5", "store"):
        with pytest.raises(ExportError, match="no place for maps"):
            collect({"a": noise_slide(128, 192)}, tmp_path / format, maps, format)


class Brightest(Collector):
    """Pieces of some windows only: the brighter half of each batch."""

    def process(self, batch):
        means = batch.x.mean((1, 2, 3)).numpy()
        for name in set(batch.slides):
            mine = [i for i, other in enumerate(batch.slides) if other == name]
            kept = [i for i in mine if means[i] >= np.median(means)]
            yield CollectedPiece(name, batch.windows[kept], means[kept])


class Keeping(Brightest):
    def process(self, batch):
        return list(super().process(batch))


def test_pieces_of_some_windows_and_nothing_at_all(tmp_path):
    done = wh.collect(stream_of(slides(2)), Keeping, tmp_path / "some")
    assert 0 < sum(done.windows.values()) < sum(len(naive(s)) for s in slides(2).values())
    nothing = wh.collect(stream_of(slides(2)), lambda *batch: None, tmp_path / "none")
    assert nothing.files == {}
    assert nothing.status == "done"


def test_random_windows_are_collected_but_never_gone_on_with(tmp_path):
    stream = wh.stream(slides(3), window=32, sampling="random", epoch_size=100, batch_size=10)
    done = wh.collect(stream, mean_rgb_of, tmp_path / "out", format="parquet")
    assert 90 <= sum(done.windows.values()) <= 100
    with pytest.raises(GridError, match="begin anew"):
        wh.collect(stream, mean_rgb_of, tmp_path / "out", format="parquet")


def test_a_bar_counts_what_is_left(tmp_path, capsys):
    made, out = slides(3), tmp_path / "out"
    left = sum(len(naive(slide)) for slide in made.values()) - 16
    collect(made, out, Until(16))
    assert capsys.readouterr().err == ""
    collect(made, out, progress=True)
    assert f"{left}/{left}" in capsys.readouterr().err


def test_values_of_features_with_names_by_number(tmp_path):
    stream = stream_of({"a": noise_slide(128, 128)})
    done = wh.collect(stream, mean_rgb_of, tmp_path / "h5", format="h5", names="rgb")
    with h5py.File(done.files["a"]) as file:
        assert file["values"].shape == (4, 3)
        assert list(file["values"].attrs["names"]) == ["rgb_0", "rgb_1", "rgb_2"]


def test_what_cannot_be_gone_on_with(tmp_path):
    made, out = {"a": noise_slide(128, 192)}, tmp_path / "out"
    collect(made, out, Until(1))
    with pytest.raises(PlanMismatchError, match="stride"):
        wh.collect(wh.stream(made, window=64, stride=32), mean_rgb_of, out, names="rgb")
    with pytest.raises(PlanMismatchError, match="format"):
        collect(made, out, format="h5")
    with pytest.raises(SlideChangedError, match="not the one"):
        collect({"a": noise_slide(128, 190)}, out)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").touch()
    with pytest.raises(StoreExistsError, match="something else"):
        collect(made, tmp_path / "foreign")
    with pytest.raises(StoreError, match="no format 'doc'"):
        collect(made, tmp_path / "doc", format="doc")


def test_slides_whose_files_are_called_alike_are_not_taken_for_each_other(tmp_path):
    for folder, sides in (("x", (128, 130)), ("y", (192, 200))):
        (tmp_path / folder).mkdir()
        write_tiff(tmp_path / folder / "a.tif", [noise(*sides)], tile=64)
    one, other = str(tmp_path / "x" / "a.tif"), str(tmp_path / "y" / "a.tif")
    done = wh.collect(wh.stream([one, other], window=64), mean_rgb_of, tmp_path / "out")
    assert [path.name for path in done.files.values()] == ["a.csv", "a-2.csv"]
    assert done.windows == {one: 6, other: 12}
    with pytest.raises(SlideChangedError, match="not the one"):
        wh.collect(wh.stream([other], window=64), mean_rgb_of, tmp_path / "out")
    moved = tmp_path / "moved" / "a.tif"
    (tmp_path / "x").rename(tmp_path / "moved")
    again = wh.collect(wh.stream([str(moved), other], window=64), mean_rgb_of, tmp_path / "out")
    assert list(again.windows.values()) == [6, 12]


def test_only_one_writes(tmp_path):
    def other(x, slides, windows):
        with pytest.raises(StoreLockedError):
            collect({"a": noise_slide(64, 64)}, tmp_path / "out")
        return x.mean((1, 2, 3))

    wh.collect(stream_of({"a": noise_slide(64, 64)}), other, tmp_path / "out", names="rgb")


@pytest.mark.parametrize("made", [torch.zeros(3), np.zeros((2, 2, 2)), "text", {"a": 1}, [1, 2, 3]])
def test_values_that_are_none(tmp_path, made):
    with pytest.raises(ModelOutputError, match="return"):
        collect({"a": noise_slide(64, 128)}, tmp_path / "out", lambda *batch: made)


def test_a_full_disk_leaves_whole_rows_and_is_gone_on_with(tmp_path, monkeypatch):
    sync, full, path = os.fsync, [1], tmp_path / "out" / "s0.csv"

    def fsync(file):
        if full and path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            full.clear()
            assert path.stat().st_size > 0
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreFullError, match="No space left"):
        collect(slides(2), tmp_path / "out")
    assert path.stat().st_size == 0
    collect(slides(2), tmp_path / "out")
    assert_all_there(tmp_path / "out", slides(2))
