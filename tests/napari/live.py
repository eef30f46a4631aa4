"""What tests of live runs share: a slide, models that take their time, and how to wait."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from napari_wsi_heatmap.slides.array import ArraySlide

TIMEOUT = 60_000
"""ms: far longer than anything takes, so that only a run that hangs fails."""

needs_display = pytest.mark.skipif(
    os.name == "posix" and not os.environ.get("DISPLAY"), reason="no display: run under Xvfb"
)


def tissue_slide(height: int = 400, width: int = 600, mpp: float | None = 0.5) -> ArraySlide:
    """Noise in pink, so that every window is tissue."""
    pixels = np.random.default_rng(1).integers(60, 120, (height, width, 3), dtype=np.uint8)
    pixels[..., 0] += 100
    return ArraySlide([pixels], mpp=mpp, name="pink")


def add_slide(viewer, slide: ArraySlide):
    """A layer as our reader makes it."""
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.slide_layer import slide_layer

    layer = Layer.create(*slide_layer(slide))
    viewer.add_layer(layer)
    return layer


class Slow:
    """The mean of a window, after a rest: a run of hundreds of batches that a test interrupts."""

    window = 8
    name = "slow"

    def __init__(self, seconds: float = 0.005, outputs: int = 1) -> None:
        self.seconds, self.outputs = seconds, outputs
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        time.sleep(self.seconds)
        mean = batch.mean((1, 2, 3))
        return mean if self.outputs == 1 else mean[:, None].repeat(1, self.outputs)


class Failing(Slow):
    """Raises what it is given, at a batch well within the run."""

    name = "failing"

    def __init__(self, error: BaseException, at: int = 20) -> None:
        super().__init__(0.0)
        self.error, self.at = error, at

    def __call__(self, batch):
        values = super().__call__(batch)
        if self.calls > self.at:
            raise self.error
        return values


SLOW = {"tissue": "none", "batch_size": 2}
"""Settings that make a run over `tissue_slide` with `Slow` last for many seconds."""


def wait_over(qtbot, job) -> None:
    """Serve Qt until a job has ended."""
    qtbot.waitUntil(lambda: job.over, timeout=TIMEOUT)


def wait_shown(qtbot, job) -> None:
    """Serve Qt until a job's layer is in the viewer, with some values."""

    def shown() -> bool:
        return job.layer is not None and bool(np.isfinite(job.layer.data).any())

    qtbot.waitUntil(lambda: shown() or job.over, timeout=TIMEOUT)
    assert not job.over, job.line


def no_worker_left() -> bool:
    from superqt.utils import WorkerBase

    return not WorkerBase._worker_set
