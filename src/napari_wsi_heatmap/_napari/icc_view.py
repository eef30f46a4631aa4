"""Command: show a slide in sRGB by the ICC profile of its file, and as stored again.

Only what is drawn changes. The layer's ``metadata["slide"]`` stays the slide as stored, so that
a model never gets converted pixels because of what somebody looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from napari.viewer import Viewer
from superqt.utils import ensure_main_thread

from napari_wsi_heatmap._napari.guarded import bare, guarded
from napari_wsi_heatmap._napari.meant import slide_layer_meant
from napari_wsi_heatmap._napari.notify import tell, tell_warning
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.slide_layer import levels_like
from napari_wsi_heatmap.pyramid import slide_pyramid
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import AS_STORED

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_wsi_heatmap.pyramid import Pyramid
    from napari_wsi_heatmap.slides.base import Slide

OTHER = "other_pyramid"
"""Key of a layer's metadata: the pyramid in the colours that are not shown."""


def toggle_icc(viewer: Viewer) -> None:
    """Show the selected slide in sRGB by its ICC profile; again: as stored."""
    toggle(bare(viewer))


def toggle(viewer: ViewerModel) -> None:
    """See `toggle_icc`."""
    layer = slide_layer_meant(viewer)
    if layer is None:
        return
    slide: Slide = layer.metadata["slide"]
    if OTHER in layer.metadata:
        _swap(layer, layer.metadata[OTHER])
    elif slide.colours != AS_STORED:
        tell_warning(f"{slide.name} was opened as {slide.colours}.")
    else:
        known, view = ref(layer), (layer.data_level, layer.corner_pixels.copy())
        off_gui(
            lambda: _converted(slide, *view),
            lambda pyramid: _show_converted(known, pyramid),
            f"{slide.name}: its ICC profile cannot be applied",
        )


def _converted(slide: Slide, level: int, corners: np.ndarray) -> Pyramid:
    """Make the pyramid in sRGB, and read what will be drawn of it at once."""
    pyramid = slide_pyramid(open_slide(slide, icc=True))
    if pyramid.slide.colours != AS_STORED:
        pyramid.start_overview()
        top, left, bottom, right = corners.ravel()
        for level_seen, box in ((level, np.s_[top : bottom + 1, left : right + 1]), (-1, np.s_[:])):
            np.asarray(pyramid.levels[level_seen][box])
    return pyramid


def _show_converted(known: ref[Image], pyramid: Pyramid) -> None:
    layer = known()
    if pyramid.slide.colours == AS_STORED:
        tell_warning(f"{pyramid.slide.name}: {pyramid.slide.warnings[-1]}")
    elif layer is not None and OTHER not in layer.metadata:
        pyramid.on_problem(tell_warning)
        pyramid.on_overview(lambda: _refresh(known))
        _swap(layer, pyramid)


def _swap(layer: Image, pyramid: Pyramid) -> None:
    """Draw another pyramid of the same slide, and keep the one that was drawn."""
    locked, drawn = layer.locked_data_level, layer.metadata["pyramid"]
    drawn.stop_reading()
    layer.metadata[OTHER], layer.metadata["pyramid"] = drawn, pyramid
    layer.data = levels_like(layer, pyramid)
    if locked is not None:
        layer.locked_data_level = locked
    colours = pyramid.slide.colours
    if colours == AS_STORED:
        tell(f"{layer.name} is shown {colours}.")
    else:
        tell(f"{layer.name} is shown in {colours}; models still get it {AS_STORED}.")


@ensure_main_thread
@guarded
def _refresh(known: ref[Image]) -> None:
    layer = known()
    if layer is not None:
        layer.refresh()
