"""Dense maps the slow way: cell by cell, window by window, in float64."""

from __future__ import annotations

import math

import numpy as np
import torch

from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.states import DONE

BLENDS = ["mean", "gaussian", "max", "last"]


def frame_of(side=(300, 260), window=64, stride=32, cells=(4, 4), channels=2, edge="pad"):
    spec = WindowSpec(0, (1.0, 1.0), (window, window), (window, window), (stride, stride))
    return lay_frame(lay_grid(spec, side, edge), channels, cells)


def outputs(frame, seed=0):
    rng = np.random.default_rng(seed)
    shape = (frame.grid.size, frame.channels, *frame.patch_cells)
    return rng.standard_normal(shape).astype(np.float32)


def add(growing, index, values, state=DONE):
    growing.add(np.array(index), values[index], np.full(len(index), state, np.uint8))


def weight_of(blend, y, x, height, width):
    if blend != "gaussian":
        return 1.0
    down, across = (y - (height - 1) / 2) / (height / 8), (x - (width - 1) / 2) / (width / 8)
    return math.exp(-(down**2) / 2) * math.exp(-(across**2) / 2)


def cells_of(frame, values, windows):
    """{(channel, y, x): [(value, y and x in the window)]}, in grid order."""
    found = {}
    height, width = frame.patch_cells
    for i in sorted(windows):
        row, col = divmod(i, frame.grid.shape[1])
        top = round(int(frame.grid.starts[0][row]) / frame.cell[0])
        left = round(int(frame.grid.starts[1][col]) / frame.cell[1])
        for c, y, x in np.ndindex(frame.channels, height, width):
            if not math.isnan(values[i, c, y, x]):
                given = float(values[i, c, y, x]), (y, x)
                found.setdefault((c, top + y, left + x), []).append(given)
    return found


def reference(frame, values, windows, blend):
    """(C, My, Mx) float64 of the outputs (N, C, h, w) of these windows; NaN is no value."""
    blended = np.full(frame.shape, np.nan)
    for cell, given in cells_of(frame, values, windows).items():
        if blend == "last":
            blended[cell] = given[-1][0]
        elif blend == "max":
            blended[cell] = max(value for value, _ in given)
        else:
            weights = [weight_of(blend, *at, *frame.patch_cells) for _, at in given]
            total = sum(w * value for w, (value, _) in zip(weights, given, strict=True))
            blended[cell] = total / sum(weights)
    return blended


def assert_blended(found, expected, blend):
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    if blend in ("max", "last"):
        assert np.array_equal(found, expected.astype(np.float32), equal_nan=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def holey_quarters(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 2, 4, 4), centred; NaN in a seventh of the cells, and some windows."""
    # Whole numbers, so that no sum depends on its order and no NaN on a rounding.
    grey = (batch * 255).round().long().reshape(len(batch), 3, 4, batch.shape[2] // 4, 4, -1)
    sums = grey.sum((3, 5))[:, :2]
    quarters = torch.where(sums % 7 == 0, torch.nan, sums.double() / 8192 - 1)
    whole = (sums[:, 0, 0, 0] % 5 == 0)[:, None, None, None]
    return torch.where(whole, torch.nan, quarters)


def naive_outputs(heatmap, slide, function):
    """(N, C, h, w): one read and one call per window; NaN where it cannot be read."""
    spec, grid = heatmap.grid.spec, heatmap.grid
    values = np.full((grid.size, heatmap.frame.channels, *heatmap.frame.patch_cells), np.nan)
    for i, (y, x) in enumerate(grid.origins(np.arange(grid.size)).tolist()):
        patch = torch.from_numpy(slide.read_region(spec.level, y, x, *spec.footprint))
        values[i] = function(patch.permute(2, 0, 1)[None].float() / 255)[0].numpy()
    return values.astype(np.float32)
