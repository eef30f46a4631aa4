"""The table as Parquet, read back with pandas."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, noise_slide
from made_features import with_features
from napari_wsi_heatmap.exports.parquet import KEY
from napari_wsi_heatmap.states import FAILED

QUIET = {"tissue": "none", "progress": False}


class TestParquetExport(ExportContract):
    name = "parquet"

    def check(self, path, heatmap, slide):
        pd.testing.assert_frame_equal(pd.read_parquet(path), heatmap.to_dataframe())
        about = json.loads(pyarrow.parquet.read_schema(path).metadata[KEY.encode()])
        assert tuple(about["window_level0"]) == heatmap.window_size


@pytest.mark.parametrize("features", [True, False])
def test_features_are_columns(tmp_path, features):
    heatmap = wh.compute_heatmap(noise_slide(300, 700), with_features(), window=16, **QUIET)
    heatmap.state[3, 5] = FAILED
    path = heatmap.export(tmp_path / "a.parquet", features=features)
    wanted = heatmap.to_dataframe(features=features)
    assert ("latent_0" in wanted) is features
    pd.testing.assert_frame_equal(pd.read_parquet(path), wanted)


def test_what_is_no_number_is_not_null(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=64, **QUIET)
    heatmap.values[0, 0, :3] = np.nan, np.inf, -np.inf
    column = pyarrow.parquet.read_table(heatmap.export(tmp_path / "a.parquet"))[2]
    assert column.null_count == 0
    np.testing.assert_array_equal(column.to_numpy()[:3], [np.nan, np.inf, -np.inf])
