"""Whatever happens to a run, in whatever order: continued often enough, it has the same bits."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide, quarter_means
from made_features import with_features
from napari_wsi_heatmap import output, store
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import ModelRunError, StoreError, StoreFullError
from napari_wsi_heatmap.features import UnsavedFeatures
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.states import DONE, FAILED, PENDING, state_of
from napari_wsi_heatmap.writer import StoreWriter

HEIGHT, WIDTH = 200, 260
SETTINGS = {"window": 32, "stride": 16, "level": 0, "tissue": "none", "batch_size": 16}
WHOLE = {}
y, x = st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1)


class Means(torch.nn.Module):
    """Fails where a rule says so, on any device."""

    failing = False

    def forward(self, batch):
        if Means.failing:
            raise ValueError("told to")
        return batch.mean((2, 3))


MODELS = {
    "values": mean_rgb,
    "dense": quarter_means,
    "features": with_features(),
    "side by side": "hematoxylin",
    "two devices": Means(),
    "several": [mean_rgb, quarter_means, with_features(), Means()],
}


class PatientWriter(StoreWriter):
    """Saves when a rule says so."""

    def __init__(self, saved, growing, note):
        super().__init__(saved, growing, note, interval=3600)


def whole(kind):
    """Name of a model -> what an undisturbed run gives."""
    if kind not in WHOLE:
        run = prepare(noise_slide(HEIGHT, WIDTH), MODELS[kind], **SETTINGS)
        list(run.pieces())
        WHOLE[kind] = {share.name: share.heatmap for share in run.shares}
    return WHOLE[kind]


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


class Runs(RuleBasedStateMachine):
    """One output, or one of each of several models; many sessions of which any may end badly."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.out = self.folder / "out"
        self.slide = FaultySlide(noise_slide(HEIGHT, WIDTH))
        self.pieces, self.failing_writes, Means.failing = None, 0, False
        self._rename, os.replace = os.replace, self._replace

    @initialize(kind=st.sampled_from(list(MODELS)))
    def begin(self, kind):
        self.kind = kind
        whole(kind)
        self.open(again=False, order="viewport")

    def _replace(self, source, target):
        if self.failing_writes:
            self.failing_writes -= 1
            raise OSError(28, "No space left on device")
        self._rename(source, target)

    def stopped(self):
        return self.pieces is None

    def going(self):
        return self.pieces is not None

    @precondition(stopped)
    @rule(again=st.booleans(), order=st.sampled_from(["viewport", "raster"]))
    def open(self, again, order):
        self.failing_writes, Means.failing = 0, False
        self.control = RunControl()
        device = "cpu,cpu" if self.kind in {"two devices", "several"} else "cpu"
        self.run = prepare(self.slide, MODELS[self.kind], out=self.out, control=self.control,
                           again=again, order=order, device=device, **SETTINGS)  # fmt: skip
        self.pieces = self.run.pieces()
        self.before = {share.name: share.growing.state.copy() for share in self.run.shares}

    @property
    def expected(self):
        """What the model may raise."""
        return (ModelRunError,) if Means.failing else ()

    @precondition(going)
    @rule(times=st.integers(1, 4))
    def take(self, times):
        for _ in range(times):
            try:
                piece = next(self.pieces)
            except (StopIteration, StoreFullError, *self.expected):
                self.pieces = None
                return
            # Never two pieces for a window: those that were done or failed are not computed again.
            before = self.before[piece.model].ravel()
            assert (state_of(before[piece.index]) == PENDING).all()
            before[piece.index] = piece.state

    @precondition(going)
    @rule()
    def pause_and_resume(self):
        self.control.pause()
        threading.Timer(0.005, self.control.resume).start()
        self.take(1)

    @precondition(going)
    @rule()
    def stall(self):
        """A read takes long; pieces come nevertheless, then or later."""
        self.slide.gate.clear()
        threading.Timer(0.005, self.slide.gate.set).start()
        self.take(2)
        self.slide.gate.wait()

    @precondition(going)
    @rule(stalled=st.booleans())
    def cancel(self, stalled):
        if stalled:
            self.slide.gate.clear()
        self.control.cancel()
        with suppress(StoreFullError, ModelRunError):
            assert list(self.pieces) == []
        self.slide.gate.set()
        self.pieces = None

    @precondition(going)
    @rule(stalled=st.booleans())
    def close(self, stalled):
        if stalled:
            self.slide.gate.clear()
        with suppress(StoreFullError):
            self.pieces.close()
        self.slide.gate.set()
        self.pieces = None

    @precondition(going)
    @rule()
    def kill(self):
        """What is on disk now is what stays."""
        left = self.folder / "left"
        if self.out.exists():
            shutil.copytree(self.out, left)
        self.close(stalled=False)
        shutil.rmtree(self.out, ignore_errors=True)
        if left.exists():
            left.rename(self.out)
        for share in self.run.shares:
            self.honest(share.output.path, whole(self.kind)[share.name])

    def honest(self, path, expected):
        """What a store that was not closed calls done is there, and right."""
        try:
            found = wh.open_heatmap(path)
        except StoreError:  # killed before there was a record
            return
        done = state_of(found.state) == DONE
        if not found.frame.dense:
            assert np.array_equal(found.values[:, done], expected.values[:, done])
        if expected.features is not None:
            assert np.array_equal(found.features[:][done], expected.features[:][done])

    @precondition(going)
    @rule(y=y, x=x)
    def look(self, y, x):
        self.run.look_at((y, x, y + 60, x + 60))

    @precondition(going)
    @rule(share=st.integers(0, 3))
    def save(self, share):
        """The stores of several models are seldom equally far."""
        writer = self.run.shares[share % len(self.run.shares)].output._writer
        if writer is not None:
            writer.try_to_save()

    @rule(times=st.integers(1, 3))
    def writes_fail(self, times):
        self.failing_writes = times

    @rule()
    def model_fails(self):
        Means.failing = True

    @rule(y=y, x=x)
    def damage(self, y, x):
        self.slide.bad = self.slide.bad | {(y, x)}

    @rule()
    def heal(self):
        self.slide.bad = set()

    @invariant()
    def nothing_is_lost(self):
        for share in self.run.shares if self.pieces is not None else ():
            state, expected = share.growing.state, whole(self.kind)[share.name]
            assert np.array_equal(state, self.before[share.name])
            done = state_of(state) == DONE
            if not share.plan.frame.dense:
                assert np.array_equal(share.growing.values[:, done], expected.values[:, done])

    def teardown(self):
        try:
            self.failing_writes = 0
            if self.pieces is not None:
                self.close(stalled=False)
            self.heal()
            self.open(again=True, order="viewport")
            list(self.pieces)
            for share in self.run.shares:
                self.same(share, whole(self.kind)[share.name])
        finally:
            os.replace, Means.failing = self._rename, False
            shutil.rmtree(self.folder, ignore_errors=True)

    def same(self, share, expected):
        """What is on disk is what it was to be, and says so."""
        found = wh.open_heatmap(share.output.path)
        assert np.array_equal(bits(found.values), bits(expected.values))
        assert np.array_equal(found.state, expected.state)
        if expected.features is not None:
            assert np.array_equal(bits(found.features[:]), bits(expected.features[:]))
        counts = found.run["counts"]
        assert (counts["done"], found.run["status"]) == (counts["planned"], "done")
        assert found.run["failed"] == []
        assert not (state_of(found.state) == FAILED).any()


@pytest.mark.parametrize("examples", [15, pytest.param(300, marks=pytest.mark.slow)])
def test_any_order_of_events(monkeypatch, examples):
    monkeypatch.setattr(GrowingMap, "chunk", 6)
    monkeypatch.setattr(DenseMap, "chunk", 12)
    monkeypatch.setattr(UnsavedFeatures, "chunk", 6)
    monkeypatch.setattr(store, "STATE_CHUNK", 6)
    monkeypatch.setattr(output, "StoreWriter", PatientWriter)
    quick = settings(max_examples=examples, stateful_step_count=18, deadline=None, database=None,
                     suppress_health_check=list(HealthCheck))  # fmt: skip
    run_state_machine_as_test(Runs, settings=quick)
