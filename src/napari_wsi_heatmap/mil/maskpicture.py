"""A picture of a slide with the borders of its tissue, to see what was taken for tissue."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.mil.clamtissue import chosen_level
from napari_wsi_heatmap.shrink import LenientRead, read_shrunk

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.mil.clamtissue import Mask, Tissue
    from napari_wsi_heatmap.mil.segmentation import Segmentation
    from napari_wsi_heatmap.slides.base import Slide

PIECE, HOLE = (0, 255, 0), (0, 0, 255)
"""RGB of the lines, as in CLAM's pictures."""


def write_mask(slide: Slide, tissue: Tissue, how: Segmentation, path: Path) -> Path:
    """Write the picture at the level that `how` names.

    Raises
    ------
    GridError
        If there is no such level.
    StoreFullError
        If it cannot be written.
    """
    from PIL import Image

    level, factor = chosen_level(slide, how.vis_level)
    rgb, _ = read_shrunk(slide, level, factor, read=LenientRead(slide, slide.background))
    down = [d * factor for d in slide.levels[level].downsample]
    width = int(how.line_thickness / math.sqrt(down[0] * down[1]))
    rows, cols = (np.arange(n) * d for n, d in zip(rgb.shape, down, strict=False))
    for what, colour in ((tissue.filled, PIECE), (tissue.holes, HOLE)):
        seen = tissue.at(what, rows[:, None], cols[None, :])
        rgb[_border(seen, max(1, width))] = colour
    with written_at_once(path) as part:
        Image.fromarray(rgb).save(part, "JPEG", quality=90)
    return path


def _border(mask: Mask, width: int) -> Mask:
    """Pixels at the border of a mask, in a line of `width` pixels."""
    from scipy import ndimage

    border = mask & ~ndimage.binary_erosion(mask)
    thick: Mask = ndimage.maximum_filter(border, width) if width > 1 else border
    return thick
