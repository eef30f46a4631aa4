"""A picture: the map over its slide's overview, with a colour bar and a scale bar.

The text chunk ``napari-wsi-heatmap`` says, as JSON, where the slide lies on the picture: the
pixel (y, x) of the picture is the level-0 position
``origin_level0 + (pixel + 0.5 - corner_px) * scale_level0 - 0.5``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.composite import compose

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.composite import Composite
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.overlay import Cmap
    from napari_wsi_heatmap.slides.base import Slide

KEY = "napari-wsi-heatmap"


def write(
    heatmap: Heatmap,
    path: Path,
    *,
    slide: Slide | None = None,
    channel: int | str = 0,
    cmap: Cmap | None = None,
    opacity: float = 0.5,
    limits: tuple[float, float] | None = None,
    side: int = 2000,
) -> None:
    """Write the picture.

    Parameters
    ----------
    heatmap, slide, channel, cmap, opacity, limits, side
        As for `napari_wsi_heatmap.composite.compose`.
    path : Path
    """
    from PIL.PngImagePlugin import PngInfo

    drawn = compose(
        heatmap, slide, channel=channel, cmap=cmap, opacity=opacity, limits=limits, side=side
    )
    about = PngInfo()
    about.add_text("Software", f"napari-wsi-heatmap {__version__}")
    about.add_text(KEY, json.dumps(placement(drawn)))
    drawn.image.save(path, "PNG", pnginfo=about)


def placement(drawn: Composite) -> dict[str, Any]:
    """Where the slide lies on a picture, and what its colours mean."""
    return {
        "corner_px": drawn.corner,
        "shape_px": drawn.canvas.shape,
        "origin_level0": drawn.canvas.origin,
        "scale_level0": drawn.canvas.scale,
        "limits": drawn.limits,
    }
