"""A slide as napari's layer data, and what must follow it: refreshes, reading ahead, notices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari_wsi_heatmap._napari.arrivals import refresh_on_arrival
from napari_wsi_heatmap._napari.notify import tell, tell_warning
from napari_wsi_heatmap._napari.shown import gui_runs, in_viewers
from napari_wsi_heatmap._napari.viewing import apply_cache_size, shows_progressively
from napari_wsi_heatmap.progressive import ProgressiveArray
from napari_wsi_heatmap.pyramid import layer_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.pyramid import Pyramid
    from napari_wsi_heatmap.slides.base import Slide


FRAMED_BELOW = 0.5
"""Share of the slide that was scanned, below which the view opens on the scanned part."""


def slide_layer(slide: Slide) -> tuple[list[Any], dict[str, Any], str]:
    """Return (levels, keyword arguments, "image") of a slide, and tell the user its warnings.

    The layer is refreshed while its overview fills, in whatever viewer it ends up, and the
    first tile that cannot be read is told once. What lies ahead of the camera is read before it
    comes into view. Where little of the slide was scanned, a viewer that shows nothing else
    opens on that part.
    """
    apply_cache_size()
    progressive = shows_progressively(slide)
    data = layer_data(slide, progressive=progressive)
    pyramid = data[1]["metadata"]["pyramid"]
    _tell_warnings(slide)
    follow_filling(pyramid)
    if progressive:
        refresh_on_arrival(pyramid)
    elif not pyramid.overview_ready.is_set():
        tell(f"{slide.name} holds no small levels: its overview fills as it is read")
    if gui_runs():
        _when_in_viewer(pyramid, follow_camera)
        if _scanned_share(slide) < FRAMED_BELOW:
            _when_in_viewer(pyramid, frame_scanned)
    return data


def levels_like(layer: Layer, pyramid: Pyramid) -> list[Any]:
    """Levels of another pyramid of the same slide, of the kind that the layer shows."""
    if not any(isinstance(level, ProgressiveArray) for level in layer.data):
        return pyramid.layer_levels
    levels = pyramid.progressive_layer_levels
    refresh_on_arrival(pyramid)
    return levels


def _when_in_viewer(pyramid: Pyramid, act: Callable[[ViewerModel, Layer], None]) -> None:
    from qtpy.QtCore import QTimer

    # The layer does not exist before the reader has returned.
    QTimer.singleShot(0, partial(in_viewers, act, ref(pyramid)))


def _tell_warnings(slide: Slide) -> None:
    """Show what the user should know about the slide, in one notification."""
    lines = list(slide.warnings)
    if slide.mpp is None:
        lines.append("shown in pixels, not µm; a run needs a level, or the µm per pixel stated")
    if lines:
        tell_warning(f"{slide.name}: " + "; ".join(lines))


def _scanned_share(slide: Slide) -> float:
    height, width = slide.levels[0].shape
    return slide.bounds[2] * slide.bounds[3] / (height * width)


def follow_filling(pyramid: Pyramid) -> None:
    """Tell what cannot be read, and draw its layers anew while its small levels are filled."""
    pyramid.on_problem(tell_warning)
    if not pyramid.overview_ready.is_set():
        # The pyramid keeps its listeners: one that held the pyramid would keep it alive.
        known = ref(pyramid)
        pyramid.on_overview(lambda: _refresh_soon(known))


def _refresh_soon(known: ref[Pyramid]) -> None:
    """Refresh on the GUI thread; without one nothing is drawn that could be out of date."""
    if gui_runs():
        from superqt.utils import ensure_main_thread

        ensure_main_thread(in_viewers)(refresh, known)


def follow_camera(viewer: ViewerModel, layer: Layer) -> None:
    """Read ahead of the viewer's camera, while it shows the layer."""
    from napari_wsi_heatmap._napari.prefetching import follow

    follow(viewer, layer)


def refresh(viewer: ViewerModel, layer: Layer) -> None:
    """Draw the layer anew, with its thumbnail."""
    layer.refresh()


def frame_scanned(viewer: ViewerModel, layer: Layer) -> None:
    """Show the scanned part of the slide, if the viewer shows nothing else."""
    if len(viewer.layers) > 1:
        return
    slide = layer.metadata["slide"]
    y, x, height, width = slide.bounds
    whole = slide.levels[0].shape
    viewer.scene.camera.center = layer.data_to_world((y + height / 2, x + width / 2))
    viewer.scene.camera.zoom *= min(whole[0] / height, whole[1] / width)
