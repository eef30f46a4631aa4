"""The most likely class of each cell as a Labels layer: of a run while it goes on, or a saved map.

A colour belongs to the number of a class, whatever others there are; what is not computed yet is
transparent. The status bar names the class under the cursor.
"""

from __future__ import annotations

import html
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_wsi_heatmap._napari.cursor_text import say_under_cursor
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.live_layer import FULL_REFRESH_S
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap._napari.placement import FOLLOWED
from napari_wsi_heatmap._napari.registry import job_of
from napari_wsi_heatmap.classes import GrowingClasses, class_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

PART_OF = "part_of"
"""Key of a layer's metadata: the heatmap layer that it was made from."""
OPACITY = 0.6
FIRST = ("#0072b2", "#e69f00", "#009e73", "#f0e442", "#d55e00", "#56b4e9", "#7f3fbf")
"""Told apart by all kinds of colour vision, and unlike H&E (after Okabe and Ito, Color Universal
Design, 2008; without their pink and black)."""
FURTHER = (
    1, 2, 3, 5, 6, 8, 9, 10, 12, 13, 14, 15, 17, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 31, 32, 34,
    36, 37, 38, 39, 41, 42, 44, 45, 46, 47, 48, 50, 51, 52, 53, 55, 57, 59, 60, 61, 63, 64, 65, 66,
    67, 68, 69, 70, 71, 73, 75, 76, 77, 78, 79, 81, 84, 85, 86, 89, 90, 93, 94, 95,
)  # fmt: skip
"""Numbers in the palette of Glasbey et al. (Color Research and Application 32, 304–309, 2007) of
those at least 22 apart in CIE Lab from each other and the first, neither black nor white."""
MOST_IN_LEGEND = 24
MOST_AT_ONCE = 1 << 22
"""Values that are looked through on the GUI thread: a few ms."""


def classes_of(layer: Layer) -> tuple[str, ...]:
    """Names of the classes that a heatmap layer tells apart; empty if there is nothing to tell."""
    heatmap = layer.metadata["heatmap"]
    kind = heatmap.run.get("kind")
    if "mil" in heatmap.run:  # scores and weights of patches: none of them is a class
        return ()
    return class_names(heatmap.names, heatmap.uncertainty, kind) or ()


def color_of(number: int) -> str:
    """Colour of a class, ``#rrggbb``, by its number from 0 on."""
    colors = palette()
    return colors[number % len(colors)]


@cache
def palette() -> tuple[str, ...]:
    """Colours that are told apart; more classes than these begin again."""
    from cmap import Color, Colormap

    glasbey = Colormap("glasbey:glasbey")
    return (*FIRST, *(Color(glasbey(i)).hex[:7].lower() for i in FURTHER))


def legend_of(names: Sequence[str]) -> str:
    """HTML: a square in the colour of each class, and its name."""
    some = [
        f'<span style="color:{color_of(i)}">\u25a0</span>\u00a0{html.escape(name)}'
        for i, name in enumerate(names[:MOST_IN_LEGEND])
    ]
    return "&nbsp;&nbsp; ".join(some + (["\u2026"] if len(names) > MOST_IN_LEGEND else []))


class ClassLabels:
    """Shows the classes of a heatmap layer, where and as long as it lies.

    Parameters
    ----------
    heatmap_layer : Layer
        With a heatmap of two or more classes.

    Attributes
    ----------
    layer : napari.layers.Labels
        Belongs into the viewer; it keeps this object.
    """

    def __init__(self, heatmap_layer: Layer) -> None:
        self._of, self._job = heatmap_layer, job_of(heatmap_layer)
        self.names = classes_of(heatmap_layer)
        heatmap = heatmap_layer.metadata["heatmap"]
        self._classes = GrowingClasses(heatmap.values, heatmap.frame, len(self.names))
        self.layer = self._make(heatmap.run["model"]["name"])
        self._drawn, self._full_at = 0, 0.0
        for name in FOLLOWED:
            getattr(heatmap_layer.events, name).connect(self._follow)
        self._begin(heatmap.values[: len(self.names)].size)

    def _make(self, title: str) -> Labels:
        colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
        colors |= {i + 1: color_of(i) for i in range(len(self.names))}
        layer = Labels(
            self._classes.labels,
            name=f"{title}: most likely class",
            opacity=OPACITY,
            multiscale=False,
            cache=False,
            colormap=DirectLabelColormap(color_dict=colors),
            axis_labels=self._of.axis_labels,
            metadata={PART_OF: self._of, "names": self.names, "classes": self},
            **{name: getattr(self._of, name) for name in FOLLOWED},
        )
        layer.editable = False  # what somebody painted would be painted over
        say_under_cursor(layer, self._say)
        return layer

    def _begin(self, cells: int) -> None:
        """Keep labels up to date from now on, then make those of what is there already."""
        switch = self._of.metadata.get("switch")
        if self._job is not None and not self._job.over and switch is not None:
            switch.follow(self._classes)
            self._job.changed.connect(self._draw)
        if cells <= MOST_AT_ONCE:
            self._classes.fill()
            self._draw()
        else:
            off_gui(self._classes.fill, self._draw, f"{self.layer.name} cannot be shown")

    def _say(self, row: int, col: int) -> str:
        label = int(self._classes.labels[row, col])
        return self.names[label - 1] if label else "not computed"

    @guarded
    def _draw(self, *_: Any) -> None:
        """Draw what is new, if anything is."""
        if self._classes.version != self._drawn:
            self._drawn = self._classes.version
            due = time.monotonic() - self._full_at >= FULL_REFRESH_S
            self._full_at = time.monotonic() if due else self._full_at
            self.layer.refresh(thumbnail=due, highlight=False, extent=False)
        if self._job is not None and self._job.over:
            self._job.changed.disconnect(self._draw, missing_ok=True)
            self.layer.refresh()

    @guarded
    def _follow(self, event: Any = None) -> None:
        for name in FOLLOWED:
            setattr(self.layer, name, getattr(self._of, name))
