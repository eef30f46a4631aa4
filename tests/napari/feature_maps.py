"""What tests of features in the viewer share: a slide, a model that gives features, its map."""

from __future__ import annotations

import torch
from live import add_slide, tissue_slide, wait_over

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari.start import start_job

LENGTH = 6


def bands(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) values, (N, 6) features: means of six bands of each window."""
    found = torch.nn.functional.adaptive_avg_pool2d(batch, (2, 1)).flatten(1)
    return batch.mean((1, 2, 3)), found


def with_bands():
    return wh.load_model(bands, output=0, features=1, window=32)


def finished_job(qtbot, viewer, slide=None, **settings):
    """A run over a slide in a viewer, to its end."""
    slide_layer = add_slide(viewer, slide or tissue_slide())
    job = start_job(viewer, slide_layer, with_bands(), level=0, tissue="none", **settings)
    wait_over(qtbot, job)
    assert job.error is None
    return job
