"""Every analysis is tested on a grid in memory, one in a store, and a list."""

from __future__ import annotations

import pytest

from made_embedding import grid_map, list_map, saved_map
from napari_wsi_heatmap.embedding import vectors


@pytest.fixture(params=["grid", "saved", "list"])
def made(request, tmp_path):
    if request.param == "saved":
        return saved_map(tmp_path / "features.zarr")
    return grid_map() if request.param == "grid" else list_map()


@pytest.fixture(params=[1 << 24, 4 * 6 * 16 * 16], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK_BYTES", request.param)
