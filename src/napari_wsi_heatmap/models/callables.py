"""Models handed over in Python: an nn.Module, a function, anything that can be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.base import HeatmapModel
from napari_wsi_heatmap.models.identity import module_of, module_sha256, readable_name
from napari_wsi_heatmap.models.settings import checked

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

STATED = {"window": (int, tuple, list), "mpp": (int, float), "names": (str, tuple, list)}
"""Attributes by which a callable says what it wants, and of which type they then are."""


class ModuleMode:
    """Training flags and device of a module, as its owner had them."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._training = [(part, part.training) for part in module.modules()]
        devices = {
            tensor.device for tensor in module.state_dict().values() if hasattr(tensor, "device")
        }
        self._module, self._device = module, devices.pop() if len(devices) == 1 else None

    def restore(self) -> None:
        """Put them back."""
        for part, training in self._training:
            part.training = training
        if self._device is not None:
            self._module.to(self._device)


@final
class CallableModel(HeatmapModel):
    """Any callable that maps (N, 3, H, W) float32 to values.

    Parameters
    ----------
    function : nn.Module or callable
        Returns (N,), (N, C) or (N, C, h, w), as a tensor or numpy array, or a tuple or dict of
        these. Its attributes `window`, `mpp` and `names`, where it has them, are honoured.
    **settings
        Attributes of `HeatmapModel`, checked; they win over what the callable states.
    """

    def __init__(self, function: Callable[[Any], Any], **settings: Any) -> None:
        if isinstance(function, type):
            name = function.__name__
            raise ModelLoadError(f"{name} is a class", do=f"hand over an instance: {name}()")
        self.function = function
        self.name = readable_name(function)
        self._module = module_of(function)
        self._before: ModuleMode | None = None
        self.settle(**(_stated(function) | settings))

    @property
    def sha256(self) -> str:
        """Hex digest of qualified name, code, layers, weights, transform and activation."""
        return self._digest(module_sha256(self.function))

    def forward(self, batch: torch.Tensor) -> Any:
        """Call the function."""
        return self.function(batch)

    def to(self, device: torch.device) -> None:
        """Move the module to `device` and set evaluation mode; `restore` puts it back."""
        if self._module is not None:
            self._before = self._before or ModuleMode(self._module)
            self._module.eval().to(device)

    def restore(self) -> None:
        """Give the module back the training flags and the device that it had."""
        if self._before is not None:
            self._before.restore()
            self._before = None


def _stated(function: Any) -> dict[str, Any]:
    # A module may well have a buffer or a layer called `window`; only plain values count.
    values = {name: getattr(function, name, None) for name in STATED}
    return checked(**{n: v for n, v in values.items() if isinstance(v, STATED[n])})
