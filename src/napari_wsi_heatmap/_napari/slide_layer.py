"""A slide as napari's layer data, and what must follow it: refreshes and notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from napari.utils.notifications import show_warning
from qtpy.QtCore import QCoreApplication
from superqt.utils import ensure_main_thread

from napari_wsi_heatmap.pyramid import layer_data

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Layer

    from napari_wsi_heatmap.pyramid import Pyramid
    from napari_wsi_heatmap.slides.base import Slide


def slide_layer(slide: Slide) -> tuple[list[Any], dict[str, Any], str]:
    """Return (levels, keyword arguments, "image") of a slide, and tell the user its warnings.

    The layer is refreshed while its overview fills, in whatever viewer it ends up, and the
    first tile that cannot be read is told once.
    """
    data = layer_data(slide)
    _follow(data[1]["metadata"]["pyramid"])
    _tell(slide)
    return data


def _tell(slide: Slide) -> None:
    """Show what the user should know about the slide, in one notification."""
    lines = list(slide.warnings)
    if slide.mpp is None:
        lines.append("shown in pixels, not µm; a run needs a level, or the µm per pixel stated")
    if lines:
        show_warning(f"{slide.name}: " + "; ".join(lines))


def _follow(pyramid: Pyramid) -> None:
    pyramid.on_problem(show_warning)
    if not pyramid.overview_ready.is_set():
        # The pyramid keeps its listeners: one that held the pyramid would keep it alive.
        known = ref(pyramid)
        pyramid.on_overview(lambda: _refresh_soon(known))


def _refresh_soon(known: ref[Pyramid]) -> None:
    """Refresh on the GUI thread; without one nothing is drawn that could be out of date."""
    if QCoreApplication.instance() is not None:
        ensure_main_thread(_refresh)(known)


def _refresh(known: ref[Pyramid]) -> None:
    # Where the layer went is not told to a reader, so all viewers are asked; napari has no
    # public list of them.
    from napari.viewer import Viewer

    for viewer in list(getattr(Viewer, "_instances", ())):
        refresh_layers(viewer.layers, known())


def refresh_layers(layers: Iterable[Layer], pyramid: Pyramid | None) -> None:
    """Draw those of `layers` anew that show this pyramid, with their thumbnails."""
    for layer in layers:
        if pyramid is not None and layer.metadata.get("pyramid") is pyramid:
            layer.refresh()
