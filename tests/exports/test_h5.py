"""HDF5 of CLAM, TRIDENT and STAMP, read back with h5py as their readers do."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import napari_wsi_heatmap as wh
from exports.contract import ExportContract
from made import mean_grey, mean_rgb, noise, noise_slide, quarter_means
from made_features import LENGTH, with_features
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.slides.array import ArraySlide
from napari_wsi_heatmap.states import DONE, FAILED, state_of

QUIET = {"tissue": "none", "progress": False}


class TestH5Export(ExportContract):
    name = "h5"

    def check(self, path, heatmap, slide):
        done = state_of(heatmap.state) == DONE
        with h5py.File(path) as file:
            coords, scores = file["coords"], file["attention_scores"]
            assert coords.dtype == np.int64
            np.testing.assert_array_equal(coords[:], heatmap.positions[done][:, ::-1])
            assert scores.shape == (np.count_nonzero(done), 1)
            np.testing.assert_array_equal(scores[:, 0], heatmap.values[0][done])
            np.testing.assert_array_equal(file["values"][:], heatmap.values[:, done].T)
            assert list(file["values"].attrs["names"]) == list(heatmap.names)
            about = coords.attrs
            assert about["patch_size_level0"] == heatmap.window_size[0]
            scaled = about["patch_size"] * about["downsample"][0]
            assert scaled == heatmap.window_size[1]


class TestStampExport(ExportContract):
    name = "stamp"

    @pytest.fixture(scope="class")
    @classmethod
    def heatmap(cls, slide):
        settings = {"window": 64, "stride": 40, "roi": (0, 0, 300, 250), **QUIET}
        return wh.compute_heatmap(slide, with_features(), **settings)

    def check(self, path, heatmap, slide):
        done = state_of(heatmap.state) == DONE
        mpp = heatmap.grid.spec.mpp
        with h5py.File(path) as file:
            assert file.attrs["unit"] == "um"
            assert file.attrs["feat_type"] == "tile"
            assert "tile_size" not in file.attrs  # of an older layout, in other units
            assert file.attrs["tile_size_um"] == heatmap.window_size[1] * mpp[1]
            um_per_px = file.attrs["tile_size_um"] / file.attrs["tile_size_px"]
            assert um_per_px == mpp[1]
            assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
            wanted = (heatmap.positions[done] * mpp)[:, ::-1]
            np.testing.assert_array_equal(file["coords"][:], wanted.astype(np.float32))
            features = heatmap.features[:][done]
            np.testing.assert_array_equal(file["feats"][:], features.astype(np.float16))


def test_attributes_are_those_of_both_tools(tmp_path):
    slide = ArraySlide([noise(600, 800), noise(300, 400)], mpp=0.25)
    heatmap = wh.compute_heatmap(slide, mean_grey, window=64, stride=48, level=1, **QUIET)
    with h5py.File(heatmap.export(tmp_path / "a.h5")) as file:
        about = dict(file["coords"].attrs)
        assert "features" not in file
    assert (about["patch_size"], about["patch_level"], about["overlap"]) == (64, 1, 16)
    assert about["downsample"].tolist() == [2, 2]
    assert about["level_dim"].tolist() == [400, 300]
    assert about["patch_size_level0"] == 128
    assert (about["level0_width"], about["level0_height"]) == (800, 600)
    # TRIDENT: patch_size · level0_magnification // target_magnification
    magnified = about["patch_size"] * about["level0_magnification"]
    assert magnified // about["target_magnification"] == 128


def test_without_a_calibration_no_magnification_is_claimed(tmp_path):
    slide = ArraySlide([noise(200, 200)])
    heatmap = wh.compute_heatmap(slide, mean_grey, window=64, **QUIET)
    with h5py.File(heatmap.export(tmp_path / "a.h5")) as file:
        assert "level0_magnification" not in file["coords"].attrs
    with pytest.raises(ExportError, match="there are no features"):
        heatmap.export(tmp_path / "b.h5", format="stamp")
    featured = wh.compute_heatmap(slide, with_features(), window=64, **QUIET)
    with pytest.raises(ExportError, match=r"µm.*mpp="):
        featured.export(tmp_path / "b.h5", format="stamp")


@pytest.mark.parametrize("saved", [False, True])
def test_features_stand_beside_the_coords_of_their_windows(tmp_path, saved):
    slide = noise_slide(300, 700)
    out = tmp_path / "a.zarr" if saved else None
    heatmap = wh.compute_heatmap(slide, with_features(), window=16, out=out, **QUIET)
    heatmap.state[3, 5], heatmap.state[17, 40] = FAILED, 0
    with h5py.File(heatmap.export(tmp_path / "a.h5")) as file:
        assert file["features"].shape == (heatmap.grid.size - 2, LENGTH)
        np.testing.assert_array_equal(file["features"][:], heatmap.window_features())
        assert len(file["coords"]) == len(file["features"])


def test_the_output_that_becomes_the_score(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_rgb, window=50, **QUIET)
    with h5py.File(heatmap.export(tmp_path / "a.h5", channel=2)) as file:
        np.testing.assert_array_equal(file["attention_scores"][:, 0], heatmap.values[2].ravel())


@pytest.mark.parametrize("name", ["h5", "pdmcsv"])
def test_windows_that_are_not_square_are_refused(tmp_path, name):
    heatmap = wh.compute_heatmap(noise_slide(200, 200), mean_grey, window=(64, 32), **QUIET)
    with pytest.raises(
        ExportError, match=r"square windows only, these are 64 x 32 px - \S*/a\.\w+ - "
    ):
        heatmap.export(tmp_path / f"a.{name}")
    assert not list(tmp_path.iterdir())


def test_of_a_dense_map_the_means(tmp_path):
    heatmap = wh.compute_heatmap(noise_slide(256, 256), quarter_means, window=64, **QUIET)
    with h5py.File(heatmap.export(tmp_path / "a.h5")) as file:
        first = heatmap.values[:, :4, :4].mean((1, 2))
        np.testing.assert_allclose(file["values"][0], first, rtol=1e-6)


def test_windows_on_no_lattice(tmp_path):
    slide, coords = noise_slide(300, 300), np.array([[3, 200], [77, 11], [150, 150]])
    wh.predict_windows(slide, mean_rgb, coords, window=64, out=tmp_path / "a.zarr")
    with h5py.File(wh.open_heatmap(tmp_path / "a.zarr").export(tmp_path / "a.h5")) as file:
        np.testing.assert_array_equal(file["coords"][:], coords[:, ::-1])
        assert file["coords"].attrs["level_dim"].tolist() == [300, 300]
