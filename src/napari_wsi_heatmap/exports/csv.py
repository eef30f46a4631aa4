"""One row a window, in the columns of WSInfer (``model-outputs-csv``).

``minx,miny,width,height`` in level-0 pixels, then one column an output: ``prob_<name>`` where
the model gives probabilities, else ``<name>``. Windows that are done, in grid order.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

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
    probabilities = heatmap.run["model"]["activation"] is not None
    return [harmless(f"prob_{name}" if probabilities else name) for name in heatmap.names]


def harmless(text: str) -> str:
    """Put a ' before text that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _rows(heatmap: Heatmap) -> Iterator[NDArray[Any]]:
    """Rows as text, `ROWS` at a time."""
    index, values = heatmap.window_values()
    places = heatmap.grid.positions(index)[:, ::-1]
    size = np.array(heatmap.window_size[::-1])
    for begin in range(0, len(index), ROWS):
        part = slice(begin, begin + ROWS)
        sizes = np.broadcast_to(size, places[part].shape)
        numbers = [_text(places[part]), _text(sizes), values[part].astype(str)]
        yield np.concatenate(numbers, axis=1)


def _text(pixels: NDArray[np.float64]) -> NDArray[Any]:
    whole = np.rint(pixels)
    return np.where(pixels == whole, whole.astype(np.int64).astype(str), pixels.astype(str))
