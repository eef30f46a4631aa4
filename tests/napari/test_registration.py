"""The layer of a live run over a slide whose pixels tell where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from live import add_slide, wait_over

from napari_wsi_heatmap._napari.start import start_job
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import HANGS_OVER

SHAPES = [(1000, 800), (400, 320), (62, 50)]  # downsamples 1, 2.5 and about 16.1 x 16


def telling_pixels(height: int, width: int) -> np.ndarray:
    """R and G: row and column modulo 256; B: how often they went round, a nibble each."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, y // 256 * 16 + x // 256], axis=-1).astype(np.uint8)


def where(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 2): mean row and column of the pixels that the model sees."""
    red, green, blue = (batch.double() * 255).round().unbind(1)
    rows, cols = red + 256 * (blue // 16), green + 256 * (blue % 16)
    return torch.stack([rows.mean((1, 2)), cols.mean((1, 2))], 1)


@pytest.mark.parametrize("mpp", [0.25, None])
@pytest.mark.parametrize("edge", ["pad", "flush", "drop", "centre"])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 5), (9, 13)])
def test_a_cell_lies_where_its_window_saw(qtbot, viewer, mpp, edge, level, window, stride):
    slide = ArraySlide([telling_pixels(*shape) for shape in SHAPES], mpp=mpp, name="telling")
    layer = add_slide(viewer, slide)
    job = start_job(
        viewer, layer, where, window=window, stride=stride, level=level, edge=edge, tissue="none"
    )
    wait_over(qtbot, job)
    heatmap, down = job.heatmap, np.asarray(slide.levels[level].downsample)
    seen = (np.moveaxis(heatmap.values, 0, -1) + 0.5) * down - 0.5  # level-0 pixels, (Y, X, 2)
    inside = (heatmap.state & HANGS_OVER) == 0
    if edge == "flush":  # its last row and column leave the lattice: `positions` is the truth
        assert np.abs(seen - heatmap.centres)[inside].max() < 0.01
        inside[-1], inside[:, -1] = False, False
    cells = np.argwhere(inside)
    world = np.array([job.layer.data_to_world(cell) for cell in cells])
    assert np.abs(world - seen[inside] * (mpp or 1)).max() < 0.01
    assert job.layer.units == layer.units
