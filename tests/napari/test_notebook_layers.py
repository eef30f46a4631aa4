"""The layers of examples/notebook.py lie on the slide."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made_features import with_features

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.py"


@pytest.fixture(scope="module")
def notebook():
    spec = importlib.util.spec_from_file_location("example_notebook", NOTEBOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("calibrated", [True, False])
def test_components_and_neighbours(
    calibrated, notebook, viewer, slide_file, plain_slide_file, tmp_path
):
    path = slide_file if calibrated else plain_slide_file
    coords = [(y, x) for y in range(0, 600, 64) for x in range(128, 900, 64)]
    wh.predict_windows(path, with_features(), coords, out=tmp_path / "a.zarr", window=64, level=0)
    heatmap = wh.open_heatmap(tmp_path / "a.zarr")
    edges = heatmap.neighbour_edges(k=2, where="slide")
    notebook.show(viewer, path, heatmap, heatmap.pca(3), np.array([13, 20, 5]), edges)
    slide, components, lines, alike = viewer.layers
    place, size = np.array(coords[13]), 64
    centre = place + (size - 1) / 2
    world = slide.data_to_world(centre)
    cell = np.rint(components.world_to_data(world)).astype(int)
    assert tuple(cell) == (place[0] // 64, place[1] // 64 - 2)
    assert components.data.shape[:2] == (10, 13)
    np.testing.assert_allclose(components.data_to_world(cell), world)
    np.testing.assert_allclose(alike.data_to_world(alike.data[0]), world)
    first, to = lines.data[2 * 13]
    np.testing.assert_allclose(lines.data_to_world(first), world)
    assert np.abs(to).sum() == 64  # to the window beside it
    assert components.units == lines.units == alike.units == slide.units
