"""Heatmaps with features that tests make: windows of every state, on a grid and as a list."""

from __future__ import annotations

import numpy as np
import zarr

from napari_wsi_heatmap.coords import list_windows
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import WindowSpec, lay_grid
from napari_wsi_heatmap.heatmap import Heatmap
from napari_wsi_heatmap.listmap import ListHeatmap
from napari_wsi_heatmap.savedarray import SavedArray
from napari_wsi_heatmap.states import BACKGROUND, DONE, FAILED, NOT_FINITE, OUTSIDE, PENDING

RECORD = {
    "model": {"name": "made", "names": ["value"], "unit": "", "limits": None},
    "slide": {"name": "made"},
}
OTHERS = (PENDING, BACKGROUND, OUTSIDE, FAILED)


def spec_of(window=64, stride=48):
    return WindowSpec(1, (4.0, 4.0), (window,) * 2, (window,) * 2, (stride,) * 2, (0.25, 0.25))


def states_and_vectors(count, dim, seed):
    """(N,) states of every kind, (N, D) vectors: NaN where none was computed, and some odd ones."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(3, 1, (count, dim)) * np.linspace(1, 4, dim)
    vectors[:, 0] += vectors[:, -1]
    vectors = vectors.astype(np.float32)
    state = np.full(count, DONE, np.uint8)
    shares = np.array_split(rng.permutation(count)[: count // 3], 4)
    for other, share in zip(OTHERS, shares, strict=True):
        state[share], vectors[share] = other, np.nan
    odd = rng.permutation(np.flatnonzero(state == DONE))[:9]
    state[odd] |= NOT_FINITE
    vectors[odd[:3], 1] = np.nan
    vectors[odd[3:6], dim - 1] = np.inf  # of the last three only a value is not finite
    return state, vectors


def grid_map(shape=(37, 29), dim=6, seed=0, cells=None):
    state, vectors = states_and_vectors(shape[0] * shape[1], dim, seed)
    spec = spec_of()
    sides = [(n - 1) * s + w for n, s, w in zip(shape, spec.stride, spec.footprint, strict=True)]
    grid = lay_grid(spec, (sides[0], sides[1]))
    assert grid.shape == shape
    frame = lay_frame(grid, 1, cells)
    values = np.zeros(frame.shape, np.float32)
    features = vectors.reshape(*shape, dim)
    return Heatmap(values, state.reshape(shape), frame, RECORD, features=features)


def saved_map(path, **settings):
    """The same; its features are read from a store in chunks of 16 x 16 windows."""
    made = grid_map(**settings)
    array = zarr.create_array(
        str(path), data=made.features, chunks=(16, 16, made.features.shape[2]), fill_value=np.nan
    )
    return Heatmap(made.values, made.state, made.frame, RECORD, features=SavedArray(array, path))


def list_map(count=700, dim=6, seed=0, coords=None, window=64):
    state, vectors = states_and_vectors(count, dim, seed)
    if coords is None:
        coords = np.random.default_rng(seed + 1).integers(0, 9000, (count, 2))
    windows = list_windows(spec_of(window), coords)
    listed = np.zeros((count, 1), np.float32)
    return ListHeatmap(windows, listed, state, RECORD, features=vectors)


def there(heatmap):
    """Flat indices of the windows that count."""
    flat = np.asarray(heatmap.features[:]).reshape(heatmap.state.size, -1)
    done = (heatmap.state.ravel() & 0x0F) == DONE
    return np.flatnonzero(done & np.isfinite(flat).all(1))


def rows(heatmap):
    """(n, D) float64 of these, in grid order."""
    flat = np.asarray(heatmap.features[:]).reshape(heatmap.state.size, -1)
    return flat[there(heatmap)].astype(np.float64)
