"""What of a heatmap is shown: one of its outputs, its most likely classes, where windows disagree.

Nothing is run again. The heatmap is the one that is selected, else the topmost, live or saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from magicgui.widgets import Container
from qtpy.QtCore import Qt

from napari_wsi_heatmap._napari.class_labels import (
    PART_OF,
    ClassLabels,
    classes_of,
    legend_of,
)
from napari_wsi_heatmap._napari.fields import choice, text_line
from napari_wsi_heatmap._napari.guarded import bare, guarded
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.unsure_layer import can_disagree, unsure_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

CLASSES: Final = "most likely class"
DISAGREEMENT: Final = "where windows disagree"
TITLE = "Heatmap shows"
NARROWEST = 260
"""px of a dock of its own, at which its entries can be read."""
TOOLTIP = "What of the heatmap that is selected, else of the topmost, is shown; nothing runs again."

Entry = tuple[str, int | str]
"""Text of an entry; number of a channel, or one of the words above."""


def heatmap_layer(viewer: ViewerModel) -> Layer | None:
    """The heatmap layer that is meant: the selected one, else the topmost that is seen.

    What was made from a heatmap layer stands for it.
    """
    active = viewer.layers.selection.active
    selected = [] if active is None else [active, *viewer.layers.selection]
    seen = [layer for layer in reversed(viewer.layers) if layer.visible]
    for layer in (*selected, *seen, *reversed(viewer.layers)):
        owner = layer.metadata.get(PART_OF, layer)
        if "switch" in owner.metadata and owner in viewer.layers:
            return owner
    return None


def entries_of(layer: Layer) -> list[Entry]:
    """What can be shown of a heatmap layer."""
    entries: list[Entry] = [(name, i) for i, name in enumerate(layer.metadata["switch"].names)]
    entries += [(CLASSES, CLASSES)] if classes_of(layer) else []
    return entries + ([(DISAGREEMENT, DISAGREEMENT)] if can_disagree(layer) else [])


def shown_of(viewer: ViewerModel, layer: Layer) -> int | str:
    """Which of its entries is shown."""
    parts = [(what, _part(viewer, layer, what)) for what in (CLASSES, DISAGREEMENT)]
    seen = [what for what, part in parts if part is not None and part.visible]
    channel: int = layer.metadata["switch"].channel
    return seen[-1] if seen and not layer.visible else channel


def show_entry(viewer: ViewerModel, layer: Layer, what: int | str) -> None:
    """Show one of the entries of a heatmap layer, and none of its others.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Layer
    what : int or str
        A channel, or ``CLASSES`` or ``DISAGREEMENT``. The latter is computed in a thread, anew
        each time: a run may have gone on.
    """
    if what == DISAGREEMENT:
        heatmap, channel = layer.metadata["heatmap"], layer.metadata["switch"].channel
        off_gui(
            heatmap.disagreement,
            lambda found: _put(viewer, layer, what, unsure_layer(layer, found, channel)),
            f"{layer.name}: what overlapping windows differ by cannot be shown",
        )
    elif what == CLASSES:
        _put(viewer, layer, what, _part(viewer, layer, what) or ClassLabels(layer).layer)
    else:
        layer.metadata["switch"].show_channel(what)
        _only(viewer, layer, layer)


def _part(viewer: ViewerModel, layer: Layer, what: int | str) -> Layer | None:
    """The layer that shows an entry of a heatmap layer, if it was made before."""
    parts = (part for part in viewer.layers if part.metadata.get(PART_OF) is layer)
    return next((part for part in parts if part.metadata.get("entry") == what), None)


def _put(viewer: ViewerModel, layer: Layer, what: int | str, part: Layer) -> None:
    if layer not in viewer.layers:  # it was removed meanwhile
        return
    before = _part(viewer, layer, what)
    part.metadata["entry"] = what
    if before is not part:
        viewer.layers.insert(viewer.layers.index(before or layer) + 1, part)
    if before is not None and before is not part:
        viewer.layers.remove(before)
    _only(viewer, layer, part)


def _only(viewer: ViewerModel, layer: Layer, shown: Layer) -> None:
    """Of a heatmap layer and its parts show one: their colours would mix."""
    for part in viewer.layers:
        if part is layer or part.metadata.get(PART_OF) is layer:
            part.visible = part is shown
    viewer.layers.selection.active = shown  # so that the status bar speaks of it


class ClassSwitch(Container):
    """A list of what can be shown of a heatmap, and what the colours of its classes mean.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        self._viewer, self._gone = bare(napari_viewer), False
        self._of: Layer | None = None
        self._offered: list[Entry] = []
        self._shows = choice("shows", lambda _: self._offered, TOOLTIP)
        self._row = Container(widgets=[self._shows], labels=True)
        self._row.margins = (0, 0, 0, 0)
        self._legend = text_line("legend")
        self._legend.native.setTextFormat(Qt.TextFormat.RichText)
        super().__init__(widgets=[self._row, self._legend], labels=False)
        self.margins = (0, 0, 0, 0)
        self._row.visible = self._legend.visible = False
        self._shows.changed.connect(self._on_choice)
        layers = self._viewer.layers
        for event in (
            layers.selection.events.active,
            layers.events.inserted,
            layers.events.removed,
        ):
            event.connect(self.refresh)
        self.native.destroyed.connect(self._on_destroyed)
        self.refresh()

    def reset_choices(self, *_: Any) -> None:
        """Follow the viewer's layers; napari calls this whenever they change."""
        self.refresh()

    @guarded
    def refresh(self, *_: Any) -> None:
        """Follow the layers: offer what can be shown of the heatmap that is meant."""
        if not self._gone:
            self._attend(heatmap_layer(self._viewer))
            self._offer()

    def _attend(self, layer: Layer | None) -> None:
        """Listen to a heatmap layer, and no longer to another."""
        if layer is self._of:
            return
        for old in [] if self._of is None else [self._of]:
            old.metadata["switch"].channel_changed.disconnect(self.refresh, missing_ok=True)
            old.events.visible.disconnect(self.refresh)
        self._of = layer
        if layer is not None:
            layer.metadata["switch"].channel_changed.connect(self.refresh)
            layer.events.visible.connect(self.refresh)

    def _offer(self) -> None:
        entries = [] if self._of is None else entries_of(self._of)
        several = len(entries) > 1
        if self._row.visible != several:
            self._row.visible = several
        with self._shows.changed.blocked():
            if self._offered != entries:
                for self._offered in ([], entries):  # else those that stay keep their place
                    self._shows.reset_choices()
            if self._of is not None and several:
                self._shows.value = shown_of(self._viewer, self._of)
        self._explain()

    def _explain(self) -> None:
        """Say which colour is which class while classes are shown."""
        classes = self._of is not None and self._shows.value == CLASSES
        text = legend_of(classes_of(self._of)) if classes else ""
        if self._legend.value != text:
            self._legend.value = text
        if self._legend.visible != classes:
            self._legend.visible = classes

    @guarded
    def _on_choice(self, what: int | str | None) -> None:
        if self._of is not None and what is not None:
            show_entry(self._viewer, self._of, what)
            self._explain()

    @guarded
    def _on_destroyed(self, *_: Any) -> None:
        """Qt has deleted it; whatever still calls this object must not touch it."""
        self._gone = True
        layers = self._viewer.layers
        for event in (
            layers.selection.events.active,
            layers.events.inserted,
            layers.events.removed,
        ):
            event.disconnect(self.refresh)
        self._attend(None)


def offer_switch(viewer: Any) -> None:
    """Dock a switch beside a viewer in which there is something to choose."""
    layer = heatmap_layer(viewer)
    if layer is not None and len(entries_of(layer)) > 1:
        switch = ClassSwitch(viewer)
        switch.native.setMinimumWidth(NARROWEST)
        switch.native.layout().addStretch()
        viewer.window.add_dock_widget(switch, name=TITLE, area="right")
