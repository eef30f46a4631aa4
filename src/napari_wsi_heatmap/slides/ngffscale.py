"""The size of a pixel as an OME-Zarr states it: its scales, and the units of its axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import one_line
from napari_wsi_heatmap.slides.base import believable_mpp

if TYPE_CHECKING:
    from napari_wsi_heatmap.slides.zarrlevel import Axes

SOURCE = "the OME-Zarr's scale"
MICROMETRES = {
    **{"angstrom": 1e-4, "picometer": 1e-6, "nanometer": 1e-3, "micrometer": 1.0, "micron": 1.0},
    **{"millimeter": 1e3, "centimeter": 1e4, "decimeter": 1e5, "meter": 1e6, "inch": 25400.0},
    **{"pm": 1e-6, "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6},
}
"""µm per unit of length, by its name."""


def pixel_size(
    scales: dict[str, Any], finest: dict[str, Any], axes: Axes, count: int
) -> tuple[tuple[float, float] | None, str | None]:
    """Find the size of a pixel of the finest level.

    A size without a unit of length is not believed: writers that know none put 1 there.

    Parameters
    ----------
    scales : dict
        An entry of `multiscales`; its own scale applies after that of the dataset.
    finest : dict
        Its entry of `datasets` for level 0.
    axes : Axes
    count : int
        Number of axes.

    Returns
    -------
    mpp : (float, float) or None
        (y, x) µm per pixel.
    missing : str or None
        Why there is none.
    """
    step, outer = _scale(finest, count), _scale(scales, count)
    if step is None:
        return None, "the OME-Zarr states no pixel size (µm per pixel): treated as uncalibrated"
    sizes = []
    for axis in (axes.y, axes.x):
        unit = dicts(scales.get("axes"))[axis].get("unit")
        size = step[axis] * (1.0 if outer is None else outer[axis])
        factor = MICROMETRES.get(_unit_name(unit))
        if factor is None:
            said = "no unit" if unit is None else f"the unit {one_line(unit, 20)!r}"
            return None, f"{SOURCE} ({size:g}) has {said}: treated as uncalibrated"
        sizes.append(size * factor)
    return believable_mpp(sizes, SOURCE)


def dicts(found: Any) -> list[dict[str, Any]]:
    """Return the objects of a JSON list; an empty list where it is none."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _scale(holder: dict[str, Any], count: int) -> list[float] | None:
    """Find the scale among coordinateTransformations, one number for each axis."""
    for step in dicts(holder.get("coordinateTransformations")):
        scale = step.get("scale")
        if step.get("type") == "scale" and isinstance(scale, list) and len(scale) == count:
            return [_number(n) for n in scale]
    return None


def _number(found: Any) -> float:
    try:
        return float(found)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _unit_name(unit: Any) -> str:
    return str(unit).strip().lower().replace("metre", "meter")
