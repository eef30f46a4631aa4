"""The same picture as `napari_wsi_heatmap.exports.png`, as JPEG.

Its comment is the JSON that a PNG has as text. Colours are those of the map to a few grey levels:
where they are to be measured, export png, or values.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.composite import compose
from napari_wsi_heatmap.exports.png import KEY, placement

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.overlay import Cmap
    from napari_wsi_heatmap.slides.base import Slide

QUALITY = 92


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
    drawn = compose(
        heatmap, slide, channel=channel, cmap=cmap, opacity=opacity, limits=limits, side=side
    )
    about = json.dumps({"software": f"{KEY} {__version__}", **placement(drawn)})
    drawn.image.save(path, "JPEG", quality=QUALITY, subsampling=0, comment=about.encode())
