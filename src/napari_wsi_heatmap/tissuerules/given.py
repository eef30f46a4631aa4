"""A tissue rule as people give it: a name with a threshold, a file, a mask or polygons."""

from __future__ import annotations

import base64
import binascii
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_wsi_heatmap.errors import GridError, one_line

VARIANCE = 80.0
"""Default threshold of the variance rules; the notebook's (JHancox/BioImaging, Notebook_2)."""
THRESHOLDS = {"otsu": None, "variance": VARIANCE, "variance2": VARIANCE}
"""Rules that have a threshold, and which they have if none is given; None: Otsu finds it."""
MOST_SATURATION = 255
CHOICES = "otsu[:T], none, variance[:T], variance2[:T], FILE.geojson or MASK.png"
MOST_PIXELS = 1 << 26
"""Of a mask: 8192 x 8192. Five bytes each are needed while shares are added up."""
GEOJSON = (".geojson", ".json")
IMAGES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".webp", ".gif")


@dataclass(frozen=True)
class Rule:
    """A rule, taken apart."""

    kind: str
    """otsu, none, variance, variance2, geojson, image, array or polygons."""
    value: Any = None
    """Its threshold, file, mask or polygons."""


def given_rule(rule: Any) -> Rule:
    """Take a rule apart.

    Raises
    ------
    GridError
        If there is no such rule; lists those there are.
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, (str, os.PathLike)):
        return _named(os.fspath(rule))
    if isinstance(rule, dict):
        return Rule("array", _unpacked(rule))
    return _drawn(rule)


def plain_rule(rule: Any) -> Any:
    """Return a rule in its one form: a name with its threshold, a full path, an array or polygons.

    Frozen: it does not change with what was given.
    """
    given = given_rule(rule)
    if given.value is None:
        return given.kind
    if given.kind in THRESHOLDS:
        return f"{given.kind}:{_digits(given.value)}"
    return given.value


def _digits(value: float) -> str:
    """A number in as few digits as say it exactly."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def rule_to_json(rule: Any) -> Any:
    """Return a rule as plain values that `given_rule` understands; a mask packed, a bit a pixel."""
    given = given_rule(rule)
    if given.kind == "polygons":
        return [polygon.tolist() for polygon in given.value]
    if given.kind != "array":
        return plain_rule(given)
    packed = base64.b64encode(_deflated(np.packbits(given.value).tobytes()))
    return {"shape": list(given.value.shape), "bits": packed.decode()}


def _named(text: str) -> Rule:
    name, colon, threshold = text.partition(":")
    if text == "none":
        return Rule(text)
    if name in THRESHOLDS:
        return Rule(name, _threshold(text, threshold) if colon else THRESHOLDS[name])
    ending = os.path.splitext(text)[1].lower()
    if ending in GEOJSON + IMAGES:
        return Rule("geojson" if ending in GEOJSON else "image", os.path.abspath(text))
    raise _unknown(text)


def _threshold(rule: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    otsu = rule.startswith("otsu")
    if math.isfinite(value) and 0 <= value <= (MOST_SATURATION if otsu else math.inf):
        return value
    wanted = f"a saturation, 0 to {MOST_SATURATION}" if otsu else "a variance, 0 or above"
    raise GridError(f"tissue is {one_line(rule, 60)!r}", do=f"give {wanted}, after the colon")


def _drawn(rule: Any) -> Rule:
    """A mask, or polygons; one polygon need not be in a list."""
    try:
        whole = np.asarray(rule)
    except ValueError:  # polygons of unequal length
        whole = np.empty(0)
    if whole.ndim == 2 and whole.shape[1] != 2 and whole.dtype.kind in "bui" and whole.size:
        return Rule("array", whole != 0)
    if whole.ndim == 2 and whole.shape[1] == 2:
        rule = [rule]
    return Rule("polygons", tuple(_polygon(part, rule) for part in _parts(rule)))


def _parts(rule: Any) -> list[Any]:
    try:
        parts = list(rule)
    except TypeError:
        parts = []
    if not parts:
        raise _unknown(rule)
    return parts


def _polygon(part: Any, rule: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        polygon = np.array(part, np.float64)
    except (TypeError, ValueError):
        polygon = np.empty(0)
    if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3:
        raise _unknown(rule)
    if not np.isfinite(polygon).all():
        raise _unknown(rule)
    return polygon


def _unknown(rule: Any) -> GridError:
    return GridError(
        f"tissue is {one_line(repr(rule), 100)}",
        do=f"choose one of {CHOICES}; from Python also a mask (H, W) or (N, 2) polygons (y, x)",
    )


def _deflated(data: bytes) -> bytes:
    import zlib

    return zlib.compress(data)


def _unpacked(packed: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Undo `rule_to_json` of a mask."""
    import zlib

    try:
        height, width = (int(side) for side in packed["shape"])
        if not 0 < height * width <= MOST_PIXELS:
            raise ValueError
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(packed["bits"]), -(-height * width // 8))
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=height * width)
        return bits.reshape(height, width).astype(bool)
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error):
        raise _unknown(packed) from None
