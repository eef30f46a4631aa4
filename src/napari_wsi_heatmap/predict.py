"""Patches in, values out: resize, scale to 0…1, transform, model, back to numpy."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_wsi_heatmap.errors import ModelOutputError, ModelRunError
from napari_wsi_heatmap.models.arithmetic import best_layout
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.batchsize import SMALLEST
from napari_wsi_heatmap.models.memory import give_back, out_of_memory
from napari_wsi_heatmap.resize import resize_patches
from napari_wsi_heatmap.reused import ReusedArrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.models.base import HeatmapModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Halving:
    """Memory ran out within a batch, which went on in smaller ones."""

    row: int
    """The first window of the batch that was computed in a batch of the new size."""
    before: int
    """Windows in a batch until then."""
    after: int
    """Windows in a batch from there on."""


@dataclass(frozen=True)
class Seen:
    """A batch as the model is to see it."""

    stored: torch.Tensor
    """(B, 3, kh, kw) uint8"""
    patches: torch.Tensor | None
    """(B, 3, H, W) float32; None if there was no memory for all of them at once."""


@dataclass(frozen=True)
class Computed:
    """What a model gave for a batch; from a GPU it may still be on its way."""

    rows: torch.Tensor
    """(n, ...) float32, on the CPU."""
    halvings: tuple[Halving, ...]
    arrived: torch.cuda.Event | None = None

    def numpy(self) -> NDArray[np.float32]:
        """Wait for the values; (n, ...) float32."""
        if self.arrived is not None:
            self.arrived.synchronize()
        values: NDArray[np.float32] = self.rows.numpy()
        return values


class Predictor:
    """Runs a model on batches of uint8 patches.

    `see` may be called by several threads at once; `compute` too, if the model says so.

    Parameters
    ----------
    model : HeatmapModel
        Already on `device`.
    window : (int, int)
        (h, w) that the model sees; patches of another size are resized.
    resize : {"pillow", "torch"}
    precision : {"float32", "bfloat16", "float16"}
        Other than float32: autocast.
    compile : bool
        Whether `compiled` may be used.

    Attributes
    ----------
    use_compiled : bool
        Call the compiled model; for the dry run to decide.
    """

    def __init__(
        self,
        model: HeatmapModel,
        device: torch.device,
        window: tuple[int, int],
        resize: str = "pillow",
        precision: str = "float32",
        *,
        compile: bool = False,
    ) -> None:
        self.model, self.device = model, device
        self._window, self._resize, self.dtype = window, resize, DTYPES[precision]
        self._layout = best_layout(model, device)
        self._may_compile, self.use_compiled = compile, False
        self._few = model.few(12 * window[0] * window[1]) if device.type == "cpu" else None
        self._twin: HeatmapModel | None = None
        self._arrays = ReusedArrays()
        self._most: int | None = None  # windows in a batch, once memory ran out

    def on(self, device: torch.device) -> Predictor:
        """Return one like this for another device, with a copy of the model's layers there."""
        other = copy.copy(self)
        other.model, other.device, other._twin = self.model.replica(), device, None
        other.model.to(device)
        return other

    def patches(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, 3, kh, kw) uint8 -> (N, 3, H, W) float32 in 0…1, as a model sees them."""
        with enough_memory(f"{len(patches)} windows of {self._window[0]} x {self._window[1]} px"):
            sized = resize_patches(patches.to(self.device), self._window, self._resize)
            return to_unit(sized, self._layout, self._arrays)

    @property
    def channels_last(self) -> bool:
        """Whether patches are handed over with their channels last."""
        return self._layout == torch.channels_last

    def sort_channels(self) -> bool:
        """Hand patches over channel by channel from now on; False if they are so already."""
        sorted_before, self._layout = not self.channels_last, torch.contiguous_format
        return not sorted_before

    def as_it_is(self, batch: torch.Tensor) -> torch.Tensor:
        """Rows of (N, 3, H, W) float32 on the device, in the layout that suits the model."""
        parts = torch.split(batch.contiguous(memory_format=self._layout), self._few or len(batch))
        return _together([self.model.rows(part) for part in parts])

    def _compiled(self, batch: torch.Tensor) -> torch.Tensor:
        if self._twin is None:
            self._twin = self.model.compiled()
        return self._twin.rows(batch.contiguous(memory_format=self._layout))

    @property
    def compiled(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """`as_it_is` by the compiled model, if that is wanted; it raises where it cannot be."""
        return self._compiled if self._may_compile else None

    @property
    def _at_a_time(self) -> int | None:
        """Windows that are prepared and computed together; None: a batch."""
        return None if self.use_compiled else self._few

    def see(self, patches: torch.Tensor) -> Seen:
        """Prepare a batch of (B, 3, kh, kw) uint8; no model is called."""
        if self._most is not None or self._at_a_time:
            return Seen(patches, None)
        try:
            return Seen(patches, self.patches(patches))
        except ModelRunError as error:
            if len(patches) <= SMALLEST or not out_of_memory(error):
                raise
        give_back(self.device)
        return Seen(patches, None)

    def compute(self, seen: Seen, n: int, shape: tuple[int, ...]) -> Computed:
        """Rows of the first `n` of a batch.

        Where memory runs out, the batch goes on in halves (padded with zeros to one size, as
        ever), and so do those after it: `halvings` says so.

        Parameters
        ----------
        seen : Seen
            B windows.
        n : int
        shape : tuple of int
            Of what the model gave a window in the dry run.

        Raises
        ------
        ModelRunError
            If the model raises, or not even two windows fit into memory; ModelOutputError if
            what it returns cannot be placed.
        """
        halvings: list[Halving] = []
        if seen.patches is None and self._most is None and not self._at_a_time:
            halvings.append(self._halve(0, len(seen.stored)))
        size = min(self._most or len(seen.stored), len(seen.stored))
        parts: list[torch.Tensor] = []
        done = 0
        while done < n:
            rows = self._try(seen, done, size, shape)
            if rows is None:
                halvings.append(self._halve(done, size))
                size = halvings[-1].after
                seen = Seen(seen.stored, None)  # the model may have changed what it saw
            else:
                parts.append(rows[: n - done])
                done += size
        return _to_host(_together(parts), tuple(halvings))

    def __call__(
        self, patches: torch.Tensor, n: int, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """`see` and `compute` at one go, and wait; (n, ...) float32."""
        return self.compute(self.see(patches), n, shape).numpy()

    def _halve(self, row: int, size: int) -> Halving:
        """Let go of what is left of a batch that did not fit, and choose the next size to try."""
        give_back(self.device)
        self._most = max(SMALLEST, size // 2)
        return Halving(row, size, self._most)

    def _try(
        self, seen: Seen, first: int, size: int, shape: tuple[int, ...]
    ) -> torch.Tensor | None:
        """(B, ...) rows; None if memory does not suffice and a smaller batch is left to try."""
        try:
            with enough_memory(f"a batch of {size} windows"):
                return self._rows(seen, first, size, shape)
        except ModelRunError as error:
            if size <= SMALLEST or not out_of_memory(error):
                raise
            return None  # here the error ends, and what it holds of the batch

    def _rows(self, seen: Seen, first: int, size: int, shape: tuple[int, ...]) -> torch.Tensor:
        call = self._compiled if self.use_compiled else self.as_it_is
        with inference(self.device, self.dtype):
            if seen.patches is None:
                stored = torch.split(_part(seen.stored, first, size), self._at_a_time or size)
                rows = _together([call(self.patches(part)) for part in stored])
            else:
                rows = call(_part(seen.patches, first, size))
        if rows.shape[1:] != shape:
            raise ModelOutputError(
                f"the model returned shape {tuple(rows.shape[1:])} for a window",
                f"model {self.model.name!r}",
                f"it must stay {shape}, as in the dry run",
            )
        return rows.detach().to(torch.float32)


def _together(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def to_unit(
    patches: torch.Tensor, layout: torch.memory_format, arrays: ReusedArrays
) -> torch.Tensor:
    """(N, 3, H, W) uint8 -> float32 in 0…1, in that layout.

    On the CPU by NumPy, in the calling thread: torch would share so short a work out among its
    threads, and wait for the one that a reader keeps from its core.
    """
    if patches.device.type != "cpu":
        return patches.to(torch.float32, memory_format=layout).div_(255)
    shape = patches.shape
    if layout == torch.channels_last:
        last = arrays.empty((shape[0], shape[2], shape[3], shape[1]), np.float32)
        unit = last.transpose(0, 3, 1, 2)
    else:
        unit = arrays.empty(tuple(shape), np.float32)
    np.copyto(unit, patches.numpy())
    unit /= np.float32(255)
    return torch.from_numpy(unit)


def _to_host(rows: torch.Tensor, halvings: tuple[Halving, ...]) -> Computed:
    """Begin to copy rows from a GPU; what else waits there does not hold them up."""
    if rows.device.type != "cuda":
        # A copy: the model may return what it fills anew at its next call.
        return Computed(torch.empty_like(rows, device="cpu").copy_(rows), halvings)
    host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    host.copy_(rows, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(rows.device))
    return Computed(host, halvings, arrived)


def _part(patches: torch.Tensor, first: int, size: int) -> torch.Tensor:
    """`size` patches from `first` on, with zeros after the last."""
    rows = patches[first : first + size]
    if len(rows) == size:
        return rows
    return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Turn the many ways in which memory runs out into one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ModelRunError(
            f"not enough memory for {what}", do="choose a smaller batch_size or window"
        ) from error
