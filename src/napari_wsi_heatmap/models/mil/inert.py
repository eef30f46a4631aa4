"""Reading tensors out of a pickle that holds more, without running anything it says.

torch's own loader of plain tensors refuses a whole file for one `pathlib.Path` or NumPy number
among its settings, which training scripts put there. Here everything but the few functions that
make tensors becomes an `Inert`: an object that takes whatever is done to it and does nothing.
"""

from __future__ import annotations

import collections
import pickle
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO


class Inert:
    """What stands for everything that a pickle names and that makes no tensor."""

    __slots__ = ()
    dump_patches = False
    """Asked of a class of layers in files of before 1.6: True would write a file."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Make one of whatever arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Return itself, whatever it is called with."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Take an item of a list, and forget it."""

    def extend(self, items: Any) -> None:
        """Take items of a list, and forget them."""

    def add(self, item: Any) -> None:
        """Take an item of a set, and forget it."""


class _Maker:
    """A function that a pickle may call.

    The function itself is not handed out: the pickle could change its defaults, for everybody.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle that changes functions")


_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "set"): set,
    ("builtins", "slice"): slice,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
}
"""All that may be called. Storages are named by torch's loader itself."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _MAKERS:
            return _Maker(_MAKERS[module, name])
        # A type of numbers cannot be called or changed.
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return Inert


def _load(file: BinaryIO, **settings: Any) -> Any:
    return _Unpickler(file, **settings).load()


_PICKLE = SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load)
"""As much of the module `pickle` as torch's loader uses."""


def load_inert(file: BinaryIO) -> Any:
    """Load what `torch.save` wrote: tensors, and for anything else `Inert`.

    Parameters
    ----------
    file : binary file, at its beginning
        Not of TorchScript, which torch would run.

    Notes
    -----
    Of a damaged or hostile file it raises whatever the unpickler meets.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files of before 1.6: an Inert has another source
        return torch.load(file, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
