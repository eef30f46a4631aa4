"""A run that dies at any change it makes to the disk is continued to the same bits.

Whatever is renamed into place in an output (records, chunks, metadata) is one point. At each in
turn the machine dies or the disk fills up; then the output is opened, continued and compared.
"""

from __future__ import annotations

import os
from contextlib import closing, nullcontext, suppress

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_grey, noise_slide
from made_features import naive_features, with_features
from napari_wsi_heatmap import output, store
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import StoreError, StoreFullError
from napari_wsi_heatmap.features import UnsavedFeatures
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.states import DONE, state_of
from napari_wsi_heatmap.writer import StoreWriter

SETTINGS = {"window": 32, "stride": 16, "tissue": "none", "batch_size": 8}


class Killed(BaseException):
    """Nothing of ours may catch it, as nothing catches a kill −9."""


class Disk:
    """Counts what is renamed into place, and refuses from one point on."""

    def __init__(self, monkeypatch):
        self.points, self.last, self.error = 0, None, None
        self._rename = os.replace
        monkeypatch.setattr(os, "replace", self._replace)

    def _replace(self, source, target):
        if self.last is not None and self.points >= self.last:
            # A new one each time: one that is raised again keeps every frame it went through.
            raise type(self.error)(*self.error.args)
        self.points += 1
        self._rename(source, target)

    def fail_after(self, points, error):
        self.points, self.last, self.error = 0, points, error

    def heal(self):
        self.points, self.last = 0, None


class PatientWriter(StoreWriter):
    """Saves when the test says so, not by the clock: the points are the same in every run."""

    def __init__(self, saved, growing, note):
        super().__init__(saved, growing, note, interval=3600)


@pytest.fixture
def disk(monkeypatch):
    for kind in (GrowingMap, DenseMap):
        monkeypatch.setattr(kind, "chunk", 4)
    monkeypatch.setattr(DenseMap, "state_chunk", 4)
    monkeypatch.setattr(UnsavedFeatures, "chunk", 4)
    monkeypatch.setattr(store, "STATE_CHUNK", 4)
    monkeypatch.setattr(store, "COARSEST", 8)
    monkeypatch.setattr(output, "StoreWriter", PatientWriter)
    return Disk(monkeypatch)


def quarters(batch):
    return batch.reshape(len(batch), 3, 4, -1, 4, batch.shape[3] // 4).mean((1, 3, 5))[:, None]


def compute(function, out, size=(70, 100), **settings):
    """Heatmap, or heatmaps of several functions; all saved after each piece."""
    run = prepare(noise_slide(*size), function, out=out, **{**SETTINGS, **settings})
    with closing(run.pieces()) as pieces:
        for _ in pieces:
            for share in run.shares:
                share.output.save()
    return run.heatmaps if isinstance(function, list) else run.heatmap


def refuse_lies(out, whole):
    """What an output that was not closed calls done must be there, and right."""
    try:
        found = wh.open_heatmap(out)
    except StoreError as error:
        assert "no heatmap" in str(error)  # noqa: PT017 - most points come after the record
        return
    done = state_of(found.state) == DONE
    if not whole.frame.dense:
        assert np.array_equal(found.values[:, done], whole.values[:, done])
    if whole.features is not None:
        assert np.array_equal(found.features[:][done], whole.features[:][done])


def refuse_differences(out, whole, point):
    """An output that was continued after a point."""
    found = wh.open_heatmap(out)
    assert np.array_equal(found.values, whole.values, equal_nan=True), f"point {point}"
    assert np.array_equal(found.state, whole.state), f"point {point}"
    if whole.features is not None:
        assert np.array_equal(found.features[:], whole.features[:]), f"point {point}"
    assert found.run["status"] == "done"
    assert not list(out.rglob("*.partial")) + list(out.glob(".run.json.*"))


def ending(error, *, last):
    """How a run ends then; the last record only adds the seconds to what is done already."""
    if isinstance(error, Killed):
        return pytest.raises(Killed)
    return nullcontext() if last else pytest.raises(StoreFullError)


FUNCTIONS = {
    "values": mean_grey,
    "dense": quarters,
    "features": with_features(),
    "dense and features": with_features(dense=True),
}
FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("name", "error"),
    # On a full disk the last is in `test_disk_full`.
    [*((name, Killed()) for name in FUNCTIONS), *((name, FULL) for name in list(FUNCTIONS)[:-1])],
)
def test_every_point(tmp_path, disk, name, error):
    function = FUNCTIONS[name]
    whole = compute(function, tmp_path / "whole.zarr")
    points = disk.points
    assert points > 20
    if whole.features is not None:
        expected = naive_features(whole, noise_slide(70, 100))
        np.testing.assert_allclose(whole.features[:], expected, rtol=1e-6)
    for point in range(points):
        out = tmp_path / f"{point}.zarr"
        disk.fail_after(point, error)
        with ending(error, last=point == points - 1):
            compute(function, out)
        disk.heal()
        refuse_lies(out, whole)
        compute(function, out)
        refuse_differences(out, whole, point)


SEVERAL = ["mean_grey", "quarters", "grey_and_spectrum"]
SMALL = {"size": (40, 60), "batch_size": 3}


@pytest.mark.parametrize("error", [Killed(), pytest.param(FULL, marks=pytest.mark.slow)])
def test_every_point_of_a_run_of_several_models(tmp_path, disk, error):
    """One store may be ahead of another: each is continued from where it is."""
    functions = [mean_grey, quarters, with_features()]
    wholes = compute(functions, tmp_path / "whole", **SMALL)
    for point in range(disk.points):
        out = tmp_path / str(point)
        disk.fail_after(point, error)
        with suppress(Killed, StoreFullError):
            compute(functions, out, **SMALL)
        disk.heal()
        for name, whole in zip(SEVERAL, wholes, strict=True):
            refuse_lies(out / f"{name}.zarr", whole)
        compute(functions, out, **SMALL)
        for name, whole in zip(SEVERAL, wholes, strict=True):
            refuse_differences(out / f"{name}.zarr", whole, point)
