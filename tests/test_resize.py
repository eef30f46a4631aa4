"""Patches resized: bit by bit what Pillow makes of them, on the CPU and as matrix products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from made import noise
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.resize import by_coefficients, resize_patches

SIZES = [
    ((192, 192), (128, 128)),
    ((256, 256), (224, 224)),
    ((300, 300), (224, 224)),
    ((128, 128), (192, 192)),
    ((65, 130), (33, 224)),
    ((7, 9), (5, 20)),
    ((64, 64), (1, 1)),
    ((1, 1), (8, 8)),
]


def patches(size, seed=0):
    """Noise, and noise of 0 and 255 only: rounding and clipping show there."""
    images = noise(*size, seed=seed), (noise(*size, seed=seed + 1) > 127).astype(np.uint8) * 255
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def by_pillow(batch, size):
    images = batch.permute(0, 2, 3, 1).numpy()
    return [
        np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        for image in images
    ]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_pillow_is_pillow(before, after):
    batch = patches(before)
    assert np.array_equal(resize_patches(batch, after).permute(0, 2, 3, 1), by_pillow(batch, after))


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_matrix_products_equal_pillow_bit_by_bit(before, after):
    batch = patches(before)
    assert np.array_equal(
        by_coefficients(batch, after).permute(0, 2, 3, 1), by_pillow(batch, after)
    )


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_torch_is_at_most_2_grey_levels_off(before, after):
    batch = patches(before)
    resized = resize_patches(batch, after, "torch").permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(resized - np.array(by_pillow(batch, after), int)).max() <= 2


@pytest.mark.parametrize("how", ["pillow", "torch"])
def test_patches_of_the_right_size_are_handed_on(how):
    batch = patches((32, 32))
    assert resize_patches(batch, (32, 32), how) is batch


def test_an_unknown_filter():
    with pytest.raises(GridError, match="choose one of pillow, torch"):
        resize_patches(patches((8, 8)), (4, 4), "magic")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_a_gpu_equals_pillow_bit_by_bit(before, after):
    batch = patches(before)
    resized = resize_patches(batch.cuda(), after).cpu()
    assert np.array_equal(resized.permute(0, 2, 3, 1), by_pillow(batch, after))
