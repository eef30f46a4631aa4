"""Slides, hooks and loops that the tests of streams share."""

from __future__ import annotations

import numpy as np
import torch

from made import noise
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.slides.array import ArraySlide

SIDES = [(400, 300), (100, 900), (333, 64), (64, 64), (20, 50), (700, 510), (65, 129), (256, 256),
         (90, 30), (513, 200)]  # fmt: skip


def slides(n: int, mpp: float | None = 0.5) -> dict[str, ArraySlide]:
    """Slides of different sizes, one smaller than a window of 64 px."""
    return {
        f"s{i}": ArraySlide([noise(*SIDES[i], seed=i)], mpp=mpp, name=f"s{i}", background=(9, 8, 7))
        for i in range(n)
    }


def naive(slide, window=64, stride=None, *, edge="pad", mpp=None, level=None):
    """One read a window, in grid order: {(y, x): (3, h, w) float32}."""
    spec = resolve_window(slide, window, stride, mpp=mpp, level=level)
    grid = lay_grid(spec, slide.levels[spec.level].shape, edge)
    index = np.arange(grid.size)
    found = {}
    for (y, x), place in zip(
        grid.origins(index).tolist(),
        np.rint(grid.positions(index)).astype(int).tolist(),
        strict=True,
    ):
        patch = slide.read_region(spec.level, y, x, *spec.footprint)
        found[tuple(place)] = torch.from_numpy(patch).permute(2, 0, 1).float() / 255
    return found


def by_window(batches) -> dict:
    """{(slide, y, x): patch}; a window that comes twice is an error."""
    found = {}
    for x, names, windows in batches:
        assert len(x) == len(names) == len(windows)
        for patch, name, (top, left) in zip(x, names, windows.tolist(), strict=True):
            assert (name, top, left) not in found
            found[name, top, left] = patch
    return found


def order_of(batches) -> list:
    """Slide and place of every window, in the order they come."""
    return [
        (name, *place)
        for _, names, windows in batches
        for name, place in zip(names, np.asarray(windows).tolist(), strict=True)
    ]


def mean_rgb_of(x, names, windows):
    """A processing: mean colour of each window."""
    del names, windows
    return x.double().mean((2, 3)).float()
