"""Whatever happens to a run, in whatever order: continued often enough, it has the same bits."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
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
from napari_wsi_heatmap import output, store
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.states import DONE, FAILED, PENDING, state_of
from napari_wsi_heatmap.writer import StoreWriter

HEIGHT, WIDTH = 200, 260
SETTINGS = {"window": 32, "stride": 16, "tissue": "none", "batch_size": 16, "order": "viewport"}
WHOLE = {}
y, x = st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1)


class PatientWriter(StoreWriter):
    """Saves when a rule says so."""

    def __init__(self, saved, growing, note):
        super().__init__(saved, growing, note, interval=3600)
        PatientWriter.latest = self


def whole(model):
    """What an undisturbed run gives."""
    if model not in WHOLE:
        slide = noise_slide(HEIGHT, WIDTH)
        WHOLE[model] = wh.compute_heatmap(slide, model, progress=False, **SETTINGS)
    return WHOLE[model]


class Runs(RuleBasedStateMachine):
    """One output, many sessions of which any may end badly."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.out = self.folder / "a.zarr"
        self.slide = FaultySlide(noise_slide(HEIGHT, WIDTH))
        self.pieces, self.failing_writes = None, 0
        self._rename, os.replace = os.replace, self._replace

    @initialize(model=st.sampled_from([mean_rgb, quarter_means]))
    def begin(self, model):
        self.model = model
        self.open(again=False)

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
    @rule(again=st.booleans())
    def open(self, again):
        self.failing_writes = 0
        self.control = RunControl()
        self.run = prepare(self.slide, self.model, out=self.out, control=self.control,
                           again=again, **SETTINGS)  # fmt: skip
        self.pieces = self.run.pieces()
        self.before = self.run.growing.state.copy()

    @precondition(going)
    @rule(times=st.integers(1, 4))
    def take(self, times):
        for _ in range(times):
            try:
                piece = next(self.pieces)
            except (StopIteration, StoreFullError):
                self.pieces = None
                return
            # Never two pieces for a window: those that were done or failed are not computed again.
            assert (state_of(self.before.ravel()[piece.index]) == PENDING).all()
            self.before.ravel()[piece.index] = piece.state

    @precondition(going)
    @rule()
    def pause_and_resume(self):
        self.control.pause()
        threading.Timer(0.005, self.control.resume).start()
        self.take(1)

    @precondition(going)
    @rule()
    def cancel(self):
        self.control.cancel()
        with suppress(StoreFullError):
            assert list(self.pieces) == []
        self.pieces = None

    @precondition(going)
    @rule()
    def close(self):
        with suppress(StoreFullError):
            self.pieces.close()
        self.pieces = None

    @precondition(going)
    @rule()
    def kill(self):
        """What is on disk now is what stays."""
        left = self.folder / "left"
        if self.out.exists():
            shutil.copytree(self.out, left)
        self.close()
        shutil.rmtree(self.out, ignore_errors=True)
        if left.exists():
            left.rename(self.out)

    @precondition(going)
    @rule(y=y, x=x)
    def look(self, y, x):
        self.run.look_at((y, x, y + 60, x + 60))

    @precondition(going)
    @rule()
    def save(self):
        if self.run.shares[0].output._writer is not None:
            self.run.shares[0].output._writer.try_to_save()

    @rule(times=st.integers(1, 3))
    def writes_fail(self, times):
        self.failing_writes = times

    @rule(y=y, x=x)
    def damage(self, y, x):
        self.slide.bad = self.slide.bad | {(y, x)}

    @rule()
    def heal(self):
        self.slide.bad = set()

    @invariant()
    def nothing_is_lost(self):
        if self.pieces is not None:
            state = self.run.growing.state
            assert np.array_equal(state, self.before)
            if not self.run.plan.frame.dense:
                done = state_of(state) == DONE
                assert np.array_equal(self.run.growing.values[:, done],
                                      whole(self.model).values[:, done])  # fmt: skip

    def teardown(self):
        try:
            self.failing_writes = 0
            if self.pieces is not None:
                self.close()
            self.heal()
            self.open(again=True)
            list(self.pieces)
            found, expected = wh.open_heatmap(self.out), whole(self.model)
            assert np.array_equal(found.values.view(np.uint32), expected.values.view(np.uint32))
            assert np.array_equal(found.state, expected.state)
            counts = found.run["counts"]
            assert (counts["done"], found.run["status"]) == (counts["planned"], "done")
            assert found.run["failed"] == []
            assert not (state_of(found.state) == FAILED).any()
        finally:
            os.replace = self._rename
            shutil.rmtree(self.folder, ignore_errors=True)


def test_any_order_of_events(monkeypatch):
    monkeypatch.setattr(GrowingMap, "chunk", 6)
    monkeypatch.setattr(DenseMap, "chunk", 12)
    monkeypatch.setattr(store, "STATE_CHUNK", 6)
    monkeypatch.setattr(output, "StoreWriter", PatientWriter)
    quick = settings(max_examples=15, stateful_step_count=18, deadline=None, database=None,
                     suppress_health_check=list(HealthCheck))  # fmt: skip
    run_state_machine_as_test(Runs, settings=quick)
