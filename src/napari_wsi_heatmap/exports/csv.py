"""One row a window, in the columns of WSInfer (``model-outputs-csv``).

``minx,miny,width,height`` in level-0 pixels, then one column an output: ``prob_<name>`` where
the model gives probabilities, else ``<name>``. Windows that are done, in grid order.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.exports.windows import done_windows, measurement_names, number_texts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

PLACE = ("minx", "miny", "width", "height")
ROWS = 65_536
"""Rows that are turned into text at once."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Spreadsheets run a cell of text that begins so."""


def write(heatmap: Heatmap, path: Path, *, slide: Slide | None = None) -> None:
    """Write the table.

    Parameters
    ----------
    heatmap : Heatmap
        Of a dense map a window's value is the mean of its cells.
    path : Path
    slide : Slide, optional
        Not needed.

    Notes
    -----
    Numbers are written with the digits that give back the same float32; positions that are
    whole pixels without a point. A value that is not a number is ``nan``.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*PLACE, *column_names(heatmap)])
        for rows in _rows(heatmap):
            table.writerows(rows.tolist())


def column_names(heatmap: Heatmap) -> list[str]:
    """One name per output, harmless to a spreadsheet."""
    return [harmless(name) for name in measurement_names(heatmap)]


def harmless(text: str) -> str:
    """Put a ' before text that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _rows(heatmap: Heatmap) -> Iterator[NDArray[Any]]:
    """Rows as text, `ROWS` at a time."""
    windows = done_windows(heatmap)
    size = np.array(windows.size[::-1])
    for begin in range(0, len(windows), ROWS):
        part = slice(begin, begin + ROWS)
        places = windows.corners[part, ::-1]
        sizes = np.broadcast_to(size, places.shape)
        numbers = [number_texts(places), number_texts(sizes), windows.values[part].astype(str)]
        yield np.concatenate(numbers, axis=1)
