"""Models that give features beside their values, and what these must be."""

from __future__ import annotations

import numpy as np
import torch

import napari_wsi_heatmap as wh
from made import quarter_means

LENGTH = 5
"""D, features a window."""


def spectrum(batch: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 5): different for every window, and for every feature."""
    corners = batch[:, :, 0, 0].double() * 3
    return torch.cat([corners, batch.double().mean((2, 3))[:, :2]], 1)


def grey_and_spectrum(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) values, (N, 5) features."""
    return batch.double().mean((1, 2, 3)), spectrum(batch)


def quarters_and_spectrum(batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """(N, 1, 4, 4) values, (N, 5) features."""
    return {"map": quarter_means(batch)[:, :1], "latent": spectrum(batch)}


def with_features(dense: bool = False, **settings):
    """A model of either kind, ready to be run."""
    if dense:
        return wh.load_model(quarters_and_spectrum, output="map", features="latent", **settings)
    return wh.load_model(grey_and_spectrum, output=0, features=1, **settings)


def naive_features(heatmap, slide) -> np.ndarray:
    """(Y, X, 5): one read and one call a window."""
    spec, grid = heatmap.grid.spec, heatmap.grid
    found = np.empty((grid.size, LENGTH), np.float32)
    for i, (y, x) in enumerate(grid.origins(np.arange(grid.size)).tolist()):
        patch = torch.from_numpy(slide.read_region(spec.level, y, x, *spec.footprint))
        found[i] = spectrum(patch.permute(2, 0, 1)[None].float() / 255)[0].numpy()
    return found.reshape(*grid.shape, LENGTH)
