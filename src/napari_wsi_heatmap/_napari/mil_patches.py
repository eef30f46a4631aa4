"""The highest and the lowest patches of a scored slide: a table, thumbnails, frames, a file."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from magicgui.widgets import Container, PushButton, SpinBox
from qtpy.QtWidgets import QAbstractItemView, QFileDialog

from napari_wsi_heatmap._napari.fields import choice
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.heatmap_slide import KeptSlide, source_beside
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.level0 import Level0
from napari_wsi_heatmap._napari.mil_marks import PatchMarks
from napari_wsi_heatmap._napari.notify import tell
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.value_table import ValueTable
from napari_wsi_heatmap._napari.window_gallery import WindowGallery, Windows
from napari_wsi_heatmap.inspecting.numbers import short_number
from napari_wsi_heatmap.inspecting.pictures import window_pictures
from napari_wsi_heatmap.mil.patchtable import MODES, Extremes, extremes, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.window_mark import WindowMark
    from napari_wsi_heatmap.mil.result import MilResult

HEADINGS: Final = ("rank", "score", "y", "x")
MOST: Final = 200


class PatchTable(ValueTable):
    """A patch a row; whole rows are chosen, one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)


class PatchPanel(Container):
    """Fields, a table, thumbnails; a row or a thumbnail that is clicked moves the camera.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    mark : WindowMark
        Outlines the patch that is chosen.
    """

    def __init__(self, viewer: ViewerModel, mark: WindowMark) -> None:
        self._viewer, self._marks = weakref.ref(viewer), PatchMarks(viewer)
        self._slide, self._choosing = KeptSlide(), Latest("patches cannot be chosen")
        self._shown: tuple[MilResult, Layer, int, Mapping[int, str]] | None = None
        self._found: dict[str, Extremes] = {}
        self._which = choice("which", list(MODES), "Which patches the table and pictures show.")
        self._k = SpinBox(value=8, min=1, max=MOST, tooltip="How many patches.")
        self._save = PushButton(
            text="Save both lists…", tooltip="As CSV, with checkpoint, encoder and display."
        )
        self._table, self._gallery = PatchTable(), WindowGallery(viewer, mark)
        row = Container(widgets=[self._which, self._k], layout="horizontal", labels=False)
        row.margins = (0, 0, 0, 0)
        super().__init__(widgets=[row, self._gallery, self._save], labels=False)
        self.margins = (0, 0, 0, 0)
        self.native.layout().insertWidget(1, self._table)
        self._which.changed.connect(self._fill)
        self._k.changed.connect(self._choose)
        self._save.changed.connect(self._on_save)
        self._table.currentCellChanged.connect(self._on_cell)
        self._table.cellClicked.connect(self._on_cell)
        self._gallery.chosen.connect(self._on_thumbnail)

    @property
    def found(self) -> Extremes | None:
        """The patches that are listed."""
        return self._found.get(self._which.value)

    @property
    def layer(self) -> Layer | None:
        """The map that they are patches of."""
        return None if self._shown is None else self._shown[1]

    def show_patches(
        self, result: MilResult, layer: Layer, branch: int, names: Mapping[int, str]
    ) -> None:
        """List the patches of a slide's map, for the class that it shows."""
        self._shown = result, layer, branch, names
        self._choose()

    def rename(self, names: Mapping[int, str]) -> None:
        """Call the classes otherwise, in what is saved."""
        if self._shown is not None:
            self._shown = *self._shown[:3], names

    def clear(self) -> None:
        """Show nothing, and want nothing any more."""
        self._choosing.drop()
        self._shown, self._found = None, {}
        self._marks.clear()
        self._table.show_rows((), ())
        self._gallery.clear()
        self._slide.close()

    @guarded
    def _choose(self, *_: Any) -> None:
        if self._shown is None:
            return
        result, _layer, branch, _names = self._shown
        k = min(int(self._k.value), max(1, len(result)))
        self._choosing.ask(
            lambda: {which: extremes(result, which, k, branch) for which in MODES},
            self._chosen,
            self._gallery.tell,
        )

    def _chosen(self, found: dict[str, Extremes]) -> None:
        assert self._shown is not None
        self._found = found
        self._marks.show(self._shown[1], list(found.values()))
        self._fill()

    @guarded
    def _fill(self, *_: Any) -> None:
        """Fill table and thumbnails."""
        found, viewer = self.found, self._viewer()
        if self._shown is None or found is None or viewer is None:
            return
        _result, layer, _branch, _names = self._shown
        self._table.blockSignals(True)
        self._table.show_rows(HEADINGS, rows(found), tips(found))
        self._table.setCurrentCell(-1, -1)
        self._table.blockSignals(False)
        heatmap, source = layer.metadata["heatmap"], source_beside(viewer, layer)

        def read() -> Iterator[Any]:
            slide = self._slide.get(heatmap, source)
            return window_pictures(slide, found.positions, found.size)

        texts = [short_number(score) for score in found.scores.tolist()]
        windows = Windows(found.positions, found.size, texts, tips(found))
        self._gallery.show_windows(Level0.of_heatmap(layer), windows, read)

    @guarded
    def _on_cell(self, row: int, *_: Any) -> None:
        if self.found is not None and 0 <= row < len(self.found):
            self._gallery.choose(row)

    @guarded
    def _on_thumbnail(self, number: int) -> None:
        if self._table.currentRow() != number:
            self._table.blockSignals(True)
            self._table.setCurrentCell(number, 0)
            self._table.blockSignals(False)

    @guarded
    def _on_save(self, *_: Any) -> None:
        if self._shown is None:
            return
        name = f"{self._shown[1].name.replace(': ', '-').replace(' ', '-')}.csv"
        file, _ = QFileDialog.getSaveFileName(self.native, "Save patches", name, "CSV (*.csv)")
        if file:
            path = Path(file)
            self.save(path if path.suffix else path.with_suffix(".csv"))

    def save(self, path: Path) -> None:
        """Write both lists in a thread, and tell where they are."""
        assert self._shown is not None
        result, layer, branch, names = self._shown
        found, run = list(self._found.values()), layer.metadata["heatmap"].run
        off_gui(
            lambda: write_table(
                *(result, path, found),
                slide=str(run["slide"]["name"]),
                branch=branch,
                display=str(run["mil"]["display"]),
                classes=names,
            ),
            lambda written: tell(f"the patches were saved to {written}"),
            "The patches cannot be saved",
        )


def rows(found: Extremes) -> list[list[str]]:
    """What the table says of each patch."""
    return [
        [f"{number + 1}", short_number(score), f"{y:,.0f}", f"{x:,.0f}"]
        for number, (score, (y, x)) in enumerate(
            zip(found.scores.tolist(), found.positions.tolist(), strict=True)
        )
    ]


def tips(found: Extremes) -> list[str]:
    """What is said of each patch under the mouse."""
    return [
        f"{found.which}, rank {number + 1}: score {found.scores[number]:.6g}, weight "
        f"{found.weights[number]:.4g}\nabove {100 * found.percentiles[number]:.1f} % of the "
        f"patches\ntop left y {y:,.0f}, x {x:,.0f} (level-0 pixels)"
        for number, (y, x) in enumerate(found.positions.tolist())
    ]
