"""Annotation ``griddata`` for the Digital Slide Archive: one number a cell of the map.

Coordinates are level-0 pixels from the slide's top-left border, x before y; the values lie at the
centres of the cells. The format knows numbers only: a cell that was not computed, or is no
number, gets one below the range that the colours span, and ``minColor`` is transparent. Infinite
values get the ends of the range. One output is written, in one element.

Memory bound: the map; one of more than `MOST_VALUES` cells is halved until it fits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.ome import halve
from napari_wsi_heatmap.overlay import channel_index, colours_of, usual_cmap
from napari_wsi_heatmap.runfolder import DIFFERENCE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.overlay import Cmap
    from napari_wsi_heatmap.slides.base import Slide

MOST_VALUES = 1 << 20
"""Values that a browser still draws."""
COLOURS = 9


def write(
    heatmap: Heatmap,
    path: Path,
    *,
    slide: Slide | None = None,
    channel: int | str = 0,
    cmap: Cmap | None = None,
    interpretation: str = "contour",
) -> None:
    """Write the annotation.

    Parameters
    ----------
    heatmap : Heatmap
    path : Path
    slide : Slide, optional
        Not needed.
    channel : int or str
        Index or name of the output.
    cmap : str or sequence, optional
        Name of a colour map that `cmap` knows, or its colours (n, 3 or 4) in 0…1; default turbo,
        of a difference coolwarm.
    interpretation : {"contour", "heatmap", "choropleth"}
        How DSA draws it.
    """
    index = channel_index(heatmap, channel)
    values, factor = _fitting(heatmap.values[index])
    low, high = _range(values, about_zero=heatmap.run.get("kind") == DIFFERENCE)
    element = {
        "type": "griddata",
        "label": {"value": heatmap.names[index]},
        "interpretation": interpretation,
        "gridWidth": values.shape[1],
        **_place(heatmap, factor),
        "rangeValues": np.linspace(low, high, COLOURS).tolist(),
        "colorRange": _colours(cmap or usual_cmap(heatmap)),
        "normalizeRange": False,
        "minColor": "rgba(0, 0, 0, 0)",
    }
    about = {
        "name": f"{heatmap.run['model']['name']} {heatmap.names[index]}",
        "description": f"{heatmap.run['slide']['name']}, by napari-wsi-heatmap {__version__}",
    }
    _stream(path, about, element, _numbers(values, low, high))


def _fitting(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Halve a map until it is small enough; also how many cells became one, along a side."""
    factor = 1
    while values.size > MOST_VALUES:
        values, factor = halve(values[None])[0], factor * 2
    return values, factor


def _range(values: NDArray[np.float32], *, about_zero: bool) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if about_zero:
        finite = np.concatenate((finite, -finite))
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _place(heatmap: Heatmap, factor: int) -> dict[str, Any]:
    frame = heatmap.frame
    # Centres of pixels have whole numbers in our frame, and halves in theirs.
    y, x = (o + (factor - 1) / 2 * s + 0.5 for o, s in zip(frame.offset, frame.scale, strict=True))
    return {"origin": [x, y, 0], "dx": frame.scale[1] * factor, "dy": frame.scale[0] * factor}


def _colours(cmap: Cmap) -> list[str]:
    lut = colours_of(cmap)[np.linspace(0, 255, COLOURS).round().astype(int)]
    return [f"rgb({r}, {g}, {b})" for r, g, b in lut.tolist()]


def _numbers(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    there = np.clip(values, np.float32(low), np.float32(high))
    return np.where(np.isnan(values), np.float32(low - (high - low)), there)


def _stream(path: Path, about: dict[str, str], element: dict[str, Any], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        head = json.dumps({**about, "elements": [{**element, "values": []}]}, allow_nan=False)
        before, after = head[: -len("]}]}")], head[-len("]}]}") :]
        file.write(before)
        for number, row in enumerate(rows):
            file.write((",\n" if number else "\n") + ", ".join(row.astype(str).tolist()))
        file.write(after + "\n")
