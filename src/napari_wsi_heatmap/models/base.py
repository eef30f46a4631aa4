"""The contract of a model: what it wants to see, what it says, and how it is called."""

from __future__ import annotations

import abc
import hashlib
from typing import TYPE_CHECKING, Any

import torch

from napari_wsi_heatmap.errors import ModelOutputError

if TYPE_CHECKING:
    from collections.abc import Callable

Tensor = torch.Tensor


class HeatmapModel(abc.ABC):
    """A model that gives each window one value per output, or a small map of them.

    Attributes
    ----------
    name : str
        Short name; that of the layer and of the output.
    window : (int, int)
        (height, width) in pixels that the model sees.
    mpp : float or None
        µm per pixel at which it wants to see them; None: whatever level is read.
    names : tuple of str or None
        One per output; None until the dry run has counted them.
    transform : callable or None
        (N, 3, H, W) float32 in 0…1 -> what the model takes, on the device.
    activation : {"softmax", "sigmoid", None}
        Applied to what the model returns.
    output : int, str or None
        Which element of a tuple or key of a dict is drawn.
    output_stride : float or None
        Pixels of the window per cell of a dense output; None: window / h.
    batch_size : int or None
        Number of windows that suits the model; None: measured at the dry run.
    """

    name: str
    window: tuple[int, int] = (224, 224)
    mpp: float | None = None
    names: tuple[str, ...] | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    activation: str | None = None
    output: int | str | None = None
    output_stride: float | None = None
    batch_size: int | None = None

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Hex digest of what decides its values."""

    @abc.abstractmethod
    def forward(self, batch: Tensor) -> Any:
        """Run on (N, 3, H, W), already transformed."""

    def to(self, device: torch.device) -> None:
        """Move to `device` and set evaluation mode. Nothing to do for a plain function."""

    def __call__(self, batch: Tensor) -> Tensor:
        """Values of a batch of patches.

        Parameters
        ----------
        batch : (N, 3, H, W) float
            RGB in 0…1.

        Returns
        -------
        (N, C) or (N, C, h, w) float32
        """
        if self.transform is not None:
            batch = self.transform(batch)
        values = select_output(self.forward(batch), self.output)
        return activate(as_values(values, len(batch)), self.activation)


def select_output(values: Any, output: int | str | None) -> Tensor:
    """Pick the tensor that is drawn from a tensor, tuple or dict."""
    if isinstance(values, torch.Tensor):
        return values
    keys = _keys(values)
    if output is None or output not in keys:
        raise ModelOutputError(
            f"the model returned a {type(values).__name__} of {keys}",
            None if output is None else f"there is no output {output!r}",
            f"choose one with output={keys[0] if keys else None!r}",
        )
    return select_output(values[output], None)


def _keys(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return list(values)
    if isinstance(values, (tuple, list)):
        return list(range(len(values)))
    raise ModelOutputError(
        f"the model returned a {type(values).__name__}",
        do="it must return a tensor (N,), (N, C) or (N, C, h, w)",
    )


def as_values(values: Tensor, n: int) -> Tensor:
    """Bring (N,), (N, C) or (N, C, h, w) to (N, C) or (N, C, h, w) float32."""
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim not in (2, 4) or len(values) != n or 0 in values.shape:
        raise ModelOutputError(
            f"the model returned shape {tuple(values.shape)} for {n} windows",
            do=f"it must return ({n},), ({n}, C) or ({n}, C, h, w)",
        )
    if values.is_complex():
        raise ModelOutputError("the model returned complex numbers", do="return real values")
    return values.to(torch.float32)


def activate(values: Tensor, activation: str | None) -> Tensor:
    """Apply softmax (over C) or sigmoid, or nothing."""
    if activation == "softmax":
        return values.softmax(1)
    return values.sigmoid() if activation == "sigmoid" else values


def module_sha256(module: Any) -> str:
    """Hex digest of a callable: its qualified name and, of a module, its state_dict."""
    digest = hashlib.sha256(qualified_name(module).encode())
    if isinstance(module, torch.nn.Module):
        for key, value in sorted(module.state_dict().items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
                          if value.ndim else repr(value.item()).encode())
    return digest.hexdigest()


def qualified_name(thing: Any) -> str:
    """Module and qualified name of a function, or of an object's class."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
