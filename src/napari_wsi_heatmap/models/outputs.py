"""What a model returns, brought to (N, C) or (N, C, h, w) float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_wsi_heatmap.errors import ModelOutputError
from napari_wsi_heatmap.models.named import class_index

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor
Key = int | str
Output = Key | tuple[Key, Key] | None
"""An index or a key of a tuple or dict; an index or a name of a class; or both."""


def split_output(values: Any, output: Output) -> tuple[Key | None, Key | None]:
    """Which element of what a model returned is drawn, and which class of it.

    A tuple, list or dict of several is chosen from first; a tensor, alone or as the only element
    of one, has nothing but its classes to choose from.

    Returns
    -------
    key : int, str or None
        For `select_output`.
    chosen : int, str or None
        For `named.class_index`; None: all classes.

    Raises
    ------
    ModelOutputError
        If there is nothing to choose an element from.
    """
    alone = isinstance(values, (Tensor, np.ndarray, np.generic))
    if isinstance(output, tuple):
        if alone:
            raise _alone(values, *output)
        return output
    if output is None or alone:
        return None, output
    keys = _keys(values)
    if output in keys or _counts_from_the_end(values, output):
        return output, None
    return (None, output) if len(keys) == 1 else (output, None)


def _alone(values: Any, key: Key, chosen: Key) -> ModelOutputError:
    return ModelOutputError(
        f"the model returned one {type(values).__name__}",
        f"there is no output {key!r}",
        f"choose the class alone, with output={chosen!r}",
    )


def drawn(
    raw: Any, n: int, output: Output, activation: str | None, names: Sequence[str] | None
) -> tuple[Tensor, int | None]:
    """All classes of what is drawn of what a model returned for `n` windows.

    Returns
    -------
    values : (N, C) or (N, C, h, w) float32
        After the activation.
    chosen : int or None
        Number of the one class that is wanted; None: all are.
    """
    key, chosen = split_output(raw, output)
    values = activate(as_values(select_output(raw, key), n), activation)
    return values, None if chosen is None else class_index(chosen, names, values.shape[1])


def select_output(values: Any, output: Key | None) -> Tensor:
    """Pick the tensor that is drawn from a tensor, array, tuple or dict.

    A tuple, list or dict of one entry needs no `output`; an index may count from the end.

    Raises
    ------
    ModelOutputError
        If it is none of these, or `output` picks none of them.
    """
    if isinstance(values, (np.ndarray, np.generic)):
        return _from_numpy(np.asarray(values))
    if isinstance(values, Tensor):
        return values
    keys = _keys(values)
    if output is None and len(keys) == 1:
        return select_output(values[keys[0]], None)
    if output not in keys and not _counts_from_the_end(values, output):
        raise _unpicked(values, keys, output)
    return select_output(values[output], None)


def _counts_from_the_end(values: Any, output: Key | None) -> bool:
    if isinstance(values, (tuple, list)) and isinstance(output, int):
        return -len(values) <= output < 0
    return False


def _from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    try:
        return torch.from_numpy(array.copy())  # torch takes no negative strides
    except TypeError:
        raise ModelOutputError(
            f"the model returned an array of {array.dtype}", do="return numbers"
        ) from None


def _keys(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return list(values)
    if isinstance(values, (tuple, list)):
        return list(range(len(values)))
    raise ModelOutputError(
        f"the model returned a {type(values).__name__}",
        do="it must return a tensor (N,), (N, C) or (N, C, h, w)",
    )


def _unpicked(values: Any, keys: list[Any], output: Key | None) -> ModelOutputError:
    first = keys[0] if keys else None
    classes = (
        f", or a class of it with output={(first, output)!r}" if isinstance(output, str) else ""
    )
    return ModelOutputError(
        f"the model returned a {type(values).__name__} of {keys}",
        None if output is None else f"there is no output {output!r}",
        f"choose one with output={first!r}{classes}",
    )


def as_values(values: Tensor, n: int) -> Tensor:
    """Bring the output for `n` windows to (N, C) or (N, C, h, w) float32.

    (N,) becomes (N, 1). (N, C, 1, 1), as pooling leaves it, becomes (N, C).

    Raises
    ------
    ModelOutputError
        If the shape or the type is another.
    """
    if values.ndim not in (1, 2, 4) or len(values) != n or 0 in values.shape:
        raise ModelOutputError(
            f"the model returned shape {tuple(values.shape)} for {n} windows",
            do=f"it must return ({n},), ({n}, C) or ({n}, C, h, w)",
        )
    if values.is_complex():
        raise ModelOutputError("the model returned complex numbers", do="return real values")
    if values.ndim == 1 or values.shape[2:] == (1, 1):
        values = values.reshape(n, -1)
    return values.to(torch.float32)


def select_features(values: Any, features: Key) -> Tensor:
    """Pick the tensor of feature vectors from a tuple or dict.

    Raises
    ------
    ModelOutputError
        If it is neither, or `features` picks nothing of it.
    """
    if isinstance(values, (Tensor, np.ndarray, np.generic)):
        raise ModelOutputError(
            f"the model returned one {type(values).__name__}",
            f"there are no features {features!r}",
            "return a tuple or dict of values and features, or leave features= away",
        )
    keys = _keys(values)
    if features not in keys and not _counts_from_the_end(values, features):
        raise ModelOutputError(
            f"the model returned a {type(values).__name__} of {keys}",
            f"there are no features {features!r}",
            f"choose some with features={keys[-1] if keys else None!r}",
        )
    return select_output(values[features], None)


def as_features(values: Tensor, n: int) -> Tensor:
    """Bring the feature vectors of `n` windows to (N, D) float32.

    (N, D, 1, 1), as pooling leaves it, becomes (N, D).

    Raises
    ------
    ModelOutputError
        If the shape or the type is another.
    """
    vectors = values.ndim == 2 or (values.ndim == 4 and values.shape[2:] == (1, 1))
    if not vectors or len(values) != n or 0 in values.shape:
        raise ModelOutputError(
            f"the model returned features of shape {tuple(values.shape)} for {n} windows",
            do=f"they must be ({n}, D)",
        )
    if values.is_complex():
        raise ModelOutputError("the model returned complex features", do="return real values")
    return values.reshape(n, -1).to(torch.float32)


def activate(values: Tensor, activation: str | None) -> Tensor:
    """Apply softmax (over C) or sigmoid, or nothing.

    Raises
    ------
    ModelOutputError
        If it is the softmax of one output alone, which is 1 whatever that says.
    """
    if activation == "softmax":
        if values.shape[1] == 1:
            what = "the softmax of one output is 1 everywhere"
            raise ModelOutputError(what, do="choose activation='sigmoid'")
        return values.softmax(1)
    return values.sigmoid() if activation == "sigmoid" else values


def plain_output(output: Output) -> Key | list[Key] | None:
    """Which output is drawn, as JSON keeps it."""
    return list(output) if isinstance(output, tuple) else output
