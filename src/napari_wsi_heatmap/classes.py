"""Which class is the most likely one, cell by cell: the argmax of a heatmap, whole or growing.

Labels are those of napari and of most tools: 0 says nothing, class i is i + 1. A cell that is not
computed, or has a class whose value is NaN, is 0. Of classes with the same value it is the first.
"""

from __future__ import annotations

import threading
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap.dense import TILE
from napari_wsi_heatmap.errors import ModelOutputError
from napari_wsi_heatmap.growing import boxes_of, chunk_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.growing import Box, Index, Values
    from napari_wsi_heatmap.heatmap import Heatmap

    Labels = NDArray[np.unsignedinteger[Any]]

STRIP = 512
"""Cells along a side that are labelled at once: an index takes eight bytes."""


class ClassMap(NamedTuple):
    """The most likely class of each cell."""

    labels: Labels
    """(My, Mx): 0 where none can be told, else i + 1 for class i."""
    names: tuple[str, ...]
    """Of the classes; label i + 1 is ``names[i]``."""


def class_names(names: Sequence[str], uncertainty: Sequence[str] = (), kind: Any = None) -> Any:
    """Names of the channels that are classes of one model; None if there is nothing to choose.

    Parameters
    ----------
    names : sequence of str
        Of all channels.
    uncertainty : sequence of str
        Names of those that only say how sure it is.
    kind : str, optional
        Of a heatmap that no model computed: such a one has no classes.
    """
    classes = tuple(names[: len(names) - len(uncertainty)])
    return None if kind in COMPUTED or len(classes) < 2 else classes


COMPUTED = ("difference", "disagreement")
"""Kinds of heatmaps that are made of others."""


def class_map(heatmap: Heatmap) -> ClassMap:
    """Tell the most likely class of each cell.

    Raises
    ------
    ModelOutputError
        If the model has one output alone, or it is no model's.

    Notes
    -----
    Memory bound: the map, if it is not in memory yet, and one or two bytes a cell.
    """
    names = class_names(heatmap.names, heatmap.uncertainty, heatmap.run.get("kind"))
    if names is None:
        raise ModelOutputError(
            "there are no classes to choose from",
            f"the heatmap has the output {heatmap.names[0]!r} alone"
            if len(heatmap.names) == 1
            else heatmap.run["model"]["name"],
            "run a model with two or more outputs",
        )
    growing = GrowingClasses(heatmap.values, heatmap.frame, len(names))
    growing.fill()
    return ClassMap(growing.labels, names)


def label_cells(values: Values) -> NDArray[np.intp]:
    """Labels (...) of values (C, ...)."""
    known = ~np.isnan(values).any(0)
    return np.where(known, values.argmax(0) + 1, 0)


class GrowingClasses:
    """Labels of a map that may still grow; one thread adds, another fills or looks.

    Parameters
    ----------
    values : (C, My, Mx) float32
        Not copied: it holds a window before `add` tells of it.
    frame : MapFrame
        Of the map.
    classes : int
        How many of the channels are classes: the first.

    Attributes
    ----------
    labels : (My, Mx) unsigned
        As small as the number of classes allows; all 0 until `fill` or `add`.
    version : int
        Grows with every change; a viewer compares it to know whether to draw.
    """

    def __init__(self, values: Values, frame: MapFrame, classes: int) -> None:
        self._values, self._frame = values[:classes], frame
        self.labels: Labels = np.zeros(values.shape[1:], np.min_scalar_type(classes))
        self.version = 0
        self._lock = threading.Lock()

    def fill(self) -> None:
        """Label all cells."""
        for box in boxes_of(self.labels.shape, STRIP):
            self._label(box)
        self.version += 1

    def add(self, index: Index) -> None:
        """Label windows (n,), flat indices, that were put on the map; touches their cells only.

        Of a dense map those of the tiles below them as well, which they may have completed.
        """
        if self._frame.dense:
            for box in tiles_below(self._frame, index, self.labels.shape):
                self._label(box)
        else:
            self._label(np.divmod(index, self._frame.grid.shape[1]))
        self.version += 1

    def _label(self, at: Any) -> None:
        with self._lock:  # of two threads the later one reads the later values
            self.labels[at] = label_cells(self._values[:, *at])


def tiles_below(frame: MapFrame, index: Index, shape: tuple[int, ...]) -> Iterator[Box]:
    """Slices of the tiles of a dense map that hold a cell of some windows."""
    tiles: set[tuple[int, int]] = set()
    for i in index.tolist():
        down, across = (range(part.start // TILE, -(-part.stop // TILE)) for part in frame.box(i))
        tiles.update(product(down, across))
    for tile in sorted(tiles):
        yield chunk_box(tile, TILE, shape)
