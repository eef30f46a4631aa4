"""What is said about a window that is inspected."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.inspecting.numbers import short_number

if TYPE_CHECKING:
    from napari_wsi_heatmap.inspecting.point import Inspection
    from napari_wsi_heatmap.inspecting.scores import Rank

STATES = {
    "pending": "not computed yet",
    "done": "",
    "background": "left out as background",
    "outside": "outside the region of the run",
    "failed": "failed",
}
NOWHERE = "No window of the map lies there."


def about(found: Inspection, seen: tuple[int, int]) -> str:
    """Which window it is, in a few lines.

    Parameters
    ----------
    found : Inspection
    seen : (int, int)
        (H, W) that the model saw of it.
    """
    if found.index is None:
        return NOWHERE
    (top, left), (height, width) = found.position, found.size
    which = f"Window {found.index:,}" if found.place is None else _placed(*found.place)
    lines = [
        f"{which}: {height:,.0f} × {width:,.0f} px at y {top:,.0f}, x {left:,.0f}",
        *([f"the model saw {seen[0]:,} × {seen[1]:,} px"] if seen != (height, width) else []),
        *([f"{_state(found)}"] if _state(found) else []),
        *(["hangs over the border: filled with background"] if found.hangs_over else []),
        *_among(found),
    ]
    return "\n".join(lines)


def _among(found: Inspection) -> list[str]:
    ranks = [rank for rank in found.ranks if rank is not None]
    return [f"ranks among {max(rank.of for rank in ranks):,} windows"] if ranks else []


def _placed(row: int, column: int) -> str:
    return f"Row {row:,}, column {column:,}"


def _state(found: Inspection) -> str:
    said = STATES.get(found.state, found.state)
    return f"{said}: {found.reason}" if found.reason else said


def covering_lines(found: Inspection) -> list[tuple[str, int]]:
    """Windows that cover the point, for a field to choose from: (text, flat index)."""
    number = len(found.covering)
    return [
        (f"window {i} of {number} over this place", int(index))
        for i, index in enumerate(found.covering, start=1)
    ]


def headings(dense: bool) -> list[str]:
    """Of the columns of `rows`."""
    return ["output", *(["here", "window"] if dense else ["value"]), "rank", "%"]


def rows(found: Inspection, dense: bool) -> list[list[str]]:
    """A line of a table for each output: its name, value and place among all windows."""
    if found.values is None:
        return []
    here = found.at_point if found.at_point is not None else np.full(len(found.names), np.nan)
    return [
        [name, *([short_number(at)] if dense else []), short_number(value), *_ranked(rank)]
        for name, at, value, rank in zip(
            found.names, here.tolist(), found.values.tolist(), found.ranks, strict=True
        )
    ]


def _ranked(rank: Rank | None) -> list[str]:
    if rank is None:
        return ["–", "–"]
    # Rounded down: only the highest has 100.
    return [f"{rank.place:,}", f"{math.floor(100 * rank.percentile) / 100:.4g}"]


def tips(found: Inspection) -> list[str]:
    """What is said of each line of the table under the mouse."""
    unit = f" {found.unit}" if found.unit else ""
    values = [] if found.values is None else found.values.tolist()
    return [
        f"{name}: {value:.6g}{unit}"
        + ("" if rank is None else f", {rank.place:,} of {rank.of:,}, {rank.percentile:.4g} %")
        for name, value, rank in zip(found.names, values, found.ranks, strict=False)
    ]
