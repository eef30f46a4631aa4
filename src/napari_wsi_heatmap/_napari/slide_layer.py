"""A slide as napari's layer data, and what must follow it: refreshes and notifications."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.notify import tell, tell_warning
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
    first tile that cannot be read is told once. Where little of the slide was scanned, a
    viewer that shows nothing else opens on that part.
    """
    data = layer_data(slide)
    pyramid = data[1]["metadata"]["pyramid"]
    _tell_warnings(slide)
    _follow(pyramid)
    if _gui_runs() and _scanned_share(slide) < FRAMED_BELOW:
        from qtpy.QtCore import QTimer

        # The layer does not exist before the reader has returned.
        QTimer.singleShot(0, partial(_in_viewers, frame_scanned, ref(pyramid)))
    return data


def _gui_runs() -> bool:
    """Whether there is a GUI; readers also serve scripts, where no Qt may be installed."""
    core = sys.modules.get("qtpy.QtCore")
    return core is not None and core.QCoreApplication.instance() is not None


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


def _follow(pyramid: Pyramid) -> None:
    pyramid.on_problem(tell_warning)
    if not pyramid.overview_ready.is_set():
        tell(f"{pyramid.slide.name} holds no small levels: its overview fills as it is read")
        # The pyramid keeps its listeners: one that held the pyramid would keep it alive.
        known = ref(pyramid)
        pyramid.on_overview(lambda: _refresh_soon(known))


def _refresh_soon(known: ref[Pyramid]) -> None:
    """Refresh on the GUI thread; without one nothing is drawn that could be out of date."""
    if _gui_runs():
        from superqt.utils import ensure_main_thread

        ensure_main_thread(_in_viewers)(refresh, known)


@guarded
def _in_viewers(act: Callable[[ViewerModel, Layer], None], known: ref[Pyramid]) -> None:
    """Call ``act(viewer, layer)`` for each layer that shows this pyramid, in any viewer."""
    # Where the layer went is not told to a reader, so all viewers are asked; napari has no
    # public list of them.
    from napari.viewer import Viewer

    pyramid = known()
    for viewer in list(getattr(Viewer, "_instances", ())):
        for layer in viewer.layers:
            if pyramid is not None and layer.metadata.get("pyramid") is pyramid:
                act(viewer, layer)


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
