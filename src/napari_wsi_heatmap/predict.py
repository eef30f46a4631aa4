"""Patches in, values out: resize, scale to 0…1, transform, model, back to numpy."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_wsi_heatmap.errors import ModelError, ModelOutputError, ModelRunError
from napari_wsi_heatmap.models.arithmetic import best_layout
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.models.batchsize import SMALLEST
from napari_wsi_heatmap.models.memory import give_back, out_of_memory
from napari_wsi_heatmap.resize import resize_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.models.base import HeatmapModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Find the device of a name such as ``auto``, ``cpu``, ``cuda:0`` or ``mps``.

    Raises
    ------
    ModelError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device(_best_device())
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"no device {name!r} here", do=f"choose auto, cpu{_others()}") from error
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _others() -> str:
    return "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))


@dataclass(frozen=True)
class Halving:
    """Memory ran out within a batch, which went on in smaller ones."""

    row: int
    """The first window of the batch that was computed in a batch of the new size."""
    before: int
    """Windows in a batch until then."""
    after: int
    """Windows in a batch from there on."""


class Predictor:
    """Runs a model on batches of uint8 patches.

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
    halvings : list of Halving
        Of the last batch.
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
        self._twin: HeatmapModel | None = None
        self.halvings: list[Halving] = []
        self._most: int | None = None  # windows in a batch, once memory ran out

    def patches(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, 3, kh, kw) uint8 -> (N, 3, H, W) float32 in 0…1, as a model sees them."""
        with enough_memory(f"{len(patches)} windows of {self._window[0]} x {self._window[1]} px"):
            sized = resize_patches(patches.to(self.device), self._window, self._resize)
            return sized.to(torch.float32).div_(255)

    @property
    def channels_last(self) -> bool:
        """Whether patches are handed over with their channels last."""
        return self._layout == torch.channels_last

    def as_it_is(self, batch: torch.Tensor) -> torch.Tensor:
        """Values of (N, 3, H, W) float32 on the device, in the layout that suits the model."""
        return self.model(batch.contiguous(memory_format=self._layout))

    def _compiled(self, batch: torch.Tensor) -> torch.Tensor:
        if self._twin is None:
            self._twin = self.model.compiled()
        return self._twin(batch.contiguous(memory_format=self._layout))

    @property
    def compiled(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """`as_it_is` by the compiled model, if that is wanted; it raises where it cannot be."""
        return self._compiled if self._may_compile else None

    def __call__(
        self, patches: torch.Tensor, n: int, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Values of the first `n` of a batch of patches.

        Where memory runs out, the batch goes on in halves (padded with zeros to one size, as
        ever), and so do those after it: `halvings` says so.

        Parameters
        ----------
        patches : (B, 3, kh, kw) uint8
        n : int
        shape : (C,) or (C, h, w)
            What the model gave a window in the dry run.

        Returns
        -------
        (n, C) or (n, C, h, w) float32

        Raises
        ------
        ModelRunError
            If the model raises, or not even two windows fit into memory; ModelOutputError if
            what it returns cannot be placed.
        """
        self.halvings = []
        size = min(self._most or len(patches), len(patches))
        parts: list[NDArray[np.float32]] = []
        done = 0
        while done < n:
            values = self._try(_rows(patches, done, size), size, shape)
            if values is None:
                size = self._halve(done, size)
            else:
                parts.append(values[: n - done])
                done += size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _halve(self, row: int, size: int) -> int:
        """Let go of what is left of a batch that did not fit; return the next size to try."""
        give_back(self.device)
        self._most = max(SMALLEST, size // 2)
        self.halvings.append(Halving(row, size, self._most))
        return self._most

    def _try(
        self, patches: torch.Tensor, size: int, shape: tuple[int, ...]
    ) -> NDArray[np.float32] | None:
        """(B, ...) values; None if memory does not suffice and a smaller batch is left to try."""
        try:
            with enough_memory(f"a batch of {size} windows"):
                return self._values(patches, shape)
        except ModelRunError as error:
            if size <= SMALLEST or not out_of_memory(error):
                raise
            return None  # here the error ends, and what it holds of the batch

    def _values(self, patches: torch.Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
        call = self._compiled if self.use_compiled else self.as_it_is
        with inference(self.device, self.dtype):
            values = call(self.patches(patches))
        if values.shape[1:] != shape:
            raise ModelOutputError(
                f"the model returned shape {tuple(values.shape[1:])} for a window",
                f"model {self.model.name!r}",
                f"it must stay {shape}, as in the dry run",
            )
        return values.detach().to("cpu", torch.float32).numpy()


def _rows(patches: torch.Tensor, first: int, size: int) -> torch.Tensor:
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
