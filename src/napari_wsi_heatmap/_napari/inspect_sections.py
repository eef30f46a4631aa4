"""The sections of the dock that look at windows: they share one outline on the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container

from napari_wsi_heatmap._napari.gallery_panel import GalleryPanel
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.inspect_panel import InspectPanel
from napari_wsi_heatmap._napari.kept_scores import KeptScores
from napari_wsi_heatmap._napari.window_mark import WindowMark

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


class InspectSections(Container):
    """Inspect a place; a gallery of windows, of which the one that is clicked is inspected, too.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        mark, scores = WindowMark(viewer), KeptScores()
        self.inspector = InspectPanel(viewer, mark, scores)
        self.gallery = GalleryPanel(viewer, mark, scores)
        super().__init__(widgets=[self.inspector, self.gallery], labels=False)
        self.margins = (0, 0, 0, 0)
        self.gallery.chosen.connect(self._on_chosen)
        self.gallery.turned.connect(self._on_gallery)
        self._mark, self._layers = mark, viewer.layers
        viewer.layers.events.removed.connect(self._on_removed)
        self.native.destroyed.connect(self._on_destroyed)

    @guarded
    def _on_chosen(self, layer: Layer, index: int) -> None:
        if self.inspector.unfolded:
            self.inspector.inspect_window(layer, index)

    @guarded
    def _on_gallery(self, unfolded: bool, *_: Any) -> None:
        if not unfolded and not self.inspector.unfolded:
            self._mark.hide()

    @guarded
    def _on_removed(self, event: Any) -> None:
        self.inspector.forget(event.value)
        self.gallery.forget(event.value)

    @guarded
    def _on_destroyed(self, *_: Any) -> None:
        """Qt has deleted it; whatever still calls this object must not touch it."""
        self._layers.events.removed.disconnect(self._on_removed)
