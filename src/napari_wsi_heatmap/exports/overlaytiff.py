"""The coloured map over its slide as a slide of its own: a tiled pyramidal TIFF, RGB.

OpenSlide opens it as ``generic-tiff`` with the µm per pixel that the picture has. Its description
is the JSON that a PNG has as text. Without bars: for a picture with them export png or jpg.

Memory bound: that of `napari_wsi_heatmap.overlay`, and a third of the picture.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.exports.png import KEY
from napari_wsi_heatmap.overlay import overlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.overlay import Cmap, Overlay
    from napari_wsi_heatmap.slides.base import Rgb, Slide

TILE = 256
MICROMETRES = 1e4
"""In a centimetre, the unit of TIFF's resolutions."""
OPTIONS: dict[str, Any] = {
    "tile": (TILE, TILE),
    "photometric": "rgb",
    "compression": "adobe_deflate",
    "metadata": None,
}


def write(
    heatmap: Heatmap,
    path: Path,
    *,
    slide: Slide | None = None,
    channel: int | str = 0,
    cmap: Cmap | None = None,
    opacity: float = 0.5,
    limits: tuple[float, float] | None = None,
    side: int = 4096,
) -> None:
    """Write the file.

    Parameters
    ----------
    heatmap, slide, channel, cmap, opacity, limits, side
        As for `napari_wsi_heatmap.composite.compose`.
    path : Path
    """
    from tifffile import TiffWriter

    drawn = overlay(
        heatmap, slide, channel=channel, cmap=cmap, opacity=opacity, limits=limits, side=side
    )
    pixel = _micrometres(heatmap, drawn)
    options = OPTIONS | {"software": f"{KEY} {__version__}"}
    with TiffWriter(path) as file:
        for level, picture in enumerate(_levels(drawn.picture)):
            about = None if level else json.dumps(_placement(drawn))
            options |= {"description": about, "subfiletype": int(level > 0)}
            file.write(picture, **options, **resolution(pixel, 2**level))


def _levels(picture: Rgb) -> Iterator[Rgb]:
    """The picture, and halves of it until one tile holds all."""
    import numpy as np
    from PIL import Image

    yield picture
    while max(picture.shape[:2]) > TILE:
        picture = np.asarray(Image.fromarray(picture).reduce(2))
        yield picture


def _micrometres(heatmap: Heatmap, drawn: Overlay) -> tuple[float, float] | None:
    """(y, x) µm per pixel of the picture."""
    mpp, scale = heatmap.grid.spec.mpp, drawn.canvas.scale
    return None if mpp is None else (scale[0] * mpp[0], scale[1] * mpp[1])


def resolution(pixel: tuple[float, float] | None, factor: int) -> dict[str, Any]:
    """What tifffile is told of the (y, x) µm per pixel, of a level coarser by a factor."""
    if pixel is None:
        return {}
    y, x = (MICROMETRES / (side * factor) for side in pixel)
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


def _placement(drawn: Overlay) -> dict[str, Any]:
    return {
        "software": f"{KEY} {__version__}",
        "shape_px": drawn.canvas.shape,
        "origin_level0": drawn.canvas.origin,
        "scale_level0": drawn.canvas.scale,
        "limits": drawn.limits,
    }
