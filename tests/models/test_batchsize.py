"""The batch size that is found where none is given, and memory that runs out while trying."""

from __future__ import annotations

import pytest
import torch

from napari_wsi_heatmap.errors import ModelRunError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.batchsize import (
    LARGEST,
    LARGEST_ON_CPU,
    LONGEST_BATCH_S,
    TRIALS_S,
    Room,
    Trial,
    best_of,
    try_sizes,
)
from napari_wsi_heatmap.models.dry_run import dry_run
from napari_wsi_heatmap.models.memory import free_bytes, out_of_memory

PATCHES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
ROOMY = Room(bytes_a_window=1)


def sizes_tried(seconds_of, room=ROOMY, most=10**9):
    """Sizes that are tried and which of them is taken, with a clock that is a function."""
    tried = []

    def attempt(size):
        tried.append(size)
        return Trial(size, seconds_of(size), 100 * size) if size <= most else None

    trials = try_sizes(Trial(2, seconds_of(2), 200), attempt, room)
    return tried, best_of(trials).size


def test_a_fast_model_gets_the_largest_batch():
    assert sizes_tried(lambda n: 1e-5 * n) == ([4, 8, 16, 32, 64, 128, 256], LARGEST)


def test_a_slow_model_stays_at_two_and_is_not_tried_again():
    assert sizes_tried(lambda n: 0.16 * n) == ([], 2)


@pytest.mark.parametrize(("a_window", "size"), [(0.01, 16), (0.0376, 4), (0.002, 128)])
def test_time_grows_with_the_batch(a_window, size):
    tried, chosen = sizes_tried(lambda n: a_window * n)
    assert chosen == size
    assert chosen * a_window <= LONGEST_BATCH_S
    assert sum(a_window * n for n in tried) <= TRIALS_S


def test_an_accelerator_that_waits_the_same_for_any_batch_gets_a_large_one():
    assert sizes_tried(lambda n: 0.1)[1] == LARGEST


def test_trials_of_a_model_near_the_limit_end_soon():
    tried, chosen = sizes_tried(lambda n: 0.29)
    assert sum(0.29 for _ in tried) <= TRIALS_S
    assert chosen > 2


def test_a_model_whose_windows_get_slower_in_company_keeps_its_small_batch():
    assert sizes_tried(lambda n: 0.02 * n if n <= 4 else 0.04 * n)[1] == 4


def test_memory_is_a_limit():
    assert sizes_tried(lambda n: 1e-4, Room(bytes_a_window=20 << 20)) == ([4, 8], 8)
    # 100 bytes a window, of which at most 0.7 · 2000 may be taken.
    assert sizes_tried(lambda n: 1e-4, Room(1, free_bytes=2000)) == ([4, 8], 8)
    assert sizes_tried(lambda n: 1e-4, most=20) == ([4, 8, 16, 32], 16)


def test_a_device_says_how_large_a_batch_may_be():
    assert Room.on(torch.device("cpu"), 1, None).largest == LARGEST_ON_CPU
    assert Room.on(torch.device("cuda"), 1, None).largest == LARGEST
    assert free_bytes(torch.device("cpu")) is None


def limited(most, error=RuntimeError, text="DefaultCPUAllocator: can't allocate memory: 9 bytes"):
    """A model that runs out of memory with more than `most` windows, and the sizes it has met."""
    met = []

    def model(batch):
        met.append(len(batch))
        if len(batch) > most:
            raise error(text)
        return batch.mean((2, 3))

    return load_model(model), met


def test_a_trial_that_does_not_fit_is_the_last_and_not_taken():
    model, met = limited(4)
    told = dry_run(model, PATCHES)
    assert told.batch_size <= 4
    assert max(met) <= 8
    assert [trial.size for trial in told.trials] in ([2], [2, 4])
    assert told.independent


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError])
def test_a_given_size_that_does_not_fit_is_checked_in_halves_and_kept(error):
    model, met = limited(5, error)
    told = dry_run(model, PATCHES, batch_size=20)
    assert told.batch_size == 20  # the run halves it, and says so
    assert told.independent
    assert [size for size in met if size > 2] == [20, 10, 5, 5]


def test_two_windows_that_do_not_fit_are_an_error():
    model, _ = limited(1)
    with pytest.raises(ModelRunError, match="choose a smaller batch_size"):
        dry_run(model, PATCHES)


def test_another_error_in_a_trial_comes_out():
    model, _ = limited(2, text="no memory of how to do this")
    with pytest.raises(ModelRunError, match="no memory of how"):
        dry_run(model, PATCHES)


def test_a_size_that_is_given_is_not_tried():
    model, met = limited(100)
    assert dry_run(model, PATCHES, batch_size=8).trials == ()
    assert set(met) == {2, 8}


@pytest.mark.parametrize(
    ("error", "says_so"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error, says_so):
    assert out_of_memory(error) is says_so
    outer = ModelRunError("the model raised")
    outer.__cause__ = error
    assert out_of_memory(outer) is says_so
