"""Large arrays handed out again, but never while somebody holds them."""

from __future__ import annotations

import gc

import numpy as np
import torch

from napari_wsi_heatmap.reused import ReusedArrays


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_that_nobody_holds_comes_again():
    arrays = ReusedArrays()
    first = arrays.empty((10, 20), np.uint8)
    at = address(first)
    del first
    assert address(arrays.empty((10, 20), np.uint8)) == at


def test_what_is_held_in_any_way_is_not_touched():
    arrays = ReusedArrays()
    holds = [
        lambda a: a,
        lambda a: a[2:4].T,
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).permute(1, 0)[3:5],
        memoryview,
    ]
    held = [hold(arrays.empty((10, 20), np.uint8)) for hold in holds]
    gc.collect()
    others = [arrays.empty((10, 20), np.uint8) for _ in range(5)]
    spaces = [(address(a), address(a) + a.nbytes) for a in others]
    for thing in held:
        at = thing.data_ptr() if isinstance(thing, torch.Tensor) else address(np.asarray(thing))
        assert not any(low <= at < high for low, high in spaces)
    assert len(set(spaces)) == 5


def test_a_tensor_that_is_gone_gives_its_array_back():
    arrays = ReusedArrays()
    tensor = torch.from_numpy(arrays.empty((10, 20), np.float32)).permute(1, 0)
    at = tensor.data_ptr()
    del tensor
    assert address(arrays.empty((10, 20), np.float32)) == at


def test_shape_and_type_are_those_asked_for():
    arrays = ReusedArrays()
    for shape, dtype in (((10, 20), np.uint8), ((20, 10), np.uint8), ((10, 20), np.float32)):
        array = arrays.empty(shape, dtype)
        assert array.shape == shape
        assert array.dtype == dtype
        del array


def test_smaller_ones_share_the_memory_of_larger_ones_and_too_small_ones_are_let_go():
    arrays = ReusedArrays()
    small, large = arrays.empty((10,), np.uint8), arrays.empty((20,), np.uint8)
    places = address(small), address(large)
    del small, large
    again = arrays.empty((5, 4), np.uint8)
    assert address(again) == places[1]
    huge = arrays.empty((30,), np.float32)
    assert sorted(buffer.nbytes for buffer in arrays._buffers) == [20, 120]
    assert huge.nbytes == 120


def test_held_ones_are_never_let_go():
    arrays = ReusedArrays()
    held = [arrays.empty((10,), np.uint8) for _ in range(10)]
    for i, array in enumerate(held):
        array[:] = i
    arrays.empty((100,), np.uint8)[:] = 77
    assert [set(array.tolist()) for array in held] == [{i} for i in range(10)]
