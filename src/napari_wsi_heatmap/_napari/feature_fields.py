"""A folded part of the dock: what can be seen of the features of a heatmap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container, PushButton, SpinBox

from napari_wsi_heatmap._napari.feature_layers import (
    Computed,
    heatmap_meant,
    put,
    say_artefacts,
    show_clusters,
    show_latent,
    show_pca,
    title_of,
)
from napari_wsi_heatmap._napari.fields import show_text, text_line
from napari_wsi_heatmap._napari.folded import Folded
from napari_wsi_heatmap._napari.guarded import bare, guarded
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.similarity import SimilarityTool
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer

TITLE, TOOLTIP = "Features", "What the feature vectors say that an encoder gives."
NONE_YET = "Run a model that gives features (an encoder), or open a heatmap that has some."
BUSY = "computing…"


class FeatureSection(Folded):
    """Buttons for layers of features; sees to itself.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer, self._gone = bare(viewer), False
        self._tool: SimilarityTool | None = None
        self._pca = _button("Colours (PCA)", "Three principal components as red, green, blue.")
        self._artefacts = _button(
            "Follow x or y?", "Which features change across the slide: perhaps an artefact."
        )
        self._clusters = _button("Clusters", "k-means: groups of windows that look alike.")
        self._k = SpinBox(min=2, max=100, value=8, tooltip="Number of clusters.")
        self._latent = _button("Latent", "One feature as a map.")
        self._number = SpinBox(min=0, max=0, value=0, tooltip="Number of the feature, from 0.")
        self._similar = CheckBox(
            text="Similar to a click",
            tooltip="Click on the slide: what looks like the window that you clicked.",
        )
        self._line = text_line("features")
        rows = [
            _row(self._pca, self._artefacts),
            _row(self._clusters, self._k),
            _row(self._latent, self._number),
            self._similar,
        ]
        super().__init__(TITLE, TOOLTIP, [*rows, self._line])
        self._connect()

    def _connect(self) -> None:
        self._pca.changed.connect(lambda: self._show(show_pca))
        self._artefacts.changed.connect(lambda: self._show(say_artefacts))
        self._clusters.changed.connect(lambda: self._show(self._in_clusters()))
        self._latent.changed.connect(lambda: self._show(self._of_latent()))
        self._similar.changed.connect(self._on_similar)
        layers = self._viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.selection.events):
            event.connect(self._refresh)
        self.native.destroyed.connect(self._on_destroyed)
        self._refresh()

    def _in_clusters(self) -> Callable[[Layer], Computed]:
        k = int(self._k.value)
        return lambda of: show_clusters(of, k)

    def _of_latent(self) -> Callable[[Layer], Computed]:
        number = int(self._number.value)
        return lambda of: show_latent(of, number)

    @guarded
    def _refresh(self, *_: Any) -> None:
        """Follow the viewer's layers: which heatmap is meant, and how many features it has."""
        if self._gone:
            return
        of = heatmap_meant(self._viewer)
        if self._tool is not None and not self._tool.there:
            self._similar.value = False
        for field in (self._pca, self._clusters, self._latent, self._artefacts, self._similar):
            field.enabled = of is not None
        if of is not None:
            self._number.max = of.metadata["heatmap"].features.shape[-1] - 1
        if of is None or self._line.tooltip == NONE_YET:
            self._say(NONE_YET if of is None else "")

    def _show(self, compute: Callable[[Layer], Computed]) -> None:
        """Compute in a thread what is asked for, then show it."""
        of = heatmap_meant(self._viewer)
        if of is None or self._gone:
            return
        self._say(BUSY)
        off_gui(
            lambda: _in_words(compute, of),
            lambda computed: self._arrive(of, computed),
            f"{title_of(of)}: its features cannot be shown",
        )

    def _arrive(self, of: Layer, computed: Computed) -> None:
        if self._gone:
            return
        if computed.make is not None and of in self._viewer.layers:
            put(self._viewer, of, computed.make())
        self._say(computed.says)

    @guarded
    def _on_similar(self, on: bool) -> None:
        of = heatmap_meant(self._viewer)
        if self._tool is not None:
            self._tool.end()
            self._tool = None
            self._say("")
        if on and of is not None:
            self._tool = SimilarityTool(self._viewer, of, self._say)
            self._tool.begin()

    def _say(self, text: str) -> None:
        if not self._gone:
            show_text(self._line, text)

    @guarded
    def _on_destroyed(self, *_: Any) -> None:
        """Qt has deleted the dock; whatever still calls this object must not touch it."""
        self._gone = True
        if self._tool is not None:
            self._tool.end()
        layers = self._viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.selection.events):
            event.disconnect(self._refresh)


def _button(text: str, tooltip: str) -> PushButton:
    return PushButton(text=text, tooltip=tooltip)


def _row(*widgets: Any) -> Container:
    row = Container(widgets=widgets, layout="horizontal", labels=False)
    row.margins = (0, 0, 0, 0)
    return row


def _in_words(compute: Callable[[Layer], Computed], of: Layer) -> Computed:
    """What is computed, or in its place what the user should know of an error."""
    try:
        return compute(of)
    except HeatmapError as error:
        return Computed(None, str(error))
