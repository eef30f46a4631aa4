"""Kinds of values that a configuration or a process list may hold.

Each takes what YAML or a CSV gave, which may be text, and returns the value in its one form.
"""

from __future__ import annotations

import math
from datetime import date
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[Any], Any]

YES, NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
LONGEST_NAME = 200
"""Bytes of a name that becomes part of a file's name."""


class WrongValueError(ValueError):
    """Says what is to be given instead."""


def text(value: Any) -> str:
    """Read text; a number or a date is meant as it is written."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, date)):
        raise WrongValueError("text")
    found = str(value).strip()
    if not found or "\0" in found:
        raise WrongValueError("text that is not empty")
    return found


def name(value: Any) -> str:
    """Read text that becomes the name of a file or a folder: one plain name, no path."""
    found = text(value)
    plain = PurePath(found).name == found and found not in (".", "..")
    if not plain or "\\" in found or not found.isprintable():
        raise WrongValueError("a plain name, not a path")
    if len(found.encode()) > LONGEST_NAME:
        raise WrongValueError(f"a name of at most {LONGEST_NAME} bytes")
    return found


def flag(value: Any) -> bool:
    """Read true or false."""
    found = str(value).strip().lower()
    if isinstance(value, (bool, int, float, str)) and found in (*YES, *NO):
        return found in YES
    raise WrongValueError("true or false")


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """Make a check for a finite number in low … high."""
    wanted = "a number" if math.isinf(high) else f"a number in {low:g}…{high:g}"
    wanted += f", at least {low:g}" if math.isinf(high) and not math.isinf(low) else ""

    def check(value: Any) -> float:
        found = _float(value)
        if not (math.isfinite(found) and low <= found <= high):
            raise WrongValueError(wanted)
        return found

    return check


def share_or_auto(value: Any) -> float:
    """Read a share in 0…1, or -1 for an automatic one."""
    found = _float(value)
    if not (found == -1 or 0 <= found <= 1):
        raise WrongValueError("a number in 0…1, or -1 (automatic)")
    return found


def overlap(value: Any) -> float:
    """Read a share of a patch that its neighbour covers as well, below 1."""
    found = _float(value)
    if not 0 <= found < 1:
        raise WrongValueError("a number from 0 to below 1")
    return found


def whole(low: int = 0) -> Check:
    """Make a check for a whole number."""

    def check(value: Any) -> int:
        found = _float(value)
        if not (math.isfinite(found) and found == int(found) and low <= found < 2**53):
            raise WrongValueError(f"a whole number, at least {low}")
        return int(found)

    return check


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def one_of(*choices: str, also: Mapping[str, str] | None = None) -> Check:
    """Make a check for one of some words; `also` has other spellings of them."""

    def check(value: Any) -> str:
        found = str(value).strip().lower()
        found = (also or {}).get(found, found)
        if isinstance(value, str) and found in choices:
            return found
        raise WrongValueError(f"one of {', '.join(choices)}")

    return check


def ending(value: Any) -> tuple[str, ...]:
    """Read endings of file names, one or several, with or without a point."""
    found = [text(one).lower() for one in (value if isinstance(value, list) else [value])]
    if not found or any("/" in one or "\\" in one for one in found):
        raise WrongValueError("an ending such as .svs, or a list of them")
    return tuple(dict.fromkeys(one if one.startswith(".") else f".{one}" for one in found))


def folders(value: Any) -> dict[str, str] | tuple[str, ...]:
    """Read one folder, a list of them, or a mapping of keys to folders."""
    if isinstance(value, dict) and value:
        return {text(key): text(folder) for key, folder in value.items()}
    if isinstance(value, list) and value:
        return tuple(map(text, value))
    if isinstance(value, (dict, list)):
        raise WrongValueError("a folder, a list of folders, or a mapping of keys to folders")
    return (text(value),)


def numbers_by_name(value: Any) -> dict[str, int]:
    """Read a mapping of names to whole numbers, no number twice."""
    wanted = "a mapping of labels to whole numbers, each of its own"
    if not isinstance(value, dict) or not value:
        raise WrongValueError(wanted)
    try:
        found = {text(key): whole(0)(number_) for key, number_ in value.items()}
    except WrongValueError:
        raise WrongValueError(wanted) from None
    if len(set(found.values())) < len(value):
        raise WrongValueError(wanted)
    return found


def anything(value: Any) -> Any:
    """Take what is without effect as it is."""
    return value


def ids(value: Any) -> tuple[int, ...]:
    """Read numbers of tissue pieces with commas between them; "none" is none."""
    found = str(value).strip().lower()
    if found in ("none", ""):
        return ()
    try:
        return tuple(whole(0)(one) for one in found.strip("[]()").split(","))
    except WrongValueError:
        raise WrongValueError("numbers with commas between them, or none") from None
