"""A map's colours over its slide's overview: the picture without a page round it.

Drawn with NumPy alone, in strips: as floats the whole would be four times as large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.canvas import lay_canvas, lay_cells, overview
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.runfolder import DIFFERENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.canvas import Canvas, Values
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Mask, Rgb, Slide

    Limits = tuple[float, float]
    Cmap = str | Sequence[Sequence[float]]

CMAP, DIVERGING = "turbo", "matplotlib:coolwarm"
EMPTY = 246
"""Grey of the slide where it is not drawn."""
PERCENTILES = (1, 99)
"""A few extreme windows (a fold, a pen mark) must not take all the contrast."""
SIDES = (100, 20_000)
"""px: pictures that make sense."""
STRIP = 256
"""Rows that are blended at once."""


@dataclass(frozen=True)
class Overlay:
    """A map drawn over its slide, without a page round it."""

    picture: Rgb
    canvas: Canvas
    channel: int
    limits: Limits
    drawn: Mask
    """Where there is a value."""


def overlay(
    heatmap: Heatmap,
    slide: Slide | None = None,
    *,
    channel: int | str = 0,
    cmap: Cmap | None = None,
    opacity: float = 0.5,
    limits: Limits | None = None,
    side: int = 2000,
) -> Overlay:
    """Draw a heatmap's colours over its slide; parameters as for `compose`."""
    index, lut = channel_index(heatmap, channel), colours_of(cmap or usual_cmap(heatmap))
    opacity, side = _checked(opacity, side)
    canvas = _canvas(heatmap, slide, side)
    values = lay_cells(heatmap, index, canvas)
    limits = _limits(heatmap, values, limits)
    if slide is None:
        picture, opacity = np.full((*canvas.shape, 3), EMPTY, np.uint8), 1.0
    else:
        picture = overview(slide, canvas)
    for top in range(0, len(picture), STRIP):
        rows = slice(top, top + STRIP)
        colours = _coloured(values[rows], lut, limits)
        picture[rows] = _blend(picture[rows], colours, values[rows], opacity)
    return Overlay(picture, canvas, index, limits, ~np.isnan(values))


def _canvas(heatmap: Heatmap, slide: Slide | None, side: int) -> Canvas:
    height, width = heatmap.run["slide"]["shape"]
    if slide is not None and slide.levels[0].shape != (height, width):
        raise ExportError(
            f"the slide has {slide.levels[0].shape} px, the heatmap's had {(height, width)}",
            slide.path,
            "hand over the slide that it was computed on",
        )
    extent = (0, 0, height, width) if slide is None else slide.bounds
    return lay_canvas(extent, heatmap.grid.spec.mpp, side)


def channel_index(heatmap: Heatmap, channel: int | str) -> int:
    """Index of an output given by index or name; ExportError if there is none."""
    names = heatmap.names
    if isinstance(channel, str) and channel in names:
        return names.index(channel)
    if isinstance(channel, int) and 0 <= channel < len(names):
        return channel
    known = ", ".join(f"{i} {name}" for i, name in enumerate(names[:20]))
    raise ExportError(f"no channel {channel!r}", do=f"choose one of {known}")


def _checked(opacity: float, side: int) -> tuple[float, int]:
    if not 0 <= opacity <= 1:
        raise ExportError(f"opacity is {opacity}", do="give 0…1")
    if not SIDES[0] <= side <= SIDES[1]:
        raise ExportError(f"side is {side}", do=f"give {SIDES[0]} to {SIDES[1]} px")
    return opacity, int(side)


def usual_cmap(heatmap: Heatmap) -> str:
    """Name of the colour map for a heatmap: of a difference one that is light at 0."""
    return DIVERGING if heatmap.run.get("kind") == DIFFERENCE else CMAP


def colours_of(cmap: Cmap) -> Rgb:
    """(256, 3) uint8 of colours, or of a map that `cmap` knows; ExportError if it knows none."""
    from cmap import Colormap

    try:
        lut = Colormap(cmap).lut(256)[:, :3]
    except (ValueError, TypeError) as error:
        raise ExportError(f"no colour map {cmap!r}", do="for example turbo, viridis") from error
    return np.rint(255 * lut).astype(np.uint8)


def _limits(heatmap: Heatmap, values: Values, limits: Limits | None) -> Limits:
    chosen = limits if limits is not None else heatmap.run["model"]["limits"]
    if chosen is None:
        finite = values[np.isfinite(values)]
        chosen = np.percentile(finite, PERCENTILES) if finite.size else (0, 1)
    low, high = (float(v) for v in chosen)
    if not math.isfinite(high - low) or low > high:
        raise ExportError(f"limits are {low:g}, {high:g}", do="give two numbers that rise")
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _coloured(values: Values, lut: Rgb, limits: Limits) -> Rgb:
    low, high = limits
    share = np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    return lut[np.clip(share * 256, 0, 255).astype(np.uint8)]


def _blend(ground: Rgb, colours: Rgb, values: Values, opacity: float) -> Rgb:
    weight = np.where(np.isnan(values), 0, np.float32(opacity))[..., None]
    return np.rint(ground + weight * (colours.astype(np.float32) - ground)).astype(np.uint8)
