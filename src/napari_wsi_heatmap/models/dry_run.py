"""Two windows through a model before a run starts: what it returns, how fast, how reliably."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from napari_wsi_heatmap.errors import ModelOutputError
from napari_wsi_heatmap.models.base import inference

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.base import HeatmapModel

Tensor = torch.Tensor

LONGEST_BATCH_S: Final = 0.3
"""A batch chosen here should not keep the first colour, or a cancel, waiting for longer."""
LARGEST_BYTES: Final = 256 << 20
"""float32 pixels of a batch chosen here: what a model makes of them is often ten times that."""
SMALLEST, LARGEST = 2, 32
"""Windows in a batch; alone in its batch a window's value can differ in the last bits."""

RANDOM: Final = (
    "the model gives one window different values when called twice (random layers?): "
    "a resumed run will not match an uninterrupted one"
)
DEPENDENT: Final = (
    "a window's value depends on the other windows of its batch (batch norm in training mode, "
    "dynamic quantisation?): a resumed run can differ from an uninterrupted one"
)
RAISED: Final = "batch size 1 became 2: alone in its batch a window can get other values"


@dataclass(frozen=True)
class DryRun:
    """What two windows told about a model."""

    channels: int
    """C, the number of outputs."""
    map_shape: tuple[int, int] | None
    """(h, w) of a dense output; None where each window has one value per output."""
    names: tuple[str, ...]
    """One per output."""
    batch_size: int
    """Windows in each batch of the run, at least 2."""
    independent: bool
    """Whether a window's values are the same bits whatever else is in its batch."""
    finite: bool
    """Whether all values of the two windows were finite."""
    seconds_per_batch: float
    """How long a whole batch took."""
    notices: tuple[str, ...]
    """What the user should know, a line each."""


def dry_run(
    model: HeatmapModel,
    patches: Tensor,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> DryRun:
    """Run a model on two windows, as the run will: in batches of fixed size, zero-padded.

    Parameters
    ----------
    model : HeatmapModel
        Is moved to the device and set to evaluation mode.
    patches : (2, 3, H, W) float32
        Two windows of the slide, RGB in 0…1.
    batch_size : int, optional
        Else the model's own, else the largest power of two in 2…32 that takes ≤ 0.3 s.
    device : torch.device, optional
        Else that of the patches.
    dtype : torch.dtype
        Precision of the run; a smaller one than float32 by autocast.

    Returns
    -------
    DryRun

    Raises
    ------
    ModelRunError
        If the model raises.
    ModelOutputError
        If its output cannot be placed, or is not as many as its names.
    """
    device = patches.device if device is None else torch.device(device)
    patches = patches.to(device, torch.float32)
    asked = model.batch_size if batch_size is None else batch_size
    model.to(device)
    with inference(device, dtype):
        pair, seconds, alike = _in_pairs(model, patches)
        names = _names(model, pair.shape[1])
        size = _batch_size(seconds, patches[0].nbytes) if asked is None else max(SMALLEST, asked)
        if size > SMALLEST:
            seconds, moved_alike = _in_batches(model, patches, size, pair)
            alike = alike and moved_alike
        notices = [] if alike else [_why_not_alike(model, patches, pair)]
    notices += [RAISED] if asked == 1 else []
    finite = bool(pair.isfinite().all())
    notices += [] if finite else [_not_finite(pair)]
    shape = None if pair.ndim == 2 else (pair.shape[2], pair.shape[3])
    return DryRun(pair.shape[1], shape, names, size, alike, finite, seconds, tuple(notices))


def _in_pairs(model: HeatmapModel, patches: Tensor) -> tuple[Tensor, float, bool]:
    """Both windows together, swapped, and each without the other.

    The swap alone would not tell: the statistics of a batch do not change with its order.
    """
    pair, _ = _timed(model, patches)  # the first call also warms up
    swapped, seconds_swapped = _timed(model, patches.flip(0), pair)
    zero = torch.zeros_like(patches[:1])
    first, seconds_first = _timed(model, torch.cat([zero, patches[:1]]), pair)
    second, seconds_second = _timed(model, torch.cat([patches[1:], zero]), pair)
    alone = torch.cat([first[1:], second[:1]])
    alike = _same_bits(pair, swapped.flip(0)) and _same_bits(pair, alone)
    return pair, min(seconds_swapped, seconds_first, seconds_second), alike


def _in_batches(
    model: HeatmapModel, patches: Tensor, size: int, pair: Tensor
) -> tuple[float, bool]:
    """Both windows in a whole batch, and swapped: the place in it must not matter."""
    padding = patches.new_zeros(size - 2, *patches.shape[1:])
    straight, seconds = _timed(model, torch.cat([patches, padding]), pair)
    swapped, seconds_swapped = _timed(model, torch.cat([patches.flip(0), padding]), pair)
    return min(seconds, seconds_swapped), _same_bits(straight[:2], swapped[:2].flip(0))


def _timed(model: HeatmapModel, batch: Tensor, like: Tensor | None = None) -> tuple[Tensor, float]:
    """Values on the CPU, and how long they took; of the shape of `like`, but for N."""
    start = time.perf_counter()
    values = model(batch.clone()).cpu()  # a model may change its input; waits for a GPU
    seconds = time.perf_counter() - start
    if like is not None and values.shape[1:] != like.shape[1:]:
        raise ModelOutputError(
            f"the model returned shape {tuple(like.shape)} for one batch "
            f"and {tuple(values.shape)} for another",
            do="all but the first number must stay the same",
        )
    return values, seconds


def _same_bits(a: Tensor, b: Tensor) -> bool:
    # As integers, since NaN equals nothing.
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def _batch_size(seconds_per_pair: float, nbytes: int) -> int:
    size = LARGEST
    while size > SMALLEST and (
        seconds_per_pair * size / 2 > LONGEST_BATCH_S or nbytes * size > LARGEST_BYTES
    ):
        size //= 2
    return size


def _why_not_alike(model: HeatmapModel, patches: Tensor, pair: Tensor) -> str:
    again, _ = _timed(model, patches)
    return DEPENDENT if _same_bits(pair, again) else RANDOM


def _not_finite(pair: Tensor) -> str:
    missing = int((~pair.isfinite()).sum())
    return f"{missing} of {pair.numel()} values of two sample windows are NaN or infinite"


def _names(model: HeatmapModel, channels: int) -> tuple[str, ...]:
    if model.names is None:
        return ("value",) if channels == 1 else tuple(map(str, range(channels)))
    if len(model.names) != channels:
        raise ModelOutputError(
            f"the model has {channels} outputs and {len(model.names)} names",
            ", ".join(model.names),
            "give one name per output, or none",
        )
    return model.names
