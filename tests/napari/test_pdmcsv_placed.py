"""PyDmed's csv as a layer on its slide: each cell over the centre of the pixels it stands for."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from napari_wsi_heatmap._napari import view


@pytest.mark.parametrize("level", [0, 1])
def test_cells_lie_where_their_pixels_are(viewer, slide_file, tmp_path, level):
    path, cells, side = tmp_path / "patient_1.csv", 4, 48
    with wh.open_slide(slide_file) as slide:
        down = np.asarray(slide.levels[level].downsample)
        corners = [(y, x) for y in (0, side, 2 * side) for x in (0, side)]
        values = np.random.default_rng(0).random((len(corners), 2, cells, cells))
        with wh.PdmcsvWriter(path, slide, window=side, level=level) as writer:
            writer.write(values.astype(np.float32), np.array(corners) * down)
        heatmap = wh.open_heatmap(path, slide)
        layer = view.show(viewer, slide, heatmap)[1]
        mpp = np.asarray(slide.mpp)
    for (y, x), value in zip(corners, values, strict=True):
        for i, j in np.ndindex(cells, cells):
            middle = (np.array([y, x]) + (np.array([i, j]) + 0.5) * side / cells) * down - 0.5
            at = np.rint(layer.world_to_data(middle * mpp)).astype(int)
            np.testing.assert_allclose(layer.data_to_world(at), middle * mpp, atol=0.01)
            shown = np.asarray(layer.data)[tuple(at)]
            assert shown == np.float32(value[0, i, j])
