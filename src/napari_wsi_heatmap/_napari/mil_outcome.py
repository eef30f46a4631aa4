"""What the MIL section shows of a slide: prediction, map, patches."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from magicgui.widgets import Container

from napari_wsi_heatmap._napari.fields import show_text, text_line
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.mil_layer import MilLayer, ScoredSlide, put
from napari_wsi_heatmap._napari.mil_patches import PatchPanel
from napari_wsi_heatmap._napari.mil_words import (
    layer_name,
    logit_tips,
    probability_rows,
    whole_line,
)
from napari_wsi_heatmap._napari.value_table import ValueTable
from napari_wsi_heatmap._napari.window_mark import WindowMark
from napari_wsi_heatmap.mil.shown import branches_of, own_branch, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_wsi_heatmap.heatmap import Heatmap

HEADINGS: Final = ("class", "probability")


class Look(NamedTuple):
    """What of a scored slide is wanted."""

    branch: int | None
    """Class whose attention is drawn; None: the one that is predicted."""
    how: str
    """See `mil.display.to_display`."""
    names: dict[int, str]
    """Of classes."""


class MilOutcome(Container):
    """A line, a table of probabilities, and the patches; the map is in the viewer.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    tell : callable
        Gets a line that says what stands in the way.
    """

    def __init__(self, viewer: ViewerModel, tell: Callable[[str], None]) -> None:
        self._viewer, self._tell = weakref.ref(viewer), tell
        self._mark, self._drawing = WindowMark(viewer), Latest("a map cannot be drawn")
        self._scored: ScoredSlide | None = None
        self._map: MilLayer | None = None
        self._branch = 0
        self._says = text_line("prediction")
        self._patches = PatchPanel(viewer, self._mark)
        super().__init__(widgets=[self._says, self._patches], labels=False)
        self.margins = (0, 0, 0, 0)
        self._table = ValueTable()
        self.native.layout().insertWidget(1, self._table)
        self.with_patches = False
        self.forget()

    @property
    def scored(self) -> ScoredSlide | None:
        """What is shown."""
        return self._scored

    @property
    def layer(self) -> Image | None:
        """The map's, while it is there."""
        return None if self._map is None else self._map.layer

    def say(self, said: Any, line: str, names: dict[int, str]) -> None:
        """Say what is predicted, and how likely each class is.

        Parameters
        ----------
        said : Bag or SoFar
        line : str
            What is predicted.
        names : dict
            Of classes.
        """
        show_text(self._says, line)
        rows = probability_rows(said, names)
        self._table.show_rows(HEADINGS if rows else (), rows, logit_tips(said))

    def show_slide(self, scored: ScoredSlide, look: Look, layer: Image | None = None) -> None:
        """Show a slide instead of the one before.

        Parameters
        ----------
        scored : ScoredSlide
        look : Look
        layer : Image, optional
            That of a live run, which shows it already.
        """
        self._scored, self._map = scored, None
        self.draw(look, layer)

    def draw(self, look: Look, layer: Image | None = None) -> None:
        """Draw the class that is wanted, the way that is wanted; nothing is scored again."""
        scored = self._scored
        if scored is None:
            return
        known = look.branch is None or look.branch < branches_of(scored.result)
        branch = own_branch(scored.result, look.branch if known else None)

        def work() -> Heatmap:
            heatmap = shown(scored.base, scored.result, branch, look.how)
            _ = heatmap.values  # of a list they are made on first use
            return heatmap

        self._drawing.ask(
            work, lambda heatmap: self._drawn(heatmap, branch, look, layer), self._tell
        )

    def _drawn(self, heatmap: Heatmap, branch: int, look: Look, layer: Image | None) -> None:
        scored, viewer = self._scored, self._viewer()
        if viewer is None or scored is None:
            return
        self._branch = branch
        name = self._name(look.names)
        if self._map is not None and self._map.layer in viewer.layers:
            self._map.show(heatmap, look.how, name)
        elif scored.over in viewer.layers:
            mine = layer if layer is not None and layer in viewer.layers else None
            self._map = MilLayer(scored, heatmap, look.how, name, mine)
            put(viewer, scored, self._map.layer)
        else:
            self._tell(f"{scored.over.name} is not in the viewer any more.")
            return
        self._say_result(look.names)
        if self.with_patches:
            self._patches.visible = True
            self._patches.show_patches(scored.result, self._map.layer, branch, look.names)

    def rename(self, names: dict[int, str]) -> None:
        """Call the classes otherwise."""
        if self._map is not None:
            self._map.rename(self._name(names))
            self._say_result(names)
            self._patches.rename(names)

    def _name(self, names: dict[int, str]) -> str:
        assert self._scored is not None
        result = self._scored.result
        return layer_name(result.provenance["mil"], self._branch, branches_of(result), names)

    def _say_result(self, names: dict[int, str]) -> None:
        assert self._scored is not None
        bag = self._scored.result.bag
        self.say(bag, whole_line(bag, names), names)

    def forget(self) -> None:
        """Show nothing of a slide any more; its layer stays."""
        self._drawing.drop()
        self._scored = self._map = None
        self.fold_away()
        self._patches.visible = False
        show_text(self._says, "")
        self._table.show_rows((), ())

    def fold_away(self) -> None:
        """Take frames, outline and thumbnails away."""
        self._patches.clear()
        self._mark.hide()

    def gone(self, layer: Layer) -> None:
        """Show nothing of a map whose layer was removed."""
        if layer is self.layer:
            self.forget()

    def leave(self) -> None:
        """Want nothing any more."""
        self._drawing.drop()
