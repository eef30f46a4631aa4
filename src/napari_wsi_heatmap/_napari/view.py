"""A slide and its saved heatmaps in a viewer, exactly registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
import numpy as np
from napari.layers import Image, Layer
from napari.utils.notifications import show_info

from napari_wsi_heatmap._napari.class_switch import offer_switch
from napari_wsi_heatmap._napari.colors import PERCENTILES
from napari_wsi_heatmap._napari.failed_layer import FailedLayer
from napari_wsi_heatmap._napari.picture_layer import picture_layers
from napari_wsi_heatmap._napari.qt_window import guard_removals
from napari_wsi_heatmap._napari.saved_layer import SavedLayer, reasons_of
from napari_wsi_heatmap._napari.slide_layer import frame_scanned, slide_layer
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.rough import rough_map
from napari_wsi_heatmap.states import FAILED, count_states, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.placedpictures import PlacedPicture
    from napari_wsi_heatmap.rough import RoughMap
    from napari_wsi_heatmap.slides.base import Slide


def view(
    slide: Slide,
    *heatmaps: Heatmap,
    pictures: Sequence[PlacedPicture] = (),
    side_by_side: bool = False,
) -> None:
    """Open a viewer with all of them, and return when its window is closed.

    Parameters
    ----------
    slide : Slide
    *heatmaps : Heatmap
    pictures : sequence of PlacedPicture
        Laid on the slide.
    side_by_side : bool
        Show the slide alone in a second pane, too; one camera looks at both.
    """
    viewer = napari.Viewer(title=slide.name)
    layers = show(viewer, slide, *heatmaps, pictures=pictures)
    offer_switch(viewer)
    if side_by_side:
        from napari_wsi_heatmap._napari.side_by_side import show_beside

        show_beside(viewer, layers[0])
    napari.run()


def show(
    viewer: napari.Viewer,
    slide: Slide,
    *heatmaps: Heatmap,
    pictures: Sequence[PlacedPicture] = (),
) -> list[Layer]:
    """Add a slide, and what was saved of a run over it, to a viewer.

    Returns
    -------
    list of Layer
        The slide's, then one for each model, of two models also of what they differ by, one that
        hatches windows that failed, if any did, and those of pictures. The difference is shown,
        else the first of all; of several outputs the first, until another is chosen (see
        `class_switch`). Of a run that was stopped windows that are missing look like others
        nearby.
    """
    guard_removals(viewer)
    layers = [Layer.create(*slide_layer(slide))]
    viewer.add_layer(layers[0])
    frame_scanned(viewer, layers[0])
    difference = _difference(heatmaps)
    seen = (*difference, *heatmaps)[:1]
    for heatmap in (*heatmaps, *difference):
        rough = _rough(heatmap, slide, tell=heatmap in seen)
        found = heatmap_layers(heatmap, layers[0], rough)
        found[0].visible = heatmap in seen
        layers += found
    for heatmap in seen:
        layers += failed_layers(heatmap, layers[0])
    for picture in pictures:
        layers += picture_layers(picture, layers[0], _limits)
    for layer in layers[1:]:
        viewer.add_layer(layer)
    viewer.canvas.overlays.scale_bar.visible = slide.mpp is not None
    return layers


def _difference(heatmaps: Sequence[Heatmap]) -> list[Heatmap]:
    """What two heatmaps differ by; empty of more or less, or if they cannot be compared."""
    if len(heatmaps) != 2:
        return []
    try:
        return [heatmaps[0].minus(heatmaps[1])]
    except HeatmapError as error:
        show_info(f"no difference is shown: {error}")
        return []


def heatmap_layers(heatmap: Heatmap, slide: Layer, rough: RoughMap | None = None) -> list[Image]:
    """Make the layer of a saved heatmap, placed over the slide's layer."""
    return [SavedLayer(heatmap, slide, None if rough is None else rough.values).layer]


def failed_layers(heatmap: Heatmap, slide: Layer) -> list[Image]:
    """Make the layer of the windows that failed; none if none did, or they lie on no lattice."""
    failed = np.flatnonzero(state_of(heatmap.state) == FAILED)
    if not len(failed) or heatmap.state.ndim != 2:
        return []
    name, reasons = heatmap.run["model"]["name"], reasons_of(heatmap)
    layer = FailedLayer(heatmap.grid, heatmap.state, slide, name, reasons)
    layer.add(failed)
    return [layer.layer]


def _rough(heatmap: Heatmap, slide: Slide, *, tell: bool = True) -> RoughMap | None:
    """What is shown of a run that was stopped; None of one that is whole, or went row by row."""
    if heatmap.state.ndim != 2 or heatmap.run.get("settings", {}).get("order") != "viewport":
        return None
    counts = count_states(heatmap.state)
    if not counts["pending"] or not counts["done"]:
        return None
    rough = rough_map(slide, heatmap.frame, heatmap.values, heatmap.state)
    if rough is not None and tell:
        planned = counts["done"] + counts["failed"] + counts["pending"]
        show_info(
            f"The run was stopped: {counts['done']:,} of {planned:,} windows are computed, the "
            "others look like the nearest one that is."
        )
    return rough


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, PERCENTILES).tolist() if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low, low + 1.0)
