"""Where overlapping windows disagree, as a layer over their heatmap."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_wsi_heatmap._napari.class_labels import PART_OF
from napari_wsi_heatmap._napari.saved_layer import SavedLayer
from napari_wsi_heatmap.disagreement import KIND, overlap_frame
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.heatmap import Heatmap

    Pair = NDArray[np.float64]


class Cells(NamedTuple):
    """Where cells lie on those of another map: centre i at ``offset + i * scale``."""

    offset: Pair
    scale: Pair


def can_disagree(layer: Layer) -> bool:
    """Whether the windows of a heatmap layer overlap, and gave one value each."""
    heatmap = layer.metadata["heatmap"]
    if heatmap.state.ndim != 2 or heatmap.frame.dense or heatmap.run.get("kind") == KIND:
        return False
    try:
        overlap_frame(heatmap)
    except HeatmapError:
        return False
    return True


def unsure_layer(over: Layer, disagreement: Heatmap, channel: int) -> Image:
    """Make the layer of a disagreement that was computed, over the layer of its heatmap."""
    frame = on_cells(over.metadata["heatmap"].frame, disagreement.frame)
    saved = SavedLayer(disagreement, over, frame=frame)
    if 0 < channel < len(disagreement.names):
        saved.show_channel(channel)
    # As all layers of a run have a job: nobody takes it for a slide.
    saved.layer.metadata.update({PART_OF: over, "job": None})
    return saved.layer


def on_cells(below: MapFrame, above: MapFrame) -> Cells:
    """Place the cells of a map on those of another one over the same slide."""
    scale = np.asarray(below.scale)
    offset = (np.asarray(above.offset) - np.asarray(below.offset)) / scale
    return Cells(offset, np.asarray(above.scale) / scale)
