"""Two windows through a model before a run starts: what it returns, how fast, how reliably."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from napari_wsi_heatmap.errors import HeatmapError, ModelOutputError, one_line
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.batchsize import SMALLEST, Room, Trial, best_of, try_sizes
from napari_wsi_heatmap.models.memory import PeakMemory, free_bytes, give_back, out_of_memory
from napari_wsi_heatmap.models.named import output_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.models.base import HeatmapModel

    Call = Callable[[torch.Tensor], torch.Tensor]
    Shape = tuple[int, ...]

Tensor = torch.Tensor

RANDOM: Final = (
    "the model gives one window different values when called twice (random layers?): "
    "a resumed run will not match an uninterrupted one"
)
DEPENDENT: Final = (
    "a window's value depends on the other windows of its batch (batch norm in training mode, "
    "dynamic quantisation?): a resumed run can differ from an uninterrupted one"
)
RAISED: Final = "batch size 1 became 2: alone in its batch a window can get other values"
NOT_COMPILED: Final = "the model could not be compiled, and runs as it is: {}"
REPEATS: Final = 3
"""As many as two windows are timed; the shortest counts, since other programs only lengthen it."""
REPEATS_S: Final = 0.1
"""Unless they take longer together."""


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
    trials: tuple[Trial, ...] = ()
    """Batch sizes that were tried, if none was given."""
    compiled: bool = False
    """Whether the compiled model did what the other one does."""
    features: int | None = None
    """D, the length of a window's feature vector; None where none was asked for."""


def dry_run(
    model: HeatmapModel,
    patches: Tensor,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    call: Call | None = None,
    compiled: Call | None = None,
) -> DryRun:
    """Run a model on two windows, as the run will: in batches of fixed size, zero-padded.

    Parameters
    ----------
    model : HeatmapModel
        Is moved to the device and set to evaluation mode.
    patches : (2, 3, H, W) float32
        Two windows of the slide, RGB in 0…1.
    batch_size : int, optional
        Else the model's own, else the one that `models.batchsize` finds.
    device : torch.device, optional
        Else that of the patches.
    dtype : torch.dtype
        Precision of the run; a smaller one than float32 by autocast.
    call : callable, optional
        How the run calls the model, if not just by `model.rows`.
    compiled : callable, optional
        The same, compiled; tried in whole batches only, since each shape is compiled anew.

    Returns
    -------
    DryRun

    Raises
    ------
    ModelRunError
        If the model raises.
    ModelOutputError
        If its output cannot be placed, has not as many names, or its features are no vectors.
    """
    device = patches.device if device is None else torch.device(device)
    patches = patches.to(device, torch.float32)
    call = call or model.rows
    model.to(device)
    with inference(device, dtype):
        pair, told = _in_pairs(call, patches)
        shape, features = _shapes(model, patches, pair)
        names = output_names(model, patches, shape[0])
        size, trials = _batch_size(model, call, patches, pair, told.seconds, batch_size)
        if size > SMALLEST:
            told = told.and_then(_in_whole_batches(call, patches, size, pair))
        notices = [] if told.alike else [_why_not_alike(call, patches, pair)]
        works, why_not = _try_compiled(compiled, patches, size, pair)
    told = told.and_then(works) if works else told
    asked_for_one = model.batch_size if batch_size is None else batch_size
    notices += [*why_not, *([RAISED] if asked_for_one == 1 else []), *_not_finite(pair)]
    return DryRun(
        channels=shape[0],
        map_shape=(shape[1], shape[2]) if len(shape) == 3 else None,
        names=names,
        batch_size=size,
        independent=told.alike,
        finite=bool(pair.isfinite().all()),
        seconds_per_batch=told.seconds,
        notices=tuple(notices),
        trials=trials,
        compiled=works is not None,
        features=features,
    )


def _shapes(model: HeatmapModel, patches: Tensor, pair: Tensor) -> tuple[Shape, int | None]:
    """(C,) or (C, h, w) of the values, and D of the features: rows hold both, one by one."""
    values, features = (pair, None) if model.features is None else model.outputs(patches.clone())
    if features is None:
        return tuple(values.shape[1:]), None
    if pair.shape[1:] != (values[0].numel() + features.shape[1],):
        raise _changed(pair, values)
    return tuple(values.shape[1:]), features.shape[1]


@dataclass(frozen=True)
class _Told:
    """How long a batch took, and whether a window's bits stayed the same in others."""

    seconds: float
    alike: bool

    def and_then(self, later: _Told) -> _Told:
        return _Told(later.seconds, self.alike and later.alike)


