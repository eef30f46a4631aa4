"""What a model handed over in Python is recognised by when a run is resumed."""

from __future__ import annotations

import functools
import hashlib
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def module_sha256(function: Any) -> str:
    """Hex digest of a callable: its qualified name, code, and of a module weights and layers.

    What a function reaches through its globals or closure is not covered.
    """
    digest = hashlib.sha256(qualified_name(function).encode())
    for part in _code_of(function):
        digest.update(repr(part).encode())
    module = module_of(function)
    for data in () if module is None else _content_of(module):
        digest.update(data)
    return digest.hexdigest()


def qualified_name(thing: Any) -> str:
    """Module and qualified name of a function, or of an object's class."""
    thing = plain(thing)
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def readable_name(function: Any) -> str:
    """Short name of a callable for people: of a lambda, "model"."""
    function = plain(function)
    name = str(getattr(function, "__name__", None) or type(function).__name__)
    return "model" if name == "<lambda>" else name


def plain(function: Any) -> Any:
    """Return what a `functools.partial` calls in the end."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def module_of(function: Any) -> torch.nn.Module | None:
    """Return the nn.Module that is called: itself, or the owner of a bound method."""
    function = plain(function)
    owner = getattr(function, "__self__", function)
    return owner if isinstance(owner, torch.nn.Module) else None


def _code_of(function: Any) -> Iterator[object]:
    """Yield what tells two functions of one name apart: lambdas all have the same."""
    code = getattr(plain(function), "__code__", None)
    if isinstance(code, CodeType):
        yield from _parts(code)
    if isinstance(function, functools.partial):
        yield from (a for a in function.args if isinstance(a, (int, float, str)))
        yield sorted((k, repr(v)) for k, v in function.keywords.items() if _simple(v))


def _parts(code: CodeType) -> Iterator[object]:
    yield code.co_code
    yield code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
        elif _simple(constant):
            yield constant


def _simple(value: object) -> bool:
    """Whether the repr of a value is the same in every process."""
    if isinstance(value, tuple):
        return all(map(_simple, value))
    return value is None or isinstance(value, (int, float, complex, str, bytes))


def _content_of(module: torch.nn.Module) -> Iterator[bytes]:
    """Yield layers and weights; layers, since an activation function has no weights."""
    for name, layer in module.named_modules():
        yield f"{name} {qualified_name(layer)} {layer.extra_repr()}".encode()
    source = getattr(module, "code", None)  # of a scripted or traced module
    if isinstance(source, str):
        yield source.encode()
    for key, value in sorted(module.state_dict().items()):
        yield key.encode()
        yield from _bytes_of(value)


def _bytes_of(value: Any) -> Iterator[bytes]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _bytes_of(item)
    elif isinstance(value, torch.Tensor):
        if value.is_quantized:
            value = value.dequantize()
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif _simple(value):
        yield repr(value).encode()
