"""Settings of a model as people give them: checked, and brought to one form."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex, cast

from napari_wsi_heatmap.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable

NONE = "none"
"""Says that there is to be none, where a file states one or a record would."""
ACTIVATIONS = ("softmax", "sigmoid", NONE)
FLIPS, DIHEDRAL = "flips", "dihedral"
TTA = (FLIPS, DIHEDRAL, NONE)
"""Test-time augmentation: 4 or 8 views of each window, see `models.tta`."""
OF_RUN = ("output", "activation", "tta", "names")
"""Settings of a model that a run takes as well, and hands on to it."""


def checked(**given: Any) -> dict[str, Any]:
    """Return those settings that are not None, each checked.

    Raises
    ------
    ModelLoadError
        Naming the first that cannot be.
    """
    return {name: CHECKS[name](name, value) for name, value in given.items() if value is not None}


def switched_off(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with None for what is to be none."""
    may = ("activation", "tta")
    return {k: None if k in may and v == NONE else v for k, v in settings.items()}


def _window(name: str, value: object) -> tuple[int, int]:
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2:
        raise _wrong(name, value, "an int or (height, width)")
    return _count(name, sides[0]), _count(name, sides[1])


def _count(name: str, value: object) -> int:
    try:
        count = operator.index(cast("SupportsIndex", value))
    except TypeError:
        raise _wrong(name, value, "a whole number, at least 1") from None
    if count < 1 or isinstance(value, bool):
        raise _wrong(name, value, "a whole number, at least 1")
    return count


def _positive(name: str, value: object) -> float:
    try:
        number = float(cast("SupportsFloat", value))
    except (TypeError, ValueError):
        raise _wrong(name, value, "a number above 0") from None
    if not (math.isfinite(number) and number > 0) or isinstance(value, (bool, str)):
        raise _wrong(name, value, "a number above 0")
    return number


def _names(name: str, value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(cast("tuple[str, ...]", value))
    if not names or not all(isinstance(n, str) and n for n in names):
        raise _wrong(name, value, "one text per output")
    if len(set(names)) != len(names):
        raise _wrong(name, value, "different for each output")
    return names


def _function(name: str, value: object) -> object:
    if not callable(value):
        raise _wrong(name, value, "a callable")
    return value


def _key(name: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _wrong(name, value, "an index or a key")
    return value


def _choice(name: str, value: object) -> object:
    if not isinstance(value, (tuple, list)):
        return _key(name, value)
    if len(value) != 2:
        raise _wrong(name, value, "an index, a key or a name, or (key, name)")
    return tuple(_key(name, part) for part in value)


def _one_of(*choices: str) -> Callable[[str, object], object]:
    def check(name: str, value: object) -> object:
        if value not in choices:
            raise _wrong(name, value, f"one of {', '.join(choices)}")
        return value

    return check


def _wrong(name: str, value: object, wanted: str) -> ModelLoadError:
    return ModelLoadError(f"{name}={value!r}", do=f"it must be {wanted}")


CHECKS: dict[str, Callable[[str, object], Any]] = {
    "window": _window,
    "mpp": _positive,
    "transform": _function,
    "output": _choice,
    "features": _key,
    "activation": _one_of(*ACTIVATIONS),
    "tta": _one_of(*TTA),
    "names": _names,
    "output_stride": _positive,
    "batch_size": _count,
}


def apart(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a model among those of a run, and the rest."""
    of_model = {name: value for name, value in settings.items() if name in OF_RUN}
    return of_model, {name: value for name, value in settings.items() if name not in OF_RUN}
