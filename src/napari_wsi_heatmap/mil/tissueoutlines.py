"""Borders of tissue as closed lines, from a mask: what a picture of scores is drawn within."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.mil.contours import Outline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.clamtissue import Mask, Tissue


def outlines_of(tissue: Tissue) -> list[Outline]:
    """Outlines of the pieces of tissue with their holes, level-0 pixels.

    As OpenCV's contours they run through the centres of the pixels at the border; those of holes
    through the tissue around.
    """
    from scipy import ndimage

    pieces, _ = ndimage.label(tissue.mask, np.ones((3, 3)))
    found = []
    for number, place in enumerate(ndimage.find_objects(pieces), 1):
        corner = np.array([axis.start for axis in place])
        rings = _rings(pieces[place] == number)
        rings = [(ring + corner) * tissue.downsample for ring in rings]
        found.append(Outline(rings[0], tuple(rings[1:])))
    return found


def _rings(piece: Mask) -> list[NDArray[np.int64]]:
    """Border pixels (N, 2) of one piece, the outer line first."""
    from skimage.measure import find_contours

    wide = np.pad(piece, 1)
    lines = find_contours(wide.astype(np.float64), 0.5, fully_connected="high")
    lines.sort(key=lambda line: -float(np.ptp(line, axis=0).sum()))
    return [_inner(line, wide) - 1 for line in lines]


def _inner(line: NDArray[np.float64], mask: Mask) -> NDArray[np.int64]:
    """Of the two pixels that each point lies between, the one that is tissue."""
    low, high = np.floor(line).astype(np.int64), np.ceil(line).astype(np.int64)
    pixels = np.where(mask[tuple(low.T)][:, None], low, high)
    new = np.ones(len(pixels), bool)
    new[1:] = (np.diff(pixels, axis=0) != 0).any(1)
    found: NDArray[np.int64] = pixels[new]
    return found
