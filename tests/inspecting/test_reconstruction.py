"""What an autoencoder makes of a window is what its run was scored by."""

from __future__ import annotations

import numpy as np
import pytest

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide
from made_vae import write_checkpoint
from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.inspecting.reconstruction import (
    decoder_of,
    has_decoder,
    reconstruct,
    side_by_side,
    squared_error,
)

QUIET = {"tissue": "none", "progress": False}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "M2_WEIGHTS.PT")


@pytest.fixture(scope="module")
def slide():
    return noise_slide(128, 192)


@pytest.fixture(scope="module")
def store(checkpoint, slide, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "a.zarr"
    wh.compute_heatmap(slide, checkpoint, out=path, **QUIET)
    return path


def test_its_error_is_the_value_of_the_map(store, slide):
    heatmap = wh.open_heatmap(store)
    model = decoder_of(heatmap)
    for index in range(6):
        patch = heatmap.patch(index, slide)
        made = reconstruct(model, patch)
        assert (made.shape, made.dtype) == ((64, 64, 3), np.uint8)
        # Rounding to 8 bits moves a pixel by half a grey level at most.
        expected = float(heatmap.values.ravel()[index])
        assert squared_error(patch, made) == pytest.approx(expected, abs=4e-3 * expected**0.5)


def test_several_at_once_are_the_same(store, slide):
    heatmap = wh.open_heatmap(store)
    model = decoder_of(heatmap)
    some = np.stack([heatmap.patch(i, slide) for i in range(3)])
    made = reconstruct(model, some)
    assert made.shape == some.shape
    for patch, expected in zip(some, made, strict=True):
        assert np.abs(reconstruct(model, patch).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(reconstruct(model, some), made)


def test_a_list_of_windows_has_its_decoder_too(checkpoint, slide, tmp_path):
    wh.predict_windows(slide, checkpoint, [(0, 5), (60, 70)], out=tmp_path / "a.zarr")
    heatmap = wh.open_heatmap(tmp_path / "a.zarr")
    patch = heatmap.patch(1, slide)
    made = reconstruct(decoder_of(heatmap), patch)
    assert squared_error(patch, made) == pytest.approx(float(heatmap.listed[1, 0]), abs=2e-3)


def test_other_models_have_none(slide):
    for model in (mean_rgb, "hematoxylin"):
        heatmap = wh.compute_heatmap(slide, model, window=64, level=0, **QUIET)
        assert not has_decoder(heatmap)
        assert decoder_of(heatmap) is None


def test_a_file_that_is_gone_or_another_one(store, tmp_path):
    heatmap, path = wh.open_heatmap(store), tmp_path / "vae.pt"
    heatmap.run["model"]["spec"]["path"] = str(path)
    with pytest.raises(ModelLoadError, match=r"vae\.pt"):
        decoder_of(heatmap)
    write_checkpoint(path, seed=1)
    with pytest.raises(ModelLoadError, match="not the one that this map is of"):
        decoder_of(heatmap)


def test_windows_of_another_size_are_refused(store):
    model = decoder_of(wh.open_heatmap(store))
    with pytest.raises(ModelLoadError, match=r"windows of \(70, 70\) px"):
        reconstruct(model, np.zeros((2, 70, 70, 3), np.uint8))


def test_side_by_side():
    patch, made = np.zeros((4, 3, 3), np.uint8), np.full((4, 3, 3), 9, np.uint8)
    picture = side_by_side(patch, made)
    assert picture[:, :, 0].tolist() == [[0, 0, 0, 255, 255, 9, 9, 9]] * 4