def _in_pairs(call: Call, patches: Tensor) -> tuple[Tensor, _Told]:
    """Both windows together, swapped, and each without the other.

    The swap alone would not tell: the statistics of a batch do not change with its order.
    """
    pair, _ = _timed(call, patches)  # the first call also warms up
    swapped, seconds_swapped = _timed(call, patches.flip(0), pair)
    zero = torch.zeros_like(patches[:1])
    first, seconds_first = _timed(call, torch.cat([zero, patches[:1]]), pair)
    second, seconds_second = _timed(call, torch.cat([patches[1:], zero]), pair)
    alone = torch.cat([first[1:], second[:1]])
    alike = _same_bits(pair, swapped.flip(0)) and _same_bits(pair, alone)
    return pair, _Told(min(seconds_swapped, seconds_first, seconds_second), alike)


def _batch_size(
    model: HeatmapModel,
    call: Call,
    patches: Tensor,
    pair: Tensor,
    seconds: float,
    given: int | None,
) -> tuple[int, tuple[Trial, ...]]:
    """Return the size that was given, or that the model states, or the best of those tried."""
    asked = model.batch_size if given is None else given
    if asked is not None:
        return max(SMALLEST, asked), ()

    def attempt(size: int) -> Trial | None:
        return _attempt(call, patches, size, pair)

    device = patches.device
    room = Room.on(device, patches[0].nbytes, free_bytes(device))
    trials = try_sizes(Trial(SMALLEST, seconds), attempt, room)
    return best_of(trials).size, tuple(trials)


def _attempt(call: Call, patches: Tensor, size: int, pair: Tensor) -> Trial | None:
    """Time a whole batch; None if memory does not suffice."""
    device = patches.device
    try:
        peak, batch = PeakMemory(device), _padded(patches, size)
        taken = [_timed(call, batch, pair)[1]]
        if device.type != "cpu":  # the first of a shape warms up
            taken.append(_timed(call, batch, pair)[1])
        while len(taken) < REPEATS and sum(taken) + taken[-1] < REPEATS_S:
            taken.append(_timed(call, batch, pair)[1])
    except (HeatmapError, RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    else:
        return Trial(size, min(taken), peak.nbytes)
    give_back(device)
    return None


def _in_whole_batches(call: Call, patches: Tensor, size: int, pair: Tensor) -> _Told:
    """Both windows in a whole batch, and swapped: the place in it must not matter.

    Where memory does not suffice, in the largest half, quarter, … that fits: so will the run.
    """
    while True:
        try:
            straight, seconds = _timed(call, _padded(patches, size), pair)
            swapped, seconds_swapped = _timed(call, _padded(patches.flip(0), size), pair)
            alike = _same_bits(straight[:2], swapped[:2].flip(0))
            return _Told(min(seconds, seconds_swapped), alike)
        except (HeatmapError, RuntimeError, MemoryError) as error:
            if size <= SMALLEST or not out_of_memory(error):
                raise
        give_back(patches.device)
        size = max(SMALLEST, size // 2)


def _try_compiled(
    compiled: Call | None, patches: Tensor, size: int, pair: Tensor
) -> tuple[_Told | None, list[str]]:
    """What the compiled model told; None, and why, if it cannot be used."""
    if compiled is None:
        return None, []
    try:
        together, _ = _timed(compiled, _padded(patches, size), pair)
        told = _in_whole_batches(compiled, patches, size, pair)
        alone, _ = _timed(compiled, _padded(patches[:1], size), pair)
    except Exception as error:  # noqa: BLE001 - the model ran, so it is the compiler's
        return None, [NOT_COMPILED.format(one_line(error, 160))]
    alike = told.alike and _same_bits(together[:1], alone[:1])
    return _Told(told.seconds, alike), [] if alike else [DEPENDENT]


def _padded(patches: Tensor, size: int) -> Tensor:
    """Patches and as many zeros as make a batch of `size`."""
    return torch.cat([patches, patches.new_zeros(size - len(patches), *patches.shape[1:])])


def _timed(call: Call, batch: Tensor, like: Tensor | None = None) -> tuple[Tensor, float]:
    """Values on the CPU, and how long they took; of the shape of `like`, but for N."""
    start = time.perf_counter()
    # A model may change its input, or fill what it returned anew; waits for a GPU.
    values = call(batch.clone()).cpu().clone()
    seconds = time.perf_counter() - start
    if like is not None and values.shape[1:] != like.shape[1:]:
        raise _changed(like, values)
    return values, seconds


def _changed(before: Tensor, after: Tensor) -> ModelOutputError:
    return ModelOutputError(
        f"the model returned shape {tuple(before.shape)} for one batch "
        f"and {tuple(after.shape)} for another",
        do="all but the first number must stay the same",
    )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    # As integers, since NaN equals nothing.
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def _why_not_alike(call: Call, patches: Tensor, pair: Tensor) -> str:
    again, _ = _timed(call, patches)
    return DEPENDENT if _same_bits(pair, again) else RANDOM


def _not_finite(pair: Tensor) -> list[str]:
    missing = int((~pair.isfinite()).sum())
    told = f"{missing} of {pair.numel()} values of two sample windows are NaN or infinite"
    return [told] if missing else []
