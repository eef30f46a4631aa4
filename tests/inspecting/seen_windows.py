"""A model that keeps what it was given, so that a test can tell which window got which pixels."""

from __future__ import annotations

import numpy as np
import torch

from napari_wsi_heatmap.launch import prepare


class Recording:
    """Numbers the windows that it sees; with `cells` as a dense model.

    The number is the window's value: so it is known what each got, in whatever order and
    place of a batch.
    """

    name = "recording"

    def __init__(self, window=48, cells=None):
        self.window, self.cells = window, cells
        self.rows = []

    def __call__(self, batch):
        first = len(self.rows)
        self.rows += [np.array(row) for row in batch.numpy()]
        numbers = torch.arange(first, len(self.rows), dtype=torch.float32)
        if self.cells is None:
            return numbers
        return numbers[:, None, None, None].expand(-1, 1, *self.cells)


def recorded_run(slide, model, **settings):
    """Run it; the heatmap, and what each window got: flat index -> (3, H, W) float32."""
    options = {"tissue": "none", "level": 0, "batch_size": 4} | settings
    if "mpp" in options:
        del options["level"]
    run, got = prepare(slide, model, **options), {}
    for piece in run.pieces():
        numbers = piece.values.reshape(len(piece), -1)[:, 0].astype(int)
        got |= {i: model.rows[n] for i, n in zip(piece.index.tolist(), numbers, strict=True)}
    return run.heatmap, got


def as_the_model_got_them(patches):
    """(n, H, W, 3) uint8 -> (n, 3, H, W) float32 in 0…1."""
    return patches.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
