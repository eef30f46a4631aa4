"""Section of the dock: what the model saw and said at the place that is clicked.

Values, places and states come from the map. The slide is read only while a patch is asked for.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox

from napari_wsi_heatmap._napari.clicks import Clicks
from napari_wsi_heatmap._napari.fields import choice, show_text, text_line
from napari_wsi_heatmap._napari.folded import Folded
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.heatmap_slide import KeptSlide, heatmap_on_view, source_beside
from napari_wsi_heatmap._napari.inspect_text import about, covering_lines, headings, rows, tips
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.level0 import Level0
from napari_wsi_heatmap._napari.pixels import Picture
from napari_wsi_heatmap._napari.reconstructed import KeptDecoder
from napari_wsi_heatmap._napari.value_table import ValueTable

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.kept_scores import KeptScores
    from napari_wsi_heatmap._napari.reconstructed import ShownPatch
    from napari_wsi_heatmap._napari.window_mark import WindowMark
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.inspecting.point import Inspection

    Point = tuple[float, float]

HINT = "Click a place of the heatmap."
NO_HEATMAP = "There is no heatmap in this viewer: run a model, or open one."


class InspectPanel(Folded):
    """A picture, a few lines and a table about the window at the place that was clicked.

    While it is unfolded, clicks on the canvas are its own.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    mark : WindowMark
        Outlines the window.
    scores : KeptScores
        May be another section's as well.
    """

    def __init__(self, viewer: ViewerModel, mark: WindowMark, scores: KeptScores) -> None:
        self._viewer, self._mark = weakref.ref(viewer), mark
        self._clicks = Clicks(viewer, self._on_click)
        self._looking = Latest("a place cannot be inspected")
        self._reading = Latest("a patch cannot be read")
        self._slide, self._scores, self._decoder = KeptSlide(), scores, KeptDecoder()
        self._layer: weakref.ref[Layer] | None = None
        self._found: Inspection | None = None
        self._clicked = False
        self._about = text_line("about")
        self._covering = choice("window", [], "All windows that cover the place.")
        self._patch = CheckBox(
            text="Show patch",
            value=True,
            tooltip="Read the slide again: the window as the model saw it, normalisation undone.",
        )
        self._trouble = text_line("trouble")
        super().__init__(
            "Inspect a place",
            "Click the heatmap to see the patch, the values and the rank of the window there.",
            [self._about, self._covering, self._patch, self._trouble],
        )
        self._picture, self._table = Picture(), ValueTable()
        layout = self._body.native.layout()
        layout.insertWidget(2, self._table)
        layout.addWidget(self._picture)
        self._covering.changed.connect(self._on_covering)
        self._patch.changed.connect(self._read_patch)
        self.turned.connect(self._on_turned)
        self._show_nothing(HINT)

    @property
    def found(self) -> Inspection | None:
        """What is shown, without the patch."""
        return self._found

    def inspect(self, layer: Layer, point: Point) -> None:
        """Show the window of a heatmap's layer at a point, level-0 pixels."""

        def work(heatmap: Heatmap) -> Inspection:
            from napari_wsi_heatmap.inspecting.point import inspect_point

            return inspect_point(heatmap, None, *point, scores=self._scores.of(heatmap))

        self._ask(layer, work)

    def inspect_window(self, layer: Layer, index: int, point: Point | None = None) -> None:
        """Show a window of a heatmap's layer, given by its flat index."""

        def work(heatmap: Heatmap) -> Inspection:
            from napari_wsi_heatmap.inspecting.point import inspect_window

            scores = self._scores.of(heatmap)
            return inspect_window(heatmap, None, index, point=point, scores=scores)

        self._ask(layer, work)

    def _ask(self, layer: Layer, work: Any) -> None:
        heatmap, self._clicked = layer.metadata["heatmap"], False
        known = weakref.ref(layer)
        self._looking.ask(
            lambda: work(heatmap), lambda found: self._show(known, found), self._show_nothing
        )

    def _show(self, known: weakref.ref[Layer], found: Inspection) -> None:
        layer, viewer = known(), self._viewer()
        if layer is None or viewer is None or layer not in viewer.layers:
            return
        self._layer, self._found = known, found
        heatmap = layer.metadata["heatmap"]
        dense = bool(heatmap.frame.dense)
        show_text(self._about, about(found, heatmap.grid.spec.window))
        self._table.show_rows(headings(dense), rows(found, dense), tips(found))
        self._offer_covering(found)
        if found.index is None:
            self._mark.hide()
        else:
            self._mark.show(Level0.of_heatmap(layer), found.position, found.size)
        self._read_patch()

    def _offer_covering(self, found: Inspection) -> None:
        lines = covering_lines(found)
        several = len(lines) > 1 and found.index in [index for _, index in lines]
        with self._covering.changed.blocked():
            self._covering.choices = lines if several else []
            if several:
                self._covering.value = found.index
        self._covering.visible = self.unfolded and several

    @guarded
    def _read_patch(self, *_: Any) -> None:
        """Read the patch of the window that is shown, if that is asked for."""
        layer, viewer = self._layer and self._layer(), self._viewer()
        found = self._found
        show_text(self._trouble, "")
        wanted = self._patch.value and self.unfolded
        if layer is None or viewer is None or found is None or found.index is None or not wanted:
            self._reading.drop()
            self._picture.show_pixels(None)
            return
        heatmap, source, index = (
            layer.metadata["heatmap"],
            source_beside(viewer, layer),
            found.index,
        )

        def work() -> ShownPatch:
            from napari_wsi_heatmap.inspecting.patches import patches

            patch = patches(heatmap, self._slide.get(heatmap, source), [index])[0]
            return self._decoder.shown(heatmap, patch)

        self._reading.ask(work, self._show_patch, self._no_patch)

    def _show_patch(self, shown: ShownPatch) -> None:
        self._picture.show_pixels(shown.pixels)
        show_text(self._trouble, shown.line)
        if self._clicked:  # whoever goes through a gallery would lose it
            self.reveal()

    def _no_patch(self, line: str) -> None:
        self._picture.show_pixels(None)
        show_text(self._trouble, f"No patch: {line}")

    def _show_nothing(self, line: str) -> None:
        self._found = self._layer = None
        self._reading.drop()
        show_text(self._about, line)
        show_text(self._trouble, "")
        self._table.show_rows((), ())
        self._picture.show_pixels(None)
        self._covering.visible = False

    @guarded
    def _on_click(self, position: Any) -> None:
        viewer = self._viewer()
        layer = None if viewer is None else heatmap_on_view(viewer)
        if viewer is None or layer is None:
            self._show_nothing(NO_HEATMAP)
            return
        self.inspect(layer, Level0.of_heatmap(layer).at(viewer, position))
        self._clicked = True

    @guarded
    def _on_covering(self, index: int | None) -> None:
        layer = self._layer and self._layer()
        if layer is not None and self._found is not None and index is not None:
            self.inspect_window(layer, index, self._found.point)

    @guarded
    def _on_turned(self, unfolded: bool) -> None:
        if unfolded:
            self._clicks.listen(True)
            self._show_nothing(HINT)
        else:
            self._mark.hide()
            self.leave()

    def forget(self, layer: Layer) -> None:
        """Show nothing of a layer that was removed."""
        if self._layer is not None and layer is self._layer():
            self._show_nothing(HINT)
            self._mark.hide()
            self._scores.clear()

    def leave(self) -> None:
        """Want nothing any more."""
        self._clicks.listen(False)
        self._looking.drop()
        self._reading.drop()
        self._scores.clear()
        self._slide.close()
        self._decoder.let_go()
