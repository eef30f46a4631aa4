"""Values in the room that there is below a thumbnail."""

from __future__ import annotations

import math

LARGEST = 1e8
"""Below it thousands are written out."""


def short_number(value: float) -> str:
    """Four digits, or all before the point: 0.09312, 11,480, 2.5e+09; – if it is not finite."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < LARGEST else f"{value:.4g}"
