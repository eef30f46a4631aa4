"""Patches in, values out: resize, scale to 0…1, transform, model, back to numpy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from napari_wsi_heatmap.errors import ModelError, ModelOutputError, ModelRunError
from napari_wsi_heatmap.models.base import inference
from napari_wsi_heatmap.resize import resize_patches

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
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
    """

    def __init__(
        self,
        model: HeatmapModel,
        device: torch.device,
        window: tuple[int, int],
        resize: str = "pillow",
        precision: str = "float32",
    ) -> None:
        self.model, self.device = model, device
        self._window, self._resize, self.dtype = window, resize, DTYPES[precision]

    def patches(self, patches: torch.Tensor) -> torch.Tensor:
        """(N, 3, kh, kw) uint8 -> (N, 3, H, W) float32 in 0…1, as a model sees them."""
        with enough_memory(f"{len(patches)} windows of {self._window[0]} x {self._window[1]} px"):
            sized = resize_patches(patches.to(self.device), self._window, self._resize)
            return sized.to(torch.float32).div_(255)

    def __call__(
        self, patches: torch.Tensor, n: int, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Values of the first `n` of a batch of patches.

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
            If the model raises; ModelOutputError if what it returns cannot be placed.
        """
        with inference(self.device, self.dtype):
            values = self.model(self.patches(patches))[:n]
        if values.shape[1:] != shape:
            raise ModelOutputError(
                f"the model returned shape {tuple(values.shape[1:])} for a window",
                f"model {self.model.name!r}",
                f"it must stay {shape}, as in the dry run",
            )
        return values.detach().to("cpu", torch.float32).numpy()


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Turn the many ways in which memory runs out into one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise ModelRunError(
            f"not enough memory for {what}", do="choose a smaller batch_size or window"
        ) from error
