"""Models handed over in Python: an nn.Module, a function, anything that can be called."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar, final
from weakref import WeakKeyDictionary, ref

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
    """Training flags and device of a module, as its owner had them.

    Several runs may use one module at a time: the last of them to end puts its owner's back.
    """

    _of: ClassVar[WeakKeyDictionary[torch.nn.Module, ModuleMode]] = WeakKeyDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, module: torch.nn.Module) -> None:
        self._training = [(part, part.training) for part in module.modules()]
        devices = {
            tensor.device for tensor in module.state_dict().values() if hasattr(tensor, "device")
        }
        self._module, self._device = ref(module), devices.pop() if len(devices) == 1 else None
        self._users = 0

    @classmethod
    def borrow(cls, module: torch.nn.Module) -> ModuleMode:
        """Remember what the owner had, unless somebody else remembers it already."""
        with cls._lock:
            mode = cls._of.get(module) or cls(module)
            cls._of[module] = mode
            mode._users += 1
            return mode

    def restore(self) -> None:
        """Put them back, if nobody else uses the module any more."""
        with self._lock:
            self._users -= 1
            module = self._module()
            if self._users or module is None:
                return
            del self._of[module]
            for part, training in self._training:
                part.training = training
            if self._device is not None:
                module.to(self._device)


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

    @property
    def module(self) -> torch.nn.Module | None:
        """The module that is called, if it is one."""
        return self._module

    def forward(self, batch: torch.Tensor) -> Any:
        """Call the function."""
        return self.function(batch)

    def to(self, device: torch.device) -> None:
        """Move the module to `device` and set evaluation mode; `restore` puts it back."""
        if self._module is not None:
            self._before = self._before or ModuleMode.borrow(self._module)
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
