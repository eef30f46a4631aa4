"""Section of the dock: the highest, the lowest, or some random windows of a map."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container, PushButton, SpinBox
from psygnal import Signal

from napari_wsi_heatmap._napari.fields import choice
from napari_wsi_heatmap._napari.folded import Folded
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.heatmap_slide import KeptSlide, heatmap_on_view, source_beside
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.level0 import Level0
from napari_wsi_heatmap._napari.window_gallery import WindowGallery, Windows
from napari_wsi_heatmap.inspecting.numbers import short_number

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.kept_scores import KeptScores
    from napari_wsi_heatmap._napari.window_mark import WindowMark
    from napari_wsi_heatmap.inspecting.gallery import Gallery

WHICH = (("highest", "top"), ("lowest", "bottom"), ("random", "random"))
MOST = 200
NOTHING = "No window of this map is computed yet."
NO_HEATMAP = "There is no heatmap in this viewer: run a model, or open one."


class GalleryPanel(Folded):
    """Fields, and below them the thumbnails.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    mark : WindowMark
    scores : KeptScores
        May be another section's as well.

    Attributes
    ----------
    chosen : psygnal.Signal
        Emitted with the heatmap's layer and the flat index of a window whose thumbnail is clicked.
    """

    chosen = Signal(object, int)

    def __init__(self, viewer: ViewerModel, mark: WindowMark, scores: KeptScores) -> None:
        self._viewer, self._scores = weakref.ref(viewer), scores
        self._slide, self._choosing = KeptSlide(), Latest("a gallery cannot be chosen")
        self._layer: Layer | None = None
        self._gallery: Gallery | None = None
        self._which = choice("which", WHICH, "Windows with the highest values, the lowest, or any.")
        self._output = choice("output", self._outputs, "Whose values count.")
        self._n = SpinBox(label="n", value=16, min=1, max=MOST, tooltip="How many windows.")
        self._seed = SpinBox(label="seed", value=0, min=0, max=2**31 - 1, tooltip="Of chance.")
        self._chance = _row(self._seed, labels=True)
        self._apart = CheckBox(
            text="no overlaps",
            value=True,
            tooltip="Leave out windows that overlap one shown before them.",
        )
        self._show = PushButton(text="Show", tooltip="Choose windows from the map as it is now.")
        self._shown = WindowGallery(viewer, mark)
        super().__init__(
            "Gallery of windows",
            "The highest, the lowest, or random windows of the heatmap; a click moves to one.",
            [
                _row(self._which, self._n),
                self._chance,
                self._output,
                _row(self._apart, self._show),
            ],
        )
        self._body.append(self._shown)
        self._chance.visible = self._output.visible = False
        for field in (self._which, self._output, self._n, self._seed, self._apart):
            field.changed.connect(self._on_field)
        self._show.changed.connect(self.show_gallery)
        self._shown.chosen.connect(self._on_chosen)
        self.turned.connect(self._on_turned)

    @property
    def gallery(self) -> Gallery | None:
        """The windows that are shown."""
        return self._gallery

    @guarded
    def show_gallery(self, *_: Any) -> None:
        """Choose windows from the map that is on view, and read their pixels."""
        viewer = self._viewer()
        layer = None if viewer is None else heatmap_on_view(viewer)
        if viewer is None or layer is None:
            self._shown.clear()
            self._shown.tell(NO_HEATMAP)
            return
        self._follow(layer)
        heatmap, options = layer.metadata["heatmap"], self._options()

        def work() -> Gallery:
            from napari_wsi_heatmap.inspecting.gallery import gallery

            return gallery(heatmap, scores=self._scores.of(heatmap), **options)

        self._choosing.ask(work, lambda found: self._found(layer, found), self._shown.tell)

    def _options(self) -> dict[str, Any]:
        return {
            "n": self._n.value,
            "which": self._which.value,
            "seed": self._seed.value,
            "channel": self._output.value or 0,
            "apart": self._apart.value,
        }

    def _found(self, layer: Layer, found: Gallery) -> None:
        viewer = self._viewer()
        if viewer is None or layer not in viewer.layers:
            return
        self._gallery = found
        if not len(found):
            self._shown.clear()
            self._shown.tell(NOTHING)
            return
        heatmap, source = layer.metadata["heatmap"], source_beside(viewer, layer)

        def read() -> Any:
            from napari_wsi_heatmap.inspecting.patches import each_patch

            return each_patch(heatmap, self._slide.get(heatmap, source), found.index)

        self._shown.show_windows(Level0.of_heatmap(layer), windows_of(found), read)
        self.reveal()

    def _outputs(self, _: Any = None) -> list[tuple[str, int]]:
        layer = self._layer
        names = () if layer is None else layer.metadata["heatmap"].names
        return [(name, i) for i, name in enumerate(names)]

    def _follow(self, layer: Layer) -> None:
        """Offer the outputs of a heatmap, at first the one that its layer shows."""
        if layer is not self._layer:
            self._layer = layer
            with self._output.changed.blocked():
                self._output.reset_choices()
                if len(self._output.choices) > 1:
                    self._output.value = shown_output(layer)
        self._output.visible = self.unfolded and len(self._output.choices) > 1

    @guarded
    def _on_field(self, *_: Any) -> None:
        self._chance.visible = self._which.value == "random"
        if self._gallery is not None:
            self.show_gallery()

    @guarded
    def _on_turned(self, unfolded: bool) -> None:
        if unfolded:
            self.show_gallery()
        else:
            self._fold_away()

    def _fold_away(self) -> None:
        self._shown.clear()
        self._gallery = self._layer = None
        self.leave()

    def forget(self, layer: Layer) -> None:
        """Show nothing of a layer that was removed."""
        if layer is self._layer:
            self._fold_away()

    def leave(self) -> None:
        """Want nothing any more."""
        self._choosing.drop()
        self._scores.clear()
        self._slide.close()

    @guarded
    def _on_chosen(self, number: int) -> None:
        if self._gallery is not None and self._layer is not None:
            self.chosen.emit(self._layer, int(self._gallery.index[number]))


def _row(*fields: Any, labels: bool = False) -> Container:
    row = Container(widgets=fields, layout="horizontal", labels=labels)
    row.margins = (0, 0, 0, 0)
    return row


def windows_of(found: Gallery) -> Windows:
    """A gallery as thumbnails have it: its value below each, its place under the mouse."""
    texts = [short_number(value) for value in found.values.tolist()]
    tips = [
        f"{found.name}: {value:.6g}, {place:,} of {found.of:,}\ntop left y {y:,.0f}, x {x:,.0f}"
        for value, place, (y, x) in zip(
            found.values.tolist(), found.places.tolist(), found.positions.tolist(), strict=True
        )
    ]
    return Windows(found.positions, found.size, texts, tips)


def shown_output(layer: Layer) -> int:
    """Which output of a heatmap its layer shows."""
    switch = layer.metadata.get("switch")
    return 0 if switch is None else int(switch.channel)
